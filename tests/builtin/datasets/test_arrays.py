from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import cutk
from cutk_builtin.datasets.arrays import Arrays


def write_arrays(file, arrays, classes=None):
    if file.suffix == ".npz":
        np.savez(file, **arrays, **({} if classes is None else {"classes": np.array(classes)}))
    else:
        metadata = None if classes is None else {"classes": json.dumps(classes)}
        save_file({key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, file, metadata)


@pytest.fixture(params=[".npz", ".safetensors"])
def file(request, tmp_path):
    return tmp_path / f"data{request.param}"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def medmnist(shape=(28, 28), val="val", label=np.uint8):
    """Return arrays as MedMNIST has them: labels are [N, 1]."""
    counts = {"train": 12, val: 3, "test": 6}
    arrays = {f"{key}_images": noise(count, *shape, seed=count) for key, count in counts.items()}
    return arrays | {f"{key}_labels": (np.arange(count) % 3).astype(label)[:, None] for key, count in counts.items()}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((28, 28), None),
        ((28, 28, 3), None),
        ((6, 5, 1), None),
        ((4, 7, 6), None),
        ((3, 6, 4), "channels-first"),
        ((3, 6, 4), "channels-last"),
        ((2, 6, 5), "channels-first"),
    ],
)
@pytest.mark.parametrize("val", ["val", "validation"])
def test_arrays_in_splits_are_read_in_any_layout(file, shape, layout, val, load):
    arrays = medmnist(shape, val)
    write_arrays(file, arrays)
    splits = load(Arrays, file=file, layout=layout)
    last = len(shape) == 3 and (layout == "channels-last" or (layout is None and shape[2] in (1, 3)))
    for part, key in ((splits.train, "train"), (splits.validation, val), (splits.test, "test")):
        written = arrays[f"{key}_images"]
        expected = np.moveaxis(written, -1, 1) if last else written.reshape(len(written), -1, *shape[-2:])
        np.testing.assert_array_equal(part.x.numpy(), expected)
        assert part.labels.tolist() == [i % 3 for i in range(len(written))]
        assert part.classes == ("0", "1", "2")
        assert part.x.is_contiguous()


@pytest.mark.parametrize("label", [np.int64, np.int32, np.uint8, np.uint16])
def test_labels_may_be_any_whole_numbers(file, label, load):
    write_arrays(file, medmnist(label=label))
    assert load(Arrays, file=file).train.labels.dtype == torch.int64


def test_labels_of_the_other_byte_order_are_read(tmp_path, load):
    write_arrays(tmp_path / "data.npz", medmnist(label=np.dtype(">i4")))
    assert load(Arrays, file=tmp_path / "data.npz").test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_classes_have_names_and_other_arrays_are_left_alone(file, load):
    write_arrays(file, {**medmnist(), "patient": np.arange(12)}, classes=["naevus", "melanoma", "müde"])
    assert load(Arrays, file=file).test.classes == ("naevus", "melanoma", "müde")


