from __future__ import annotations

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from torchvision.datasets import MNIST, FashionMNIST

from cutk_builtin.datasets.mnist import FashionMnist, Mnist

BOTH = pytest.mark.parametrize(
    ("component", "original", "folder"),
    [(Mnist, MNIST, "MNIST"), (FashionMnist, FashionMNIST, "FashionMNIST")],
    ids=["mnist", "fashion-mnist"],
)


def idx(array, *sizes):
    """Encode as LeCun describes: two zero bytes, 8 for unsigned bytes, the dimensions, their sizes big-endian."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *(sizes or array.shape)) + array.tobytes()


@pytest.fixture
def write_idx(noise):
    def call(folder):
        folder.mkdir(parents=True)
        arrays = {
            "train-images-idx3-ubyte": noise(50, 28, 28, seed=1),
            "train-labels-idx1-ubyte": np.arange(50, dtype=np.uint8) % 10,
            "t10k-images-idx3-ubyte": noise(20, 28, 28, seed=2),
            "t10k-labels-idx1-ubyte": np.arange(20, dtype=np.uint8)[::-1] % 10,
        }
        for name, array in arrays.items():
            (folder / name).write_bytes(idx(array))
        return arrays

    return call


def pack(raw, name):
    content = gzip.compress((raw / name).read_bytes())
    (raw / f"{name}.gz").write_bytes(content)
    (raw / name).unlink()
    return f"{name}.gz", hashlib.md5(content).hexdigest()  # noqa: S324


@BOTH
@pytest.mark.parametrize("packed", ["none", "some", "all", "all, to be fetched"])
def test_idx_files_are_read_packed_or_not(component, original, folder, packed, write_idx, load, tmp_path, monkeypatch):
    raw = tmp_path / folder / "raw"
    arrays = write_idx(raw)
    names = {"none": [], "some": list(arrays)[1:3]}.get(packed, list(arrays))
    sums = [pack(raw, name) for name in names]
    if fetched := packed.endswith("fetched"):
        # torchvision finds them there, looks at their sums, and unpacks them.
        monkeypatch.setattr(original, "resources", sums)
    splits = load(component, root=tmp_path, download=fetched)
    for part, prefix in ((splits.train, "train"), (splits.test, "t10k")):
        np.testing.assert_array_equal(part.x.numpy(), arrays[f"{prefix}-images-idx3-ubyte"][:, None])
        np.testing.assert_array_equal(part.labels.numpy(), arrays[f"{prefix}-labels-idx1-ubyte"])
        assert part.ids.tolist() == list(range(len(part.labels)))
        assert part.classes == component.published.classes == tuple(component.published.classes)
    if not fetched:
        assert sorted(path.name for path in raw.iterdir() if path.suffix == ".gz") == sorted(f"{n}.gz" for n in names)


@BOTH
def test_classes_are_those_that_torchvision_names(component, original, folder):
    if component is FashionMnist:
        assert component.published.classes == tuple(original.classes)
    else:
        assert component.published.classes == tuple(name[0] for name in original.classes)


IMAGES = np.zeros((50, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no idx",
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"1",
        idx(IMAGES[:49]),
        idx(IMAGES[:, :27]),
        idx(IMAGES, 2**32 - 1, 28, 28),
        idx(IMAGES, 2**31, 2**31, 2**31),
        b"\0\0\x0d" + idx(IMAGES)[3:],
    ],
    ids=["empty", "garbage", "cut off", "too long", "one too few", "other shape", "over-declared", "huge", "floats"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@BOTH
def test_damaged_idx_files_are_refused(component, original, folder, content, packed, write_idx, message, tmp_path):
    raw = tmp_path / folder / "raw"
    write_idx(raw)
    name = "train-images-idx3-ubyte"
    (raw / name).write_bytes(content)
    if packed:
        pack(raw, name)
    assert "or its files are damaged" in message(component, root=tmp_path)


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: c[:20] + b"!" + c[21:], lambda c: b"no gzip"])
def test_damaged_packed_files_are_refused(damage, write_idx, message, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    name, _ = pack(raw, "train-images-idx3-ubyte")
    (raw / name).write_bytes(damage((raw / name).read_bytes()))
    assert "or its files are damaged" in message(Mnist, root=tmp_path)


def test_an_archive_that_grows_without_end_is_not_unpacked(write_idx, message, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(50, np.uint8)) + bytes(2**24))
    pack(raw, "train-labels-idx1-ubyte")
    assert "or its files are damaged" in message(Mnist, root=tmp_path)


def test_a_pipe_is_no_file(write_idx, message, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    (raw / "train-labels-idx1-ubyte").unlink()
    os.mkfifo(raw / "train-labels-idx1-ubyte")
    assert "or its files are damaged" in message(Mnist, root=tmp_path)
