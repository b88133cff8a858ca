from __future__ import annotations

import io
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cutk
from cutk_builtin.datasets.folder import Folder


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


@pytest.fixture
def photos(tmp_path, noise):
    """Two classes in three splits; what was written, by split and in the order of reading."""
    written = {}
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        written[split] = [
            save(tmp_path / split / name / f"{i}.png", noise(9, 7, 3, seed=len(split) * 100 + label * 10 + i))
            for label, name in enumerate(["cat", "dog"])
            for i in range(count)
        ]
    return written


def test_a_folder_in_splits_is_read_as_it_lies(photos, tmp_path, load):
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "._0.png").write_text("what a Mac leaves behind")
    splits = load(Folder, root=tmp_path)
    for part, name in ((splits.train, "train"), (splits.test, "test"), (splits.validation, "val")):
        np.testing.assert_array_equal(part.x.numpy(), np.stack(photos[name]).transpose(0, 3, 1, 2))
        half = len(photos[name]) // 2
        assert part.labels.tolist() == [0] * half + [1] * half
        assert part.classes == ("cat", "dog")
        assert part.ids.tolist() == list(range(2 * half))
        assert part.names == tuple(f"{name}/{label}/{i}.png" for label in ("cat", "dog") for i in range(half))


def test_validation_images_may_be_called_so_or_be_absent(photos, tmp_path, load, message):
    (tmp_path / "val").rename(tmp_path / "validation")
    assert len(load(Folder, root=tmp_path).validation) == 2
    shutil.copytree(tmp_path / "validation", tmp_path / "val")
    assert "Expected one folder of validation images" in message(Folder, root=tmp_path)
    for name in ("val", "validation"):
        shutil.rmtree(tmp_path / name)
    assert load(Folder, root=tmp_path).validation is None


def test_a_folder_without_splits_is_split(tmp_path, load, noise):
    arrays = {
        (name, i): save(tmp_path / name / folder / f"{i:02}.PNG", noise(8, 8, seed=100 * len(name) + i))
        for name, folder in (("b", ""), ("aa", "deeper"), ("train", ""))  # a class may be called so
        for i in range(10)
    }
    splits = load(Folder, root=tmp_path, grey=True, test_fraction=0.3, seed=1)
    assert splits.train.classes == ("aa", "b", "train")
    assert splits.train.shape == (1, 8, 8)
    assert sorted([*splits.train.ids.tolist(), *splits.test.ids.tolist()]) == list(range(30))
    names = dict(zip(splits.test.ids.tolist(), splits.test.names, strict=True))
    assert all(names[i].endswith(f"{i % 10:02}.PNG") for i in names)
    assert {name.partition("/")[0] for name in names.values()} == {"aa", "b", "train"}
    assert torch.bincount(splits.test.labels).tolist() == [3, 3, 3]
    assert torch.bincount(splits.train.labels).tolist() == [7, 7, 7]
    read = {
        (part.classes[int(label)], image.tobytes())
        for part in (splits.train, splits.test)
        for image, label in zip(part.x.numpy(), part.labels, strict=True)
    }
    assert read == {(name, array.tobytes()) for (name, _), array in arrays.items()}
    other = load(Folder, root=tmp_path, grey=True, test_fraction=0.3, seed=2)
    assert not torch.equal(other.test.x, splits.test.x)