def test_arrays_without_splits_are_split(file, load):
    images, labels = noise(40, 5, 4, 3), np.arange(40) % 4
    write_arrays(file, {"images": images, "labels": labels})
    splits = load(Arrays, file=file, test_fraction=0.3, seed=3)
    assert torch.bincount(splits.test.labels).tolist() == [3, 3, 3, 3]
    assert torch.bincount(splits.train.labels).tolist() == [7, 7, 7, 7]
    expected = {(image.transpose(2, 0, 1).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    assert expected == {
        (image.numpy().tobytes(), int(label))
        for part in (splits.train, splits.test)
        for image, label in zip(part.x, part.labels, strict=True)
    }
    assert load(Arrays, file=file, test_fraction=0.3, seed=4).fingerprint() != splits.fingerprint()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_labels": None}, "train_labels is missing, found test_images, test_labels, train_images, "),
        ({"test_images": None}, "test_images is missing"),
        ({"val_labels": None}, "val_labels is missing"),
        (
            {"train_images": None},
            "or images and labels alone (features or tokens in place of images); images is missing",
        ),
        (
            {"train_images": np.zeros((12, 28, 28), np.float32)},
            "train_images: expected pixels 0 to 255 as uint8, got float32. Convert them; for values from 0 to 1: "
            "(images * 255).round().astype('uint8')",
        ),
        ({"test_images": np.zeros((6, 28, 28), np.int16)}, "test_images: expected pixels 0 to 255 as uint8, got int16"),
        ({"train_images": np.zeros((12, 784), np.uint8)}, "got the shape [12, 784]"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "got the shape [0, 28, 28]"),
        ({"train_images": np.zeros((12, 3, 9, 3), np.uint8)}, "[12, 3, 9, 3]. Say which: set the option layout to"),
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, "either first or last, got the shape"),
        (
            {"test_images": np.zeros((6, 27, 28), np.uint8)},
            "test_images: expected the shape of train_images, [1, 28, 28]",
        ),
        ({"train_labels": np.zeros(12)}, "train_labels: expected classes as whole numbers, got float64"),
        (
            {"train_labels": np.zeros((12, 14), np.uint8)},
            "one label for each of the 12 samples, got the shape [12, 14]",
        ),
        ({"train_labels": np.zeros(11, np.uint8)}, "one label for each of the 12 samples, got the shape [11]"),
        ({"train_labels": np.arange(12) % 3 - 1}, "train_labels: expected classes from 0 up, got -1"),
        ({"train_labels": np.arange(12) % 3 + 1}, "expected samples of each class from 0 to 3, got none of class 0"),
        (
            {"test_labels": np.arange(6)},
            "train_labels: expected samples of each class from 0 to 5, got none of class 3",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(file, changes, expected, message):
    arrays = {key: array for key, array in {**medmnist(), **changes}.items() if array is not None}
    write_arrays(file, arrays)
    text = message(Arrays, file=file)
    assert text.startswith(f"'{file}': ")
    assert expected in text


def test_too_few_class_names_are_refused(file, message):
    write_arrays(file, medmnist(), classes=["a", "b"])
    assert "classes: expected a name for each label from 0 to 2, got 2 names" in message(Arrays, file=file)


@pytest.mark.parametrize("names", ["a, b, c", '{"a": 0}'])
def test_class_names_in_metadata_are_a_json_list(tmp_path, names, message):
    save_file({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, tmp_path / "data.safetensors", {"classes": names})
    text = message(Arrays, file=tmp_path / "data.safetensors")
    assert f"metadata 'classes': expected a JSON list of names, got {names!r}" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"classes": np.array(["a", 1], object)},
            "classes holds pickled objects, which are not loaded: save numbers with a numeric dtype, and names",
        ),
        ({"train_labels": np.array([None] * 12)}, "train_labels holds pickled objects"),
        ({"train_labels": np.array(["cat"] * 12)}, "train_labels: expected numbers of at most 64 bits, got <U3"),
        ({"classes": np.array([["a", "b", "c"]])}, "classes: expected a list of names, got the shape [1, 3]"),
    ],
)
def test_npz_files_hold_numbers_and_texts(tmp_path, changes, expected, message):
    np.savez(tmp_path / "data.npz", allow_pickle=True, **{**medmnist(), **changes})
    assert expected in message(Arrays, file=tmp_path / "data.npz")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: b"no file", lambda content: content[:-30]])
def test_a_damaged_file_is_refused(file, damage, message):
    write_arrays(file, medmnist())
    file.write_bytes(damage(file.read_bytes()))
    assert f"it is damaged, or no {file.suffix} file" in message(Arrays, file=file)


def test_a_flipped_bit_in_an_npz_file_is_noticed(tmp_path, message):
    file = tmp_path / "data.npz"
    write_arrays(file, medmnist())
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    assert "train_images is damaged" in message(Arrays, file=file)


