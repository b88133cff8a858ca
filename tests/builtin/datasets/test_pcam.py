from __future__ import annotations

import gzip
import os

import numpy as np
import pytest
from torchvision.datasets import PCAM

from cutk_builtin.datasets import pcam
from cutk_builtin.datasets.pcam import PCam

COUNTS = {"train": 11, "valid": 4, "test": 6}


@pytest.fixture
def write_pcam(noise):
    def call(root, counts=COUNTS, side=96, y=None):
        import h5py

        folder = root / "pcam"
        folder.mkdir(exist_ok=True)
        written = {}
        for seed, (split, count) in enumerate(counts.items()):
            x = noise(count, side, side, 3, seed=seed)
            labels = np.array([i % 3 == 0 for i in range(count)], np.uint8)
            for kind, array in (("x", x), ("y", labels.reshape(-1, 1, 1, 1) if y is None else y)):
                with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                    file.create_dataset(kind, data=array, compression="gzip" if kind == "x" else None)
            written[split] = x, labels
        return written

    return call


def path_of(root, split="valid", kind="x"):
    return root / "pcam" / f"camelyonpatch_level_2_split_{split}_{kind}.h5"


@pytest.mark.parametrize(("crop", "start"), [(32, 32), (96, 0), (5, 45)])
def test_pcam_is_cropped_in_the_centre(crop, start, write_pcam, load, tmp_path, monkeypatch):
    monkeypatch.setattr(pcam, "AT_ONCE", 4)  # two full parts and a rest
    written = write_pcam(tmp_path)
    splits = load(PCam, root=tmp_path, crop=crop)
    for part, name in ((splits.train, "train"), (splits.validation, "valid"), (splits.test, "test")):
        x, labels = written[name]
        centre = x[:, start : start + crop, start : start + crop]
        np.testing.assert_array_equal(part.x.numpy(), np.moveaxis(centre, -1, 1))
        np.testing.assert_array_equal(part.labels.numpy(), labels)
        assert part.classes == ("normal", "tumour")


def test_pcam_is_fetched_by_torchvision(write_pcam, load, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    written = write_pcam(source)
    fetched = []

    def fetch(file_id, folder, filename, md5):
        fetched.append((filename, md5))
        (tmp_path / "pcam").mkdir(exist_ok=True)
        content = (source / "pcam" / filename.removesuffix(".gz")).read_bytes()
        (tmp_path / "pcam" / filename).write_bytes(gzip.compress(content))

    monkeypatch.setattr("torchvision.datasets.pcam.download_file_from_google_drive", fetch)
    splits = load(PCam, root=tmp_path, download=True)
    assert len(fetched) == 6
    assert all(md5 for _, md5 in fetched)
    np.testing.assert_array_equal(splits.test.labels.numpy(), written["test"][1])
    # What is there isn't fetched again.
    load(PCam, root=tmp_path, download=True)
    assert len(fetched) == 6
    assert {name for files in PCAM._FILES.values() for name, _, _ in files.values()} == {
        file.name for file in (source / "pcam").iterdir()
    }


def test_damaged_pcam_is_refused(write_pcam, message, tmp_path):
    write_pcam(tmp_path)
    file = path_of(tmp_path)
    content = file.read_bytes()
    for damaged in (b"", b"no HDF5", content[: len(content) // 2]):
        file.write_bytes(damaged)
        assert "or its files are damaged" in message(PCam, root=tmp_path)
    file.unlink()
    assert "or its files are damaged" in message(PCam, root=tmp_path)
    os.mkfifo(file)
    assert "or its files are damaged" in message(PCam, root=tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"side": 24},
            "expected x uint8 [N, 32 or more, 32 or more, 3] with N up to 1,048,576, got uint8 [6, 24, 24, 3].",
        ),
        ({"y": np.zeros((3, 1, 1, 1), np.uint8)}, "expected y as whole numbers [6, 1, 1, 1], got uint8 [3, 1, 1, 1]."),
        ({"y": np.full((6, 1, 1, 1), 2, np.uint8)}, "expected labels 0 and 1, got 2 to 2."),
        ({"y": np.full((6, 1, 1, 1), -1, np.int64)}, "expected labels 0 and 1, got -1 to -1."),
        ({"y": np.full((6, 1, 1, 1), 0.5)}, "expected y as whole numbers [6, 1, 1, 1], got float64 [6, 1, 1, 1]."),
    ],
)
def test_pcam_files_of_another_content_are_refused(changes, expected, write_pcam, message, tmp_path):
    write_pcam(tmp_path, dict.fromkeys(COUNTS, 6), **changes)
    text = message(PCam, root=tmp_path)
    assert text.startswith(f"'{path_of(tmp_path, 'train', 'x' if 'side' in changes else 'y')}': {expected}")


@pytest.mark.parametrize("kind", ["x", "y"])
def test_groups_where_arrays_are_due_are_refused(kind, write_pcam, message, tmp_path):
    import h5py

    write_pcam(tmp_path)
    for make, came in ((lambda file: file.create_group(kind), "a group"), (lambda file: None, "nothing")):
        with h5py.File(path_of(tmp_path, "train", kind), "w") as file:
            make(file)
        assert f"expected an array {kind}, got {came}. Get the file anew." in message(PCam, root=tmp_path)


def test_an_array_that_says_it_is_endless_is_refused(write_pcam, message, tmp_path):
    import h5py

    write_pcam(tmp_path)
    with h5py.File(path_of(tmp_path, "train"), "w") as file:
        file.create_dataset("x", (10**9, 96, 96, 3), "uint8", chunks=(1, 96, 96, 3))
    assert "got uint8 [1000000000, 96, 96, 3]" in message(PCam, root=tmp_path)