def test_grey_is_made_of_colour_and_colour_of_grey(tmp_path, load, noise):
    colour = save(tmp_path / "train" / "a" / "0.png", noise(4, 4, 3))
    grey = save(tmp_path / "train" / "b" / "0.png", noise(4, 4))
    save(tmp_path / "test" / "a" / "0.png", noise(4, 4))
    first, second = load(Folder, root=tmp_path, grey=True).train.x.numpy()
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(first[0] - luma).max() <= 1
    np.testing.assert_array_equal(second[0], grey)
    first, second = load(Folder, root=tmp_path).train.x.numpy()
    np.testing.assert_array_equal(first, colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(second, np.stack([grey] * 3))


def test_size_scales_the_shorter_side_and_crops_the_centre(tmp_path, load, noise):
    wide = save(tmp_path / "train" / "a" / "0.png", noise(4, 10, 3))
    tall = save(tmp_path / "train" / "b" / "0.png", noise(12, 4, 3))
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (8, 1))
    save(tmp_path / "test" / "b" / "0.png", ramp)
    splits = load(Folder, root=tmp_path, size=4)
    assert splits.train.x.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(splits.train.x[0].numpy(), wide[:, 3:7].transpose(2, 0, 1))
    np.testing.assert_array_equal(splits.train.x[1].numpy(), tall[4:8].transpose(2, 0, 1))
    # 16 columns become 8, each the mean of two: 5, 25, 45, …, of which the middle four remain.
    assert splits.test.x[0, 0].tolist() == [[45, 65, 85, 105]] * 4


def test_images_of_different_sizes_are_named(photos, tmp_path, load, message, noise):
    save(tmp_path / "test" / "dog" / "1.png", noise(8, 7, 3))
    assert message(Folder, root=tmp_path) == (
        f"'{tmp_path / 'test' / 'dog' / '1.png'}': expected 9×7 pixels, as '{tmp_path / 'train' / 'cat' / '0.png'}' "
        "has, got 8×7. Set the option size to scale and crop all images to one size."
    )
    assert load(Folder, root=tmp_path, size=7).test.shape == (3, 7, 7)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut off", "chunk"])
def test_a_broken_image_is_named(photos, tmp_path, damage, message):
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


def test_images_of_16_bits_are_not_cut_off_silently(photos, tmp_path, message):
    file = tmp_path / "train" / "cat" / "1.png"
    save(file, np.full((9, 7), 3000, np.uint16))
    text = message(Folder, root=tmp_path, grey=True)
    assert text.startswith(f"'{file}': expected 8 bits a channel, got the mode I")


def test_folders_that_do_not_fit_are_named(photos, tmp_path, message, noise):
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


# What is left out is said.


def test_what_is_left_out_is_said(photos, tmp_path, load, noise):
    cat = tmp_path / "train" / "cat"
    (cat / "notes.txt").write_text("no image")
    (cat / "LICENSE").write_text("no image")
    (cat / "film.mp4").write_text("no image")
    (cat / "more.TXT").write_text("no image")
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "7.png", noise(9, 7, 3))
    (cat / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (cat / "round").symlink_to(cat, target_is_directory=True)
    frames = [Image.fromarray(noise(9, 7, 3, seed=i)) for i in range(4)]
    frames[0].save(tmp_path / "test" / "dog" / "1.tiff", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="left out frames behind the first") as warned:
        splits = load(Folder, root=tmp_path)
    (warning,) = warned
    root, _, listed = str(warning.message).partition(": left out ")
    assert root == f"'{tmp_path}'"
    # The most frequent first.
    assert listed.startswith("frames behind the first (3), ")
    assert set(listed.removesuffix(".").split(", ")) == {
        "frames behind the first (3)",
        "links to folders (2)",
        "files that end in .txt (2)",
        "files without an ending (1)",
        "files that end in .mp4 (1)",
    }
    assert len(splits.train) == 6
    np.testing.assert_array_equal(splits.test.x[-1].permute(1, 2, 0).numpy(), np.array(frames[0]))


def test_a_long_list_of_what_is_left_out_is_cut_short(photos, tmp_path, load):
    for i in range(30):
        (tmp_path / "train" / "cat" / f"x.{i}").touch()
    with pytest.warns(UserWarning, match=r"files that end in \.\d+ \(1\), others \(25\)\.$"):
        load(Folder, root=tmp_path)


def test_class_folders_and_files_may_be_links(photos, tmp_path, load):
    shutil.move(tmp_path / "train" / "cat", tmp_path / "cats")
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "cats", target_is_directory=True)
    (tmp_path / "train" / "cat" / "9.png").symlink_to(tmp_path / "cats" / "0.png")
    assert len(load(Folder, root=tmp_path).train) == 7