def test_a_file_that_is_not_there_or_of_another_kind_is_asked_for(tmp_path, message):
    text = message(Arrays, file=tmp_path / "data.npz")
    assert text == (
        f"'{tmp_path / 'data.npz'}' is not there: expected a .npz or .safetensors file with samples and "
        "labels. "
        "Give it as arrays:FILE."
    )
    np.save(tmp_path / "data.npy", np.zeros(3))
    assert "ends in neither: expected a .npz or .safetensors" in message(Arrays, file=tmp_path / "data.npy")


# Feature vectors.


def vectors(dtype=np.float32, val="val"):
    rng = np.random.default_rng(0)
    counts = {"train": 12, val: 3, "test": 6}
    arrays = {f"{key}_features": (rng.normal(size=(count, 5)) * 50).astype(dtype) for key, count in counts.items()}
    return arrays | {f"{key}_labels": np.arange(count) % 3 for key, count in counts.items()}


def assert_read(splits, form, arrays):
    """See whether splits hold what the file does, whose arrays here have the dtype that they are read in."""
    for part, key in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        expected = arrays[f"{key}_{form}"]
        assert part.form == form
        assert part.x.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(part.x.numpy(), expected)
        assert part.classes == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint8, np.bool_])
def test_features_in_splits_are_read_as_float32(file, dtype, load):
    arrays = vectors(dtype)
    write_arrays(file, arrays)
    assert_read(load(Arrays, file=file), "features", {key: a.astype(np.float32) for key, a in arrays.items()})


def test_features_without_splits_are_split(file, load):
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    write_arrays(file, {"features": x, "labels": np.arange(40) % 4}, classes=["a", "b", "c", "d"])
    splits = load(Arrays, file=file, test_fraction=0.3)
    for part in (splits.train, splits.test):
        np.testing.assert_array_equal(part.x.numpy(), x[part.ids.numpy()])
    assert torch.bincount(splits.test.labels).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_features": np.zeros(12, np.float32)}, "train_features: expected features [N, D], got the shape [12]"),
        (
            {"train_features": np.zeros((12, 2, 2))},
            "train_features: expected features [N, D], got the shape [12, 2, 2]",
        ),
        ({"train_features": np.zeros((12, 0))}, "train_features: expected features [N, D], got the shape [12, 0]"),
        (
            {"test_features": np.full((6, 5), np.nan)},
            "test_features: expected finite numbers, got others in 6 rows. Fill in what is missing",
        ),
        ({"test_features": np.full((6, 5), 1e300)}, "test_features: expected finite numbers, got others in 6 rows"),
        ({"test_features": np.zeros((6, 4))}, "test_features: expected the shape of train_features, [5], got [4]"),
        (
            {"train_images": noise(12, 8, 8)},
            "expected one of train_images, train_features and train_tokens, got several",
        ),
        (
            {"test_features": None, "test_images": noise(6, 8, 8)},
            "test_images: expected the shape of train_features, [5], got [1, 8, 8]",
        ),
        (
            {"test_features": None},
            "(features or tokens in place of images); test_images is missing, found test_labels, ",
        ),
        ({"train_labels": np.zeros(11, int)}, "train_labels: expected one label for each of the 12 samples"),
    ],
)
def test_features_that_do_not_fit_are_named(file, changes, expected, message):
    write_arrays(file, {key: array for key, array in {**vectors(), **changes}.items() if array is not None})
    assert expected in message(Arrays, file=file)


# Tokens.


def rows(dtype=np.int64):
    rng = np.random.default_rng(0)
    counts = {"train": 12, "val": 3, "test": 6}
    arrays = {f"{key}_tokens": rng.integers(0, 90, (count, 7)).astype(dtype) for key, count in counts.items()}
    return arrays | {f"{key}_labels": np.arange(count) % 3 for key, count in counts.items()}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16, np.uint32, np.uint64])
