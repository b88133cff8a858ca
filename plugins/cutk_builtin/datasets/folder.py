"""The user's own images, a folder for each class."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import cutk
from cutk_builtin.own_data import RECIPE, SUGGESTS

SUFFIXES = cutk.ImageFiles.SUFFIXES
LONGEST_SIDE = 10_000
MOST_LISTED = 5


def class_folders(folder: Path) -> list[Path]:
    """Return the visible folders in ``folder``, by name.

    Raises:
        UsageError: if ``folder`` can't be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise cutk.unreadable(folder, error) from error


def find_splits(root: Path) -> dict[str, Path]:
    """Return the splits' folders by the names that ``cutk.Splits`` has for them; ``root`` alone if it isn't split.

    A folder ``train`` that holds no folders and has no ``test`` beside it is a class of that name.

    Raises:
        UsageError: if there is no such folder, or a part of a split one is missing or there twice.
    """
    try:
        there = root.is_dir()
    except OSError as error:
        raise cutk.unreadable(root, error) from error
    if not there:
        raise cutk.UsageError(
            f"'{root}' is no folder: expected images in '{root / 'train' / 'CLASS'}' and '{root / 'test' / 'CLASS'}', "
            f"or in '{root / 'CLASS'}' alone. Give it with --data-root DIR or --dataset folder:DIR."
        )
    folders, train, test = class_folders(root), root / "train", root / "test"
    if not (train in folders and (test in folders or class_folders(train))):
        return {"": root}
    if test not in folders:
        raise cutk.UsageError(
            f"'{train}' has no test images beside it: expected '{test}'. Add them, or give '{train}' to have a part "
            "of its images set aside."
        )
    held_out = [path for path in (root / "validation", root / "val") if path in folders]
    if len(held_out) > 1:
        raise cutk.UsageError(f"Expected one folder of validation images, got '{held_out[0]}' and '{held_out[1]}'.")
    return {"train": train, "test": test, **({"validation": held_out[0]} if held_out else {})}