def test_a_folder_within_that_cannot_be_read_is_said(open_folder, load, noise, nobody):
    for name in ("a", "b"):
        for i in range(2):
            save(open_folder / name / f"{i}.png", noise(4, 4))
    save(open_folder / "a" / "deeper" / "2.png", noise(4, 4))
    os.chmod(open_folder / "a" / "deeper", 0)
    with nobody(), pytest.warns(UserWarning, match=r"left out folders that can't be read \(1\)\.$"):
        splits = load(Folder, root=open_folder)
    assert len(splits.train) + len(splits.test) == 4


@pytest.mark.parametrize("barred", ["", "train", "train/cat", "test", "train/cat/0.png"])
def test_what_cannot_be_read_is_called_so(barred, open_folder, message, noise, nobody):
    root = open_folder / "data"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            save(root / split / name / "0.png", noise(4, 4))
    os.chmod(root / barred, 0)
    try:
        with nobody():
            assert message(Folder, root=root) == (
                f"'{root / barred if barred else root}' can't be read: Permission denied. Change that, or remove it."
            )
    finally:
        os.chmod(root / barred, 0o755)  # noqa: S103


@pytest.mark.parametrize("kind", ["pipe", "device", "nowhere", "folder"])
def test_an_image_that_is_no_file_is_refused(photos, tmp_path, message, kind):
    file = tmp_path / "train" / "cat" / "3.png"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file = file.with_name("4.png")
        file.symlink_to(file.with_name("5"))
    else:
        file.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nowhere")
    assert message(Folder, root=tmp_path) == (
        f"'{file}' is no file but a link to nowhere, a pipe or a device. Replace it, or remove it."
    )


# How an image is meant to be seen.


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(tmp_path, load, suffix, orientation):
    # Dark above and bright below, and dark to the left of that.
    seen = np.zeros((16, 16), np.uint8)
    seen[8:, 8:] = 255
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(
                tmp_path / name / f"{i}{suffix}", exif=exif, quality=95
            )
    image = load(Folder, root=tmp_path, grey=True).train.x[0, 0].int().numpy()
    assert np.abs(image - seen).max() < 30


def test_exif_data_that_cannot_be_read_say_nothing(tmp_path, load, noise):
    for name in ("a", "b"):
        for i in range(2):
            array = save(tmp_path / name / f"{i}.png", noise(4, 4, 3))
            Image.fromarray(array).save(tmp_path / name / f"{i}.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff no exif")
    np.testing.assert_array_equal(load(Folder, root=tmp_path).train.x[0].permute(1, 2, 0).numpy(), array)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, load, mode):
    array = np.zeros((4, 4, 4), np.uint8)
    array[..., 0] = 200
    array[..., 3] = [255, 255, 0, 102]
    image = Image.fromarray(array)
    if mode == "P":
        image = image.quantize(8)
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            image.convert(mode).save(tmp_path / name / f"{i}.png")
    row = load(Folder, root=tmp_path).train.x[0, :, 0].T.tolist()
    red = [60, 60, 60] if mode == "LA" else [200, 0, 0]
    half = [255 - round((255 - c) * 102 / 255) for c in red]
    for came, expected in zip(row, [red, red, [255, 255, 255], half], strict=True):
        assert np.abs(np.array(came) - expected).max() <= 2