def test_tokens_are_read_as_int64(file, dtype, load):
    arrays = rows(dtype)
    write_arrays(file, arrays)
    assert_read(load(Arrays, file=file), "tokens", {key: a.astype(np.int64) for key, a in arrays.items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_tokens": np.zeros(12, int)}, "train_tokens: expected tokens [N, L], got the shape [12]. Pad them"),
        ({"train_tokens": np.zeros((12, 0), int)}, "train_tokens: expected tokens [N, L], got the shape [12, 0]"),
        ({"test_tokens": np.zeros((6, 7))}, "test_tokens: expected tokens as whole numbers, got float64. Convert them"),
        ({"test_tokens": np.full((6, 7), -1)}, "test_tokens: expected tokens from 0 up, got -1"),
        ({"test_tokens": np.zeros((6, 4), int)}, "test_tokens: expected the shape of train_tokens, [7], got [4]"),
        ({"train_features": np.zeros((12, 7))}, "expected one of train_images, train_features and train_tokens"),
        ({"train_labels": np.full(12, 12)}, "train_labels: expected samples of each class from 0 to 12"),
    ],
)
def test_tokens_that_do_not_fit_are_named(file, changes, expected, message):
    write_arrays(file, rows() | changes)
    assert expected in message(Arrays, file=file)


# Bad input.


@pytest.mark.parametrize("highest", [100, 10**8, 2**31, 2**62])
def test_labels_that_are_no_classes_are_refused_before_classes_are_named(file, highest, message):
    arrays = medmnist()
    for key in ("train_labels", "test_labels"):
        labels = arrays[key].astype(np.int64)
        labels[-1] = highest
        write_arrays(file, {**arrays, key: labels})
        assert message(Arrays, file=file) == (
            f"'{file}': train_labels: expected samples of each class from 0 to {highest}, got 12 samples in all. "
            "Number the classes from 0 up without gaps."
        )


