"""The datasets that lie on disk, each read from files of the original format that the test itself writes."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.datasets import CIFAR100, MNIST, PCAM, SVHN, FashionMNIST

import cutk
from cutk_builtin.datasets import pcam
from cutk_builtin.datasets.arrays import Arrays
from cutk_builtin.datasets.cifar100 import Cifar100
from cutk_builtin.datasets.fashion_mnist import FashionMnist
from cutk_builtin.datasets.folder import Folder
from cutk_builtin.datasets.mnist import Mnist
from cutk_builtin.datasets.pcam import PCam
from cutk_builtin.datasets.svhn import Svhn

# In the order of the file `meta`, as the authors published it.
FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
""".split()  # noqa: SIM905  # a hundred words, not a hundred lines


def md5(content):
    return hashlib.md5(content).hexdigest()  # noqa: S324


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def message(component, **options):
    """Return what the user reads when the data can't be loaded; it is one line."""
    with pytest.raises(cutk.UsageError) as error:
        component(component.Options(**options)).load()
    assert "\n" not in str(error.value)
    return str(error.value)


def load(component, **options):
    return component(component.Options(**options)).load()


# What all published datasets have in common.

PUBLISHED = {
    Cifar100: ("CIFAR-100", "cifar-100-python"),
    Mnist: ("MNIST", "MNIST/raw"),
    FashionMnist: ("Fashion-MNIST", "FashionMNIST/raw"),
    Svhn: ("SVHN", "{train,test}_32x32.mat"),
    PCam: ("PCam", "pcam/camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5"),
}


@pytest.mark.parametrize("component", PUBLISHED, ids=lambda component: component.name)
def test_missing_files_are_asked_for(component, tmp_path):
    title, expected = PUBLISHED[component]
    assert message(component, root=tmp_path) == (
        f"{title} is not in '{tmp_path}', or its files are damaged: expected '{tmp_path / expected}'. "
        "Give its folder with --data-root DIR, or let it be fetched with --download."
    )