def test_gif_images_are_read(tmp_path, load, noise):
    frames = [Image.fromarray(noise(6, 5, seed=i) // 128 * 255) for i in range(3)]
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            frames[0].save(tmp_path / name / f"{i}.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"left out frames behind the first \(8\)\.$"):
        splits = load(Folder, root=tmp_path, grey=True)
    np.testing.assert_array_equal(splits.train.x[0, 0].numpy(), np.array(frames[0]))


# Bad input.


def test_a_file_is_not_read_as_what_its_name_does_not_promise(photos, tmp_path, message):
    file = tmp_path / "train" / "cat" / "1.png"
    buffer = io.BytesIO()
    Image.new("RGB", (7, 9)).save(buffer, "DDS")
    file.write_bytes(buffer.getvalue())
    assert message(Folder, root=tmp_path) == f"'{file}' is damaged, or no image. Replace it, or remove it."


@pytest.mark.parametrize(
    "suffix", [".avif", ".dds", ".dib", ".ico", ".jfif", ".jp2", ".pbm", ".pcx", ".qoi", ".sgi", ".tga"]
)
def test_rarer_formats_are_read_by_their_names(tmp_path, suffix):
    array = np.zeros((16, 16, 3), np.uint8)
    array[:8] = 255
    image = Image.fromarray(array)
    (image.convert("1") if suffix == ".pbm" else image).save(tmp_path / f"x{suffix}")
    pixels = cutk.ImageFiles([tmp_path / f"x{suffix}"])[0]
    assert pixels.shape == (3, 16, 16)
    assert np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - array).mean() < 8
    (tmp_path / f"x{suffix}").rename(tmp_path / "x.gif")
    if suffix not in (".jfif", ".pbm"):
        with pytest.raises(cutk.UsageError, match="is damaged, or no image"):
            cutk.ImageFiles([tmp_path / "x.gif"])[0]


def test_an_image_of_too_many_pixels_is_refused(photos, tmp_path, message, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # Pillow warns from there on, and refuses from twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "/cat/0.png' has more pixels than are read (Image size (63 pixels) exceeds" in message(
            Folder, root=tmp_path
        )


@pytest.mark.parametrize(
    ("option", "value"), [("size", 10**9), ("size", 0), ("seed", 2**63), ("seed", -1), ("test_fraction", 1)]
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        Folder.Options(**{option: value})


def test_more_images_than_memory_holds_are_refused(photos, tmp_path, message, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(torch, "empty", full)
    text = message(Folder, root=tmp_path)
    assert text.startswith("12 images of 9×7 pixels need 0 GB of memory, which isn't there.")


@pytest.mark.parametrize(
    ("name", "option"),
    [("folder:./images", "root"), ("arrays:my/data.npz", "file"), ("arrays:a,b.npz", "file"), ("folder:a, b", "root")],
)
def test_the_path_may_stand_behind_the_name(name, option, setup_of):
    (options,) = setup_of(dataset=name).dataset.points
    assert getattr(options, option) == Path(name.partition(":")[2])


@pytest.mark.filterwarnings("default:.* left out")
def test_what_is_left_out_is_said_on_the_command_line(photos, tmp_path, run):
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    ran = run("bench", "-d", f"folder:{tmp_path}", "-o", "folder.size=8", "-u", "none", "--alpha", "1", "--seeds", "1",
              "-o", "badnet.count=2", "--device", "cpu", "--dry-run")  # fmt: skip
    assert ran.code == 0, ran.err
    assert f"'{tmp_path}': left out files that end in .txt (1)." in ran.err


@pytest.mark.parametrize("option", ["size=1000000000", "seed=9223372036854775808", "size=0", "grey=maybe"])
def test_options_out_of_range_end_in_one_line(photos, tmp_path, run, option):
    ran = run("bench", "-d", f"folder:{tmp_path}", "-o", f"folder.{option}", "-u", "none", "--dry-run")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert f".{option.partition('=')[0]}': expected " in ran.err


def test_images_without_class_folders_are_no_validation_samples(photos, tmp_path):
    for name in ("val", "test"):
        for image in sorted((tmp_path / name).rglob("*.png")):
            image.rename(tmp_path / name / f"{image.parent.name}-{image.name}")
    (tmp_path / "validation").mkdir()
    for folder in [path for name in ("val", "test") for path in (tmp_path / name).iterdir() if path.is_dir()]:
        folder.rmdir()
    given = Folder(Folder.Options(root=tmp_path)).given()
    assert given.validation is None
    assert len(given) == len(photos["train"])