@pytest.mark.parametrize("names", [None, ["a"]])
def test_a_single_class_is_refused(file, names, message):
    arrays = {key: array * 0 if key.endswith("labels") else array for key, array in medmnist().items()}
    write_arrays(file, arrays, names)
    assert message(Arrays, file=file) == f"'{file}': train_labels: expected at least 2 classes, got 1."


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_member(file, content, compression=zipfile.ZIP_STORED):
    """Write a file whose training images are ``content``."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for key, array in medmnist().items():
            archive.writestr(f"{key}.npy", content if key == "train_images" else npy(array))


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def patched(file, signature, offset, value):
    """Change bytes in all headers of an archive that begin with ``signature``."""
    content = bytearray(file.read_bytes())
    position = content.find(signature)
    while position >= 0:
        content[position + offset : position + offset + len(value)] = value
        position = content.find(signature, position + 4)
    file.write_bytes(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_may_be_packed_in_any_way_that_python_knows(tmp_path, compression, load):
    write_member(tmp_path / "data.npz", npy(medmnist()["train_images"]), compression)
    np.testing.assert_array_equal(
        load(Arrays, file=tmp_path / "data.npz").train.x[:, 0].numpy(), medmnist()["train_images"]
    )


def test_encrypted_archives_are_refused(tmp_path, message):
    file = tmp_path / "data.npz"
    write_arrays(file, medmnist())
    patched(file, b"PK\x01\x02", 8, b"\x01")
    patched(file, b"PK\x03\x04", 6, b"\x01")
    assert message(Arrays, file=file) == f"'{file}': train_images is encrypted. Save it without a password."


def test_archives_that_are_packed_in_another_way_are_refused(tmp_path, message):
    file = tmp_path / "data.npz"
    write_arrays(file, medmnist())
    patched(file, b"PK\x01\x02", 10, b"\x63")
    patched(file, b"PK\x03\x04", 8, b"\x63")
    assert message(Arrays, file=file).startswith(f"'{file}': train_images is packed in a way that isn't known (99).")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no array", "train_images is no array of NumPy's. Save it with numpy.savez."),
        (b"", "train_images is no array of NumPy's"),
        (b"\x93NUMPY", "train_images is damaged ("),
        (b"\x93NUMPY\x03\x00" + npy(noise(12, 8, 8))[8:], "train_images has the version 3.0 of NumPy's format"),
        (
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 28, 28)}") + bytes(100),
            "train_images is damaged: [99999999, 28, 28] of uint8 take 78,399,999,216 bytes, and it has 179.",
        ),
        (
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (-12, -28, 1)}") + bytes(400),
            "train_images is damaged: [-12, -28, 1]",
        ),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (12, 28, 28)"), "train_images is damaged ("),
        (header("(" * 9000), "train_images is damaged ("),
        (header("[" * 200_00), "train_images is damaged ("),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (12,)}"), "train_images holds pickled objects"),
        (npy(noise(12, 28, 28))[:-1], "train_images is damaged (EOF: "),
        (npy(np.zeros((12, 28, 28), np.longdouble)), "train_images: expected numbers of at most 64 bits, got "),
        (npy(np.zeros((12, 28, 28), complex)), "train_images: expected numbers of at most 64 bits, got complex128"),
        (npy(np.zeros(12, "M8[s]")), "train_images: expected numbers of at most 64 bits, got datetime64[s]"),
        (npy(np.zeros(12, [("a", int)])), "train_images: expected numbers of at most 64 bits, got [('a', "),
    ],
)
def test_members_that_are_no_arrays_of_numbers_are_refused(tmp_path, content, expected, message):
    file = tmp_path / "data.npz"
    write_member(file, content)
    assert message(Arrays, file=file).startswith(f"'{file}': {expected}")


def test_an_archive_that_grows_without_end_is_not_unpacked(tmp_path, message, monkeypatch):
    monkeypatch.setattr("cutk_builtin.datasets.arrays.ALWAYS_READ", 2**20)
    file = tmp_path / "data.npz"
    write_member(file, npy(np.zeros((3000, 28, 28), np.uint8)), zipfile.ZIP_DEFLATED)
    assert message(Arrays, file=file).startswith(f"'{file}': train_images would grow from ")


def test_an_archive_whose_directory_lies_is_refused(tmp_path, message):
    file = tmp_path / "data.npz"
    write_arrays(file, medmnist())
    patched(file, b"PK\x01\x02", 24, (2**30).to_bytes(4, "little"))
    assert "train_images would grow from " in message(Arrays, file=file)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_damaged_is_refused_or_read(tmp_path, load, seed):
    rng = np.random.default_rng(seed)
    for suffix in (".npz", ".safetensors"):
        file = tmp_path / f"data{suffix}"
        write_arrays(file, medmnist((8, 8)))
        content = bytearray(file.read_bytes())
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(len(content))] = rng.integers(256)
        file.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
        with contextlib.suppress(cutk.UsageError):
            load(Arrays, file=file)


@pytest.mark.parametrize("names", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "[[1]]", "[1e999]"])
def test_metadata_that_are_no_list_of_names_are_refused(tmp_path, names, message):
    file = tmp_path / "data.safetensors"
    save_file({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, file, {"classes": names})
    text = message(Arrays, file=file)
    assert "metadata 'classes': expected a JSON list of names, got " in text
    assert len(text) < 400


def test_a_file_that_cannot_be_read_is_called_so(file, open_folder, nobody, message):
    barred = open_folder / file.name
    write_arrays(barred, medmnist())
    os.chmod(barred, 0)
    with nobody():
        assert message(Arrays, file=barred) == f"'{barred}' can't be read: Permission denied."
    os.chmod(barred, 0o644)
    os.chmod(open_folder, 0)
    with nobody():
        assert "can't be read: Permission denied." in message(Arrays, file=barred)
    os.chmod(open_folder, 0o755)  # noqa: S103


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused(file, kind, message):
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    assert message(Arrays, file=file).startswith(f"'{file}' is no file: expected a .npz or .safetensors file")


@pytest.mark.parametrize("seed", [2**63, 10**30, -1])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        Arrays.Options(seed=seed)
