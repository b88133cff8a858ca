"""The user's own images, a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

import cutk


def class_folders(folder: Path) -> list[Path]:
    """Return the visible folders in ``folder``, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_splits(root: Path) -> dict[str, Path]:
    """Return the splits' folders by the names that ``cutk.Splits`` has for them; ``root`` alone if it isn't split.

    A folder ``train`` that holds no folders and has no ``test`` beside it is a class of that name.

    Raises:
        UsageError: if there is no such folder, or a part of a split one is missing or there twice.
    """
    if not root.is_dir():
        raise cutk.UsageError(
            f"'{root}' is no folder: expected images in '{root / 'train' / 'CLASS'}' and '{root / 'test' / 'CLASS'}', "
            f"or in '{root / 'CLASS'}' alone. Give it with --data-root DIR or --dataset folder:DIR."
        )
    train, test = root / "train", root / "test"
    if not (train.is_dir() and (test.is_dir() or class_folders(train))):
        return {"": root}
    if not test.is_dir():
        raise cutk.UsageError(
            f"'{train}' has no test images beside it: expected '{test}'. Add them, or give '{train}' to have a part "
            "of its images set aside."
        )
    held_out = [path for path in (root / "validation", root / "val") if path.is_dir()]
    if len(held_out) > 1:
        raise cutk.UsageError(f"Expected one folder of validation images, got '{held_out[0]}' and '{held_out[1]}'.")
    return {"train": train, "test": test, **({"validation": held_out[0]} if held_out else {})}


def find_images(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the image files in the class folders of ``folder`` with their labels, by class and name.

    Raises:
        UsageError: if a class isn't one of ``classes``, or has no images.
    """
    found = []
    for path in class_folders(folder):
        if path.name not in classes:
            raise cutk.UsageError(
                f"'{path}' is a class without training images: expected one of {', '.join(classes)}. "
                "Add training images, or remove the folder."
            )
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in IMG_EXTENSIONS
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not files:
            raise cutk.UsageError(
                f"'{path}' has no images: expected files that end in {', '.join(IMG_EXTENSIONS)}. "
                "Add some, or remove the folder."
            )
        found += [(file, classes.index(path.name)) for file in files]
    return found


def read_image(file: Path, size: int | None, grey: bool) -> Tensor:
    """Return one image, uint8 ``[C, H, W]``; with ``size``, its shorter side is scaled to it and its centre cropped.

    Raises:
        UsageError: if the file is damaged, or no image of 8 bits a channel.
    """
    try:
        with Image.open(file) as opened:
            # Pillow cuts off what is brighter than 255, and says nothing.
            if opened.mode.startswith(("I", "F")):
                raise cutk.UsageError(
                    f"'{file}': expected 8 bits a channel, got the mode {opened.mode}. Convert the images to 8 bits."
                )
            image = opened.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise cutk.UsageError(f"'{file}' is damaged, or no image. Replace it, or remove it.") from error
    if size is not None:
        image = center_crop(resize(image, size), [size, size])
    return pil_to_tensor(image)


def read_images(files: Sequence[Path], size: int | None, grey: bool) -> Tensor:
    """Return the images, uint8 ``[N, C, H, W]``.

    Raises:
        UsageError: if one can't be read, or differs from the first in size.
    """
    first = read_image(files[0], size, grey)
    pixels = torch.empty(len(files), *first.shape, dtype=torch.uint8)
    for index, file in enumerate(files):
        image = read_image(file, size, grey)
        if image.shape != first.shape:
            (height, width), (expected_height, expected_width) = image.shape[1:], first.shape[1:]
            raise cutk.UsageError(
                f"'{file}': expected {expected_height}×{expected_width} pixels, as '{files[0]}' has, got "
                f"{height}×{width}. Set the option size to scale and crop all images to one size."
            )
        pixels[index] = image
    return pixels


class Folder(cutk.Dataset):
    """Your own images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, or ROOT/CLASS/*.png alone.

    The classes are the folders, in alphabetical order. Validation images may lie in ``ROOT/validation/CLASS`` or
    ``ROOT/val/CLASS``. Without a training folder, a part of each class is set aside for testing.
    """

    name = "folder"
    variant = "root"
    model = "convnet-small"
    # No augmentation: whether a mirrored image is still of its class, cutk can't know.
    recipe = {"steps": 1000, "batch_size": 128, "crop_padding": 0, "flip": False}
    suggests = {
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 250},
        "badt": {"steps": 250},
        "scrub": {"steps": 250, "forget_steps": 50},
    }

    class Options(cutk.Options):
        """Where the images lie, and what is made of them."""

        root: Path = cutk.option(Path("data"), help="folder of the images (--data-root)")
        size: int | None = cutk.option(
            None, ge=1, help="scale the shorter side to so many pixels and crop the centre; none: all have one size"
        )
        grey: bool = cutk.option(False, help="turn the images into grey ones")
        test_fraction: float = cutk.option(
            0.2, gt=0, lt=1, help="part of each class that is for testing, if there is no training folder"
        )
        seed: int = cutk.option(0, ge=0, help="which images that part is")

    def load(self) -> cutk.Splits:
        """Read all images, in the order of their classes and names."""
        o = self.options
        folders = find_splits(o.root.expanduser())
        pool = next(iter(folders.values()))
        classes = tuple(path.name for path in class_folders(pool))
        if len(classes) < 2:
            raise cutk.UsageError(f"'{pool}': expected at least 2 folders, one for each class, got {len(classes)}.")
        found = [find_images(folder, classes) for folder in folders.values()]
        if not all(found):
            empty = list(folders.values())[found.index([])]
            raise cutk.UsageError(f"'{empty}' has no images: expected them in '{empty / classes[0]}' and so on.")
        pixels = read_images([file for part in found for file, _ in part], o.size, o.grey)
        labels = torch.tensor([label for part in found for _, label in part])
        counts = [len(part) for part in found]
        parts = [cutk.Images(*part, classes) for part in zip(pixels.split(counts), labels.split(counts), strict=True)]
        if len(parts) == 1:
            return cutk.Splits.of(parts[0], o.test_fraction, o.seed)
        return cutk.Splits(**dict(zip(folders, parts, strict=True)))


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``folder``."""
    return [Folder]