def visible_files(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Yield the visible files in ``folder`` and the folders within it, and count the folders that are left out."""

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise cutk.unreadable(folder, error) from error
        left_out["folders that can't be read"] += 1

    for path, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # They may lead round in a circle, or to the same images twice.
        left_out["links to folders"] += sum(os.path.islink(os.path.join(path, name)) for name in folders)
        yield from (Path(path, name) for name in files if not name.startswith("."))


def find_images(folder: Path, classes: Sequence[str], left_out: Counter[str]) -> list[tuple[Path, int]]:
    """Return the image files in the class folders of ``folder`` with their labels, by class and name.

    Args:
        folder: of the class folders.
        classes: their names.
        left_out: counts what is found beside images.

    Raises:
        UsageError: if a class isn't one of ``classes``, or has no images, or an image is no file.
    """
    found = []
    for path in class_folders(folder):
        if path.name not in classes:
            raise cutk.UsageError(
                f"'{path}' is a class without training images: expected one of {', '.join(classes)}. "
                "Add training images, or remove the folder."
            )
        files = []
        for file in visible_files(path, left_out):
            if file.suffix.lower() not in SUFFIXES:
                left_out[f"files that end in {file.suffix.lower()}" if file.suffix else "files without an ending"] += 1
            elif not file.is_file():  # opening a pipe would wait for ever
                raise cutk.UsageError(
                    f"'{file}' is no file but a link to nowhere, a pipe or a device. Replace it, or remove it."
                )
            else:
                files.append(file)
        if not files:
            raise cutk.UsageError(
                f"'{path}' has no images: expected files that end in {', '.join(SUFFIXES)}. "
                "Add some, or remove the folder."
            )
        found += [(file, classes.index(path.name)) for file in sorted(files)]
    return found


def in_words(left_out: Counter[str]) -> str:
    """List what was left out, the most frequent first."""
    listed = [(what, count) for what, count in left_out.most_common(MOST_LISTED) if count]
    others = left_out.total() - sum(count for _, count in listed)
    return ", ".join(f"{what} ({count:,})" for what, count in [*listed, *([("others", others)] if others else [])])


class Folder(cutk.Dataset):
    """Your own images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, or ROOT/CLASS/*.png alone.

    The classes are the folders, in alphabetical order. Validation images may lie in ``ROOT/validation/CLASS`` or
    ``ROOT/val/CLASS``. Without a training folder, a part of each class is set aside for testing. Images are turned as
    their EXIF data say, and laid on white where they are transparent. What isn't read is named in a warning: other
    files, links to folders, all frames but the first.
    """

    name = "folder"
    variant = "root"
    model = "convnet-small"
    recipe = RECIPE
    suggests = SUGGESTS

    class Options(cutk.Options):
        """Where the images lie, and what is made of them."""

        root: Path = cutk.option(Path("data"), help="folder of the images (--data-root)")
        size: int | None = cutk.option(
            None,
            ge=1,
            le=LONGEST_SIDE,
            help="scale the shorter side to so many pixels and crop the centre; none: all have one size",
        )
        grey: bool = cutk.option(False, help="turn the images into grey ones")
        test_fraction: float = cutk.option(
            0.2, gt=0, lt=1, help="part of each class that is for testing, if there is no training folder"
        )
        seed: int = cutk.option(0, ge=0, le=2**63 - 1, help="which images that part is")

    def load(self) -> cutk.Splits:
        """Read all images, in the order of their classes and names."""
        o = self.options
        root = o.root.expanduser()
        folders = find_splits(root)
        pool = next(iter(folders.values()))
        classes = tuple(path.name for path in class_folders(pool))
        if len(classes) < 2:
            raise cutk.UsageError(f"'{pool}': expected at least 2 folders, one for each class, got {len(classes)}.")
        left_out: Counter[str] = Counter()
        found = [find_images(folder, classes, left_out) for folder in folders.values()]
        if not all(found):
            empty = list(folders.values())[found.index([])]
            raise cutk.UsageError(f"'{empty}' has no images: expected them in '{empty / classes[0]}' and so on.")
        pixels = cutk.ImageFiles([file for part in found for file, _ in part], o.size, o.grey).read(left_out)
        if listed := in_words(left_out):
            warnings.warn(f"'{root}': left out {listed}.", stacklevel=2)
        parts = [
            cutk.Samples(
                x,
                torch.tensor([label for _, label in part]),
                classes,
                names=tuple(file.relative_to(root).as_posix() for file, _ in part),
            )
            for x, part in zip(pixels.split([len(part) for part in found]), found, strict=True)
        ]
        if len(parts) == 1:
            return cutk.Splits.of(parts[0], o.test_fraction, o.seed)
        return cutk.Splits(**dict(zip(folders, parts, strict=True)))

    def given(self) -> cutk.Given:
        """List all training images, which are read when they are due.

        ``ROOT/train``, if there is one, holds them, and ``ROOT/validation``, ``ROOT/val`` or ``ROOT/test`` what wasn't
        trained on: the first of these that has a folder for a class.
        """
        root = self.options.root.expanduser()
        if not root.is_dir():
            raise cutk.UsageError(f"'{root}' is no folder: expected images in '{root / 'CLASS'}'.")
        pool, held_out = root, None
        if (root / "train").is_dir() and class_folders(root / "train"):
            pool = root / "train"
            beside = [root / name for name in ("validation", "val", "test") if (root / name).is_dir()]
            held_out = next((folder for folder in beside if class_folders(folder)), None)
        classes = tuple(path.name for path in class_folders(pool))
        if not classes:
            raise cutk.UsageError(f"'{pool}': expected a folder for each class, got none.")
        left_out: Counter[str] = Counter()
        parts = [self._listed(folder, root, classes, left_out) for folder in (pool, held_out) if folder is not None]
        if listed := in_words(left_out):
            warnings.warn(f"'{root}': left out {listed}.", stacklevel=2)
        return replace(parts[0], validation=parts[1] if held_out else None)

    def _listed(self, folder: Path, root: Path, classes: tuple[str, ...], left_out: Counter[str]) -> cutk.Given:
        found = find_images(folder, classes, left_out)
        images = cutk.ImageFiles([file for file, _ in found], self.options.size, self.options.grey)
        names = tuple(file.relative_to(root).as_posix() for file, _ in found)
        return cutk.Given(images, torch.tensor([label for _, label in found]), classes, names)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``folder``."""
    return [Folder]