@pytest.mark.parametrize("component", PUBLISHED, ids=lambda component: component.name)
def test_a_failed_download_is_explained(component, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network here")

    for where in ("cifar.download_and_extract_archive", "mnist.MNIST.download", "svhn.download_url"):
        monkeypatch.setattr(f"torchvision.datasets.{where}", fail)
    monkeypatch.setattr("torchvision.datasets.pcam.download_file_from_google_drive", fail)
    assert message(component, root=tmp_path, download=True) == (
        f"{PUBLISHED[component][0]} cannot be fetched into '{tmp_path}', or its files there are damaged "
        "(OSError: no network here). Get it another way, and give --data-root DIR."
    )


def test_a_bug_is_not_taken_for_missing_files(tmp_path):
    with pytest.raises(ZeroDivisionError), cutk.Splits.reading("X", tmp_path, tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("component", "package"), [(PCam, "h5py"), (Svhn, "scipy")], ids=lambda value: getattr(value, "name", value)
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(component, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    assert message(component, root=tmp_path).endswith(f"Install it: pip install 'cutk[{component.name}]'")


# CIFAR-100.


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows, sums = {}, {}
    for seed, (name, count) in enumerate([("train", 230), ("test", 40)]):
        rows[name] = noise(count, 3072, seed=seed)
        # Fine labels go down from class 99, coarse ones are there to be mistaken for them.
        labels = {"fine_labels": [99 - i % 100 for i in range(count)], "coarse_labels": [i % 20 for i in range(count)]}
        content = pickle.dumps({"data": rows[name], **labels})
        (folder / name).write_bytes(content)
        sums[name] = md5(content)
    content = pickle.dumps({"fine_label_names": FINE_LABELS, "coarse_label_names": ["trees"] * 20})
    (folder / "meta").write_bytes(content)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(content)})
    return rows


def test_cifar100_is_read_with_its_fine_labels(cifar100, tmp_path):
    splits = load(Cifar100, root=tmp_path)
    # A row is 1,024 red, 1,024 green, 1,024 blue values.
    np.testing.assert_array_equal(splits.train.pixels.numpy(), cifar100["train"].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(splits.test.pixels.numpy(), cifar100["test"].reshape(-1, 3, 32, 32))
    assert splits.train.labels.tolist() == [99 - i % 100 for i in range(230)]
    assert splits.train.classes == splits.test.classes == tuple(FINE_LABELS)
    assert splits.validation is None


def test_maple_and_oak_are_classes_of_cifar100():
    assert len(FINE_LABELS) == 100
    suggested = Cifar100.suggests["interclass-confusion"]["classes"]
    assert [FINE_LABELS.index(name) for name in suggested] == [47, 52]


def test_damaged_cifar100_is_refused(cifar100, tmp_path):
    (tmp_path / "cifar-100-python" / "test").write_bytes(b"")
    assert "or its files are damaged" in message(Cifar100, root=tmp_path)


# MNIST and Fashion-MNIST.


def idx(array):
    """Encode as LeCun describes: two zero bytes, 8 for unsigned bytes, the dimensions, their sizes big-endian."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder):
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


IDX = [(Mnist, MNIST, "MNIST"), (FashionMnist, FashionMNIST, "FashionMNIST")]


@pytest.mark.parametrize(("component", "original", "folder"), IDX, ids=["mnist", "fashion-mnist"])
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_idx_files_are_read(component, original, folder, packed, tmp_path, monkeypatch):
    raw = tmp_path / folder / "raw"
    arrays = write_idx(raw)
    if packed:
        # What is packed, torchvision unpacks when it may download, after a look at the sums.
        sums = []
        for name in arrays:
            content = gzip.compress((raw / name).read_bytes())
            (raw / f"{name}.gz").write_bytes(content)
            (raw / name).unlink()
            sums.append((f"{name}.gz", md5(content)))
        monkeypatch.setattr(original, "resources", sums)
    splits = load(component, root=tmp_path, download=packed)
    for part, prefix in ((splits.train, "train"), (splits.test, "t10k")):
        np.testing.assert_array_equal(part.pixels.numpy(), arrays[f"{prefix}-images-idx3-ubyte"][:, None])
        np.testing.assert_array_equal(part.labels.numpy(), arrays[f"{prefix}-labels-idx1-ubyte"])
    if component is Mnist:
        assert splits.train.classes == tuple("0123456789")
    else:
        assert splits.train.classes[:2] == ("T-shirt/top", "Trouser")
        assert splits.train.classes[9] == "Ankle boot"


@pytest.mark.parametrize(
    "content",
    [b"", b"no idx", idx(np.zeros((50, 28, 28), np.uint8))[:-1], idx(np.zeros((49, 28, 28), np.uint8))],
    ids=["empty", "garbage", "cut off", "one image too few"],
)
@pytest.mark.parametrize(("component", "original", "folder"), IDX, ids=["mnist", "fashion-mnist"])
def test_damaged_idx_files_are_refused(component, original, folder, content, tmp_path):
    write_idx(tmp_path / folder / "raw")
    (tmp_path / folder / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    assert "or its files are damaged" in message(component, root=tmp_path)


# SVHN.


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    from scipy.io import savemat

    written, expected = {}, {}
    for seed, (split, count) in enumerate([("train", 31), ("test", 12)]):
        # MATLAB counts from 1: the digit 0 is class 10.
        labels = np.array([1 + i % 10 for i in range(count)], np.uint8)
        written[split] = noise(32, 32, 3, count, seed=seed), labels
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": written[split][0], "y": labels[:, None]}, do_compression=True)
        expected[split] = ["", file.name, md5(file.read_bytes())]
    monkeypatch.setattr(SVHN, "split_list", expected)
    return written


def test_svhn_is_read_and_its_tenth_class_is_the_digit_0(svhn, tmp_path):
    splits = load(Svhn, root=tmp_path)
    for part, (pixels, labels) in ((splits.train, svhn["train"]), (splits.test, svhn["test"])):
        assert part.pixels.shape == (len(labels), 3, 32, 32)
        for i in (0, 5, len(labels) - 1):
            for channel in range(3):
                np.testing.assert_array_equal(part.pixels[i, channel].numpy(), pixels[:, :, channel, i])
        assert part.labels.tolist() == [int(label) % 10 for label in labels]
    assert [splits.train.classes[i] for i in splits.train.labels[:10]] == list("1234567890")
    assert splits.train.pixels.is_contiguous()


def test_damaged_svhn_is_refused(svhn, tmp_path):
    file = tmp_path / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:-20])
    assert "or its files are damaged" in message(Svhn, root=tmp_path)


# PCam.


def write_pcam(root, counts, side=96, y=None):
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


COUNTS = {"train": 11, "valid": 4, "test": 6}


@pytest.mark.parametrize(("crop", "start"), [(32, 32), (96, 0), (5, 45)])
def test_pcam_is_cropped_in_the_centre(crop, start, tmp_path, monkeypatch):
    monkeypatch.setattr(pcam, "AT_ONCE", 4)  # two full parts and a rest
    written = write_pcam(tmp_path, COUNTS)
    splits = load(PCam, root=tmp_path, crop=crop)
    for part, name in ((splits.train, "train"), (splits.validation, "valid"), (splits.test, "test")):
        x, labels = written[name]
        centre = x[:, start : start + crop, start : start + crop]
        np.testing.assert_array_equal(part.pixels.numpy(), np.moveaxis(centre, -1, 1))
        np.testing.assert_array_equal(part.labels.numpy(), labels)
        assert part.classes == ("normal", "tumour")


def test_pcam_is_fetched_by_torchvision(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    written = write_pcam(source, COUNTS)
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


def test_damaged_pcam_is_refused(tmp_path):
    write_pcam(tmp_path, COUNTS)
    file = tmp_path / "pcam" / "camelyonpatch_level_2_split_valid_x.h5"
    content = file.read_bytes()
    for damaged in (b"", b"no HDF5", content[: len(content) // 2]):
        file.write_bytes(damaged)
        assert "or its files are damaged" in message(PCam, root=tmp_path)
    file.unlink()
    assert "or its files are damaged" in message(PCam, root=tmp_path)


@pytest.mark.parametrize(
    "changes", [{"side": 24}, {"y": np.zeros((3, 1, 1, 1), np.uint8)}, {"y": np.full((6, 1, 1, 1), 2, np.uint8)}]
)
def test_pcam_files_of_another_shape_are_refused(changes, tmp_path):
    write_pcam(tmp_path, {**dict.fromkeys(COUNTS, 6)}, **changes)
    assert "or its files are damaged" in message(PCam, root=tmp_path)


# The split that is drawn where the data have none.


def test_a_split_is_stratified_seeded_and_complete(images_of):
    images = images_of(count=91, classes=3)  # 31, 30 and 30 of a class
    splits = cutk.Splits.of(images, 0.3, seed=5)
    assert torch.bincount(splits.test.labels).tolist() == [9, 9, 9]
    assert torch.bincount(splits.train.labels).tolist() == [22, 21, 21]
    assert splits.validation is None

    def rows(part):
        return [(image.tobytes(), int(label)) for image, label in zip(part.pixels.numpy(), part.labels, strict=True)]

    order = {row: i for i, row in enumerate(rows(images))}
    train, test = ([order[row] for row in rows(part)] for part in (splits.train, splits.test))
    assert sorted(train + test) == list(range(91))
    assert (train, test) == (sorted(train), sorted(test))
    assert splits.fingerprint() == cutk.Splits.of(images, 0.3, seed=5).fingerprint()
    assert splits.fingerprint() != cutk.Splits.of(images, 0.3, seed=6).fingerprint()


@pytest.mark.parametrize(("fraction", "testing"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_a_class_is_never_all_on_one_side(images_of, fraction, testing):
    splits = cutk.Splits.of(images_of(count=8, classes=2), fraction, seed=0)
    assert torch.bincount(splits.test.labels, minlength=2).tolist() == [testing] * 2
    assert torch.bincount(splits.train.labels, minlength=2).tolist() == [4 - testing] * 2


def test_a_class_of_one_image_cannot_be_split(images_of):
    with pytest.raises(cutk.UsageError, match=r"Class 'c2': expected at least 2 images, .*, got 1"):
        cutk.Splits.of(images_of(count=6, classes=3).select(torch.tensor([0, 1, 2, 3, 4])), 0.5, seed=0)


# Folders of images.


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


@pytest.fixture
def photos(tmp_path):
    """Two classes in three splits; what was written, by split and in the order of reading."""
    written = {}
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        written[split] = [
            save(tmp_path / split / name / f"{i}.png", noise(9, 7, 3, seed=len(split) * 100 + label * 10 + i))
            for label, name in enumerate(["cat", "dog"])
            for i in range(count)
        ]
    return written


def test_a_folder_in_splits_is_read_as_it_lies(photos, tmp_path):
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._0.png").write_text("what a Mac leaves behind")
    splits = load(Folder, root=tmp_path)
    for part, name in ((splits.train, "train"), (splits.test, "test"), (splits.validation, "val")):
        np.testing.assert_array_equal(part.pixels.numpy(), np.stack(photos[name]).transpose(0, 3, 1, 2))
        half = len(photos[name]) // 2
        assert part.labels.tolist() == [0] * half + [1] * half
        assert part.classes == ("cat", "dog")


def test_validation_images_may_be_called_so_or_be_absent(photos, tmp_path):
    (tmp_path / "val").rename(tmp_path / "validation")
    assert len(load(Folder, root=tmp_path).validation) == 2
    shutil.copytree(tmp_path / "validation", tmp_path / "val")
    assert "Expected one folder of validation images" in message(Folder, root=tmp_path)
    for name in ("val", "validation"):
        shutil.rmtree(tmp_path / name)
    assert load(Folder, root=tmp_path).validation is None


def test_a_folder_without_splits_is_split(tmp_path):
    arrays = {
        (name, i): save(tmp_path / name / folder / f"{i:02}.PNG", noise(8, 8, seed=100 * len(name) + i))
        for name, folder in (("b", ""), ("aa", "deeper"), ("train", ""))  # a class may be called so
        for i in range(10)
    }
    splits = load(Folder, root=tmp_path, grey=True, test_fraction=0.3, seed=1)
    assert splits.train.classes == ("aa", "b", "train")
    assert splits.train.shape == (1, 8, 8)
    assert torch.bincount(splits.test.labels).tolist() == [3, 3, 3]
    assert torch.bincount(splits.train.labels).tolist() == [7, 7, 7]
    read = {
        (part.classes[int(label)], image.tobytes())
        for part in (splits.train, splits.test)
        for image, label in zip(part.pixels.numpy(), part.labels, strict=True)
    }
    assert read == {(name, array.tobytes()) for (name, _), array in arrays.items()}
    other = load(Folder, root=tmp_path, grey=True, test_fraction=0.3, seed=2)
    assert not torch.equal(other.test.pixels, splits.test.pixels)


def test_grey_is_made_of_colour_and_colour_of_grey(tmp_path):
    colour = save(tmp_path / "train" / "a" / "0.png", noise(4, 4, 3))
    grey = save(tmp_path / "train" / "b" / "0.png", noise(4, 4))
    save(tmp_path / "test" / "a" / "0.png", noise(4, 4))
    first, second = load(Folder, root=tmp_path, grey=True).train.pixels.numpy()
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(first[0] - luma).max() <= 1
    np.testing.assert_array_equal(second[0], grey)
    first, second = load(Folder, root=tmp_path).train.pixels.numpy()
    np.testing.assert_array_equal(first, colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(second, np.stack([grey] * 3))


def test_size_scales_the_shorter_side_and_crops_the_centre(tmp_path):
    wide = save(tmp_path / "train" / "a" / "0.png", noise(4, 10, 3))
    tall = save(tmp_path / "train" / "b" / "0.png", noise(12, 4, 3))
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (8, 1))
    save(tmp_path / "test" / "b" / "0.png", ramp)
    splits = load(Folder, root=tmp_path, size=4)
    assert splits.train.pixels.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(splits.train.pixels[0].numpy(), wide[:, 3:7].transpose(2, 0, 1))
    np.testing.assert_array_equal(splits.train.pixels[1].numpy(), tall[4:8].transpose(2, 0, 1))
    # 16 columns become 8, each the mean of two: 5, 25, 45, …, of which the middle four remain.
    assert splits.test.pixels[0, 0].tolist() == [[45, 65, 85, 105]] * 4


def test_images_of_different_sizes_are_named(photos, tmp_path):
    save(tmp_path / "test" / "dog" / "1.png", noise(8, 7, 3))
    assert message(Folder, root=tmp_path) == (
        f"'{tmp_path / 'test' / 'dog' / '1.png'}': expected 9×7 pixels, as '{tmp_path / 'train' / 'cat' / '0.png'}' "
        "has, got 8×7. Set the option size to scale and crop all images to one size."
    )
    assert load(Folder, root=tmp_path, size=7).test.shape == (3, 7, 7)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut off", "chunk"])
def test_a_broken_image_is_named(photos, tmp_path, damage):
    file = tmp_path / "train" / "dog" / "1.png"
    content = file.read_bytes()
    chunk = content.index(b"IDAT")
    broken = {
        "empty": b"",
        "garbage": b"no image at all",
        "cut off": content[:-40],
        "chunk": content[:chunk] + b"!!!!" + content[chunk + 4 :],
    }
    file.write_bytes(broken[damage])
    assert message(Folder, root=tmp_path) == f"'{file}' is damaged, or no image. Replace it, or remove it."


def test_images_of_16_bits_are_not_cut_off_silently(photos, tmp_path):
    file = tmp_path / "train" / "cat" / "1.png"
    save(file, np.full((9, 7), 3000, np.uint16))
    text = message(Folder, root=tmp_path, grey=True)
    assert text.startswith(f"'{file}': expected 8 bits a channel, got the mode I")


def test_folders_that_do_not_fit_are_named(photos, tmp_path):
    text = message(Folder, root=tmp_path / "nowhere")
    assert text.startswith(
        f"'{tmp_path / 'nowhere'}' is no folder: expected images in '{tmp_path}/nowhere/train/CLASS'"
    )
    assert text.endswith("Give it with --data-root DIR or --dataset folder:DIR.")

    extra = tmp_path / "test" / "horse"
    save(extra / "0.png", noise(9, 7, 3))
    assert message(Folder, root=tmp_path).startswith(
        f"'{extra}' is a class without training images: expected one of cat, dog."
    )
    shutil.rmtree(extra)

    for split in ("train", "test"):
        empty = tmp_path / split / "dog"
        shutil.move(empty, tmp_path / "aside")
        empty.mkdir()
        assert message(Folder, root=tmp_path).startswith(f"'{empty}' has no images: expected files that end in .jpg, ")
        empty.rmdir()
        shutil.move(tmp_path / "aside", empty)

    shutil.rmtree(tmp_path / "test")
    assert message(Folder, root=tmp_path).startswith(f"'{tmp_path / 'train'}' has no test images beside it")
    (tmp_path / "test").mkdir()
    assert message(Folder, root=tmp_path).startswith(f"'{tmp_path / 'test'}' has no images: expected them in")
    shutil.rmtree(tmp_path / "train" / "dog")
    assert message(Folder, root=tmp_path) == (
        f"'{tmp_path / 'train'}': expected at least 2 folders, one for each class, got 1."
    )


@pytest.mark.parametrize(("name", "option"), [("folder:./images", "root"), ("arrays:my/data.npz", "file")])
def test_the_path_may_stand_behind_the_name(name, option, setup_of):
    (options,) = setup_of(dataset=name).dataset.points
    assert getattr(options, option) == Path(name.partition(":")[2])


# Arrays in one file.


def write_arrays(file, arrays, classes=None):
    if file.suffix == ".npz":
        np.savez(file, **arrays, **({} if classes is None else {"classes": np.array(classes)}))
    else:
        metadata = None if classes is None else {"classes": json.dumps(classes)}
        save_file({key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, file, metadata)


@pytest.fixture(params=[".npz", ".safetensors"])
def file(request, tmp_path):
    return tmp_path / f"data{request.param}"


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
def test_arrays_in_splits_are_read_in_any_layout(file, shape, layout, val):
    arrays = medmnist(shape, val)
    write_arrays(file, arrays)
    splits = load(Arrays, file=file, layout=layout)
    last = len(shape) == 3 and (layout == "channels-last" or (layout is None and shape[2] in (1, 3)))
    for part, key in ((splits.train, "train"), (splits.validation, val), (splits.test, "test")):
        written = arrays[f"{key}_images"]
        expected = np.moveaxis(written, -1, 1) if last else written.reshape(len(written), -1, *shape[-2:])
        np.testing.assert_array_equal(part.pixels.numpy(), expected)
        assert part.labels.tolist() == [i % 3 for i in range(len(written))]
        assert part.classes == ("0", "1", "2")
        assert part.pixels.is_contiguous()


@pytest.mark.parametrize("label", [np.int64, np.int32, np.uint8, np.uint16])
def test_labels_may_be_any_whole_numbers(file, label):
    write_arrays(file, medmnist(label=label))
    assert load(Arrays, file=file).train.labels.dtype == torch.int64


def test_labels_of_the_other_byte_order_are_read(tmp_path):
    write_arrays(tmp_path / "data.npz", medmnist(label=np.dtype(">i4")))
    assert load(Arrays, file=tmp_path / "data.npz").test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_classes_have_names_and_other_arrays_are_left_alone(file):
    write_arrays(file, {**medmnist(), "patient": np.arange(12)}, classes=["naevus", "melanoma", "müde"])
    assert load(Arrays, file=file).test.classes == ("naevus", "melanoma", "müde")


def test_arrays_without_splits_are_split(file):
    images, labels = noise(40, 5, 4, 3), np.arange(40) % 4
    write_arrays(file, {"images": images, "labels": labels})
    splits = load(Arrays, file=file, test_fraction=0.3, seed=3)
    assert torch.bincount(splits.test.labels).tolist() == [3, 3, 3, 3]
    assert torch.bincount(splits.train.labels).tolist() == [7, 7, 7, 7]
    expected = {(image.transpose(2, 0, 1).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    assert expected == {
        (image.numpy().tobytes(), int(label))
        for part in (splits.train, splits.test)
        for image, label in zip(part.pixels, part.labels, strict=True)
    }
    assert load(Arrays, file=file, test_fraction=0.3, seed=4).fingerprint() != splits.fingerprint()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_labels": None}, "train_labels is missing, found test_images, test_labels, train_images, "),
        ({"test_images": None}, "test_images is missing"),
        ({"val_labels": None}, "val_labels is missing"),
        ({"train_images": None}, "or images and labels alone; images is missing"),
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
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "one label for each of the 12 images, got the shape [12, 14]"),
        ({"train_labels": np.zeros(11, np.uint8)}, "one label for each of the 12 images, got the shape [11]"),
        ({"train_labels": np.arange(12) % 3 - 1}, "train_labels: expected classes from 0 up, got -1"),
        ({"train_labels": np.arange(12) % 3 + 1}, "expected images of each class from 0 to 3, got none of class 0"),
        ({"test_labels": np.arange(6)}, "train_labels: expected images of each class from 0 to 5, got none of class 3"),
    ],
)
def test_arrays_that_do_not_fit_are_named(file, changes, expected):
    arrays = {key: array for key, array in {**medmnist(), **changes}.items() if array is not None}
    write_arrays(file, arrays)
    text = message(Arrays, file=file)
    assert text.startswith(f"'{file}': ")
    assert expected in text


def test_too_few_class_names_are_refused(file):
    write_arrays(file, medmnist(), classes=["a", "b"])
    assert "classes: expected a name for each label from 0 to 2, got 2 names" in message(Arrays, file=file)


@pytest.mark.parametrize("names", ["a, b, c", '{"a": 0}'])
def test_class_names_in_metadata_are_a_json_list(tmp_path, names):
    save_file({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, tmp_path / "data.safetensors", {"classes": names})
    text = message(Arrays, file=tmp_path / "data.safetensors")
    assert f"metadata 'classes': expected a JSON list of names, got {names!r}" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classes": np.array(["a", 1], object)}, "classes is damaged, or holds pickled objects, which are not loaded"),
        ({"train_labels": np.array([None] * 12)}, "train_labels is damaged, or holds pickled objects"),
        ({"train_labels": np.array(["cat"] * 12)}, "train_labels: expected numbers, got <U3"),
        ({"classes": np.array([["a", "b", "c"]])}, "classes: expected a list of names, got the shape [1, 3]"),
    ],
)
def test_npz_files_hold_numbers_and_texts(tmp_path, changes, expected):
    np.savez(tmp_path / "data.npz", allow_pickle=True, **{**medmnist(), **changes})
    assert expected in message(Arrays, file=tmp_path / "data.npz")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: b"no file", lambda content: content[:-30]])
def test_a_damaged_file_is_refused(file, damage):
    write_arrays(file, medmnist())
    file.write_bytes(damage(file.read_bytes()))
    assert f"it is damaged, or no {file.suffix} file" in message(Arrays, file=file)


def test_a_flipped_bit_in_an_npz_file_is_noticed(tmp_path):
    file = tmp_path / "data.npz"
    write_arrays(file, medmnist())
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    assert "train_images is damaged" in message(Arrays, file=file)


def test_a_file_that_is_not_there_or_of_another_kind_is_asked_for(tmp_path):
    text = message(Arrays, file=tmp_path / "data.npz")
    assert text == (
        f"'{tmp_path / 'data.npz'}' is not there: expected a .npz or .safetensors file with images and labels. "
        "Give it with --dataset arrays:FILE."
    )
    np.save(tmp_path / "data.npy", np.zeros(3))
    assert "ends in neither: expected a .npz or .safetensors" in message(Arrays, file=tmp_path / "data.npy")
