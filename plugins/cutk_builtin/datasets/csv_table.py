"""The user's own images, listed in a table with their labels."""

from __future__ import annotations

import csv as tables
from collections import Counter
from pathlib import Path

import torch

import cutk
from cutk_builtin.own_data import RECIPE, SUGGESTS

PATHS = ("path", "file", "filename", "name", "image")
LABELS = ("label", "class", "target")
LONGEST_SIDE = 10_000
MOST_BYTES = 2**30


def rows_of(file: Path, path: str | None, label: str | None) -> list[tuple[str, str]]:
    """Return the paths and labels in a table, without lines that are empty.

    Raises:
        UsageError: if the file isn't there, or lacks one of the columns.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file():
        raise cutk.UsageError(f"'{file}' is not there, or no file: expected a table with a path and a label column.")
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES} bytes")
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in tables.reader(lines) if any(cell.strip() for cell in row)]
        heads = [cell.strip().lower() for cell in rows[0]] if rows else []
        columns = []
        for what, names in (
            ("path", [path.lower()] if path else PATHS),
            ("label", [label.lower()] if label else LABELS),
        ):
            place = next((heads.index(name) for name in names if name in heads), -1)
            if place < 0:
                raise ValueError(
                    f"expected a column of {what}s, called {' or '.join(map(repr, names))}, got "
                    f"{', '.join(map(repr, heads[:10])) or 'nothing'}"
                )
            columns.append(place)
        if len(rows) < 2:
            raise ValueError("expected a line for each image, got none")
        short = next((i for i, row in enumerate(rows) if len(row) <= max(columns)), None)
        if short is not None:
            raise ValueError(f"expected the same columns in every line, got fewer in entry {short}")
    except OSError as error:
        raise cutk.UsageError(f"'{file}' can't be read: {error.strerror or error}.") from error
    except (ValueError, tables.Error) as error:
        raise cutk.UsageError(f"'{file}': {' '.join(str(error).split())}.") from error
    return [(row[columns[0]].strip(), row[columns[1]].strip()) for row in rows[1:]]


def classes_in(labels: list[str]) -> tuple[str, ...]:
    """Return the classes in order: whole numbers by their size, from 0 up without gaps, names by the alphabet."""
    names = sorted(set(labels))
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(map(str, range(max(map(int, names)) + 1))) if max(map(int, names)) < len(labels) else tuple(names)
    return tuple(names)


class CsvTable(cutk.Dataset):
    """Your own images, listed in a .csv file with a path and a label column.

    Paths are relative to the table's folder. Labels are names of classes, which count in alphabetical order, or their
    numbers from 0 up. Images are turned as their EXIF data say, and laid on white where they are transparent.
    """

    name = "csv"
    variant = "file"
    model = "convnet-small"
    recipe = RECIPE
    suggests = SUGGESTS

    class Options(cutk.Options):
        """Which table, and what is made of the images."""

        file: Path = cutk.option(Path("data.csv"), help=".csv file with a path and a label column")
        path: str | None = cutk.option(None, help="the column of paths; none: path, file, filename, name or image")
        label: str | None = cutk.option(None, help="the column of labels; none: label, class or target")
        size: int | None = cutk.option(
            None,
            ge=1,
            le=LONGEST_SIDE,
            help="scale the shorter side to so many pixels and crop the centre; none: all have one size",
        )
        grey: bool = cutk.option(False, help="turn the images into grey ones")
        test_fraction: float = cutk.option(0.2, gt=0, lt=1, help="part of each class that is for testing in a bench")
        seed: int = cutk.option(0, ge=0, le=2**63 - 1, help="which images that part is")

    def given(self) -> cutk.Given:
        """List all images, which are read when they are due."""
        o = self.options
        file = o.file.expanduser()
        rows = rows_of(file, o.path, o.label)
        if twice := [name for name, count in Counter(name for name, _ in rows).items() if count > 1]:
            raise cutk.UsageError(f"'{file}': expected each image once, got '{twice[0]}' twice.")
        if missing := [name for name, _ in rows if not (file.parent / name).is_file()]:
            raise cutk.UsageError(
                f"'{file}': {len(missing)} of {len(rows)} images are not there, '{missing[0]}' for one: expected them "
                f"relative to '{file.parent}'."
            )
        classes = classes_in([label for _, label in rows])
        places = {name: index for index, name in enumerate(classes)}
        # 007 is a number, too.
        labels = [places[label if label in places else str(int(label))] for _, label in rows]
        images = cutk.ImageFiles([file.parent / name for name, _ in rows], o.size, o.grey)
        return cutk.Given(images, torch.tensor(labels), classes, tuple(name for name, _ in rows))

    def load(self) -> cutk.Splits:
        """Read all images, and set a part of each class aside for testing."""
        given = self.given()
        if len(given.classes) < 2:
            raise cutk.UsageError(f"'{self.options.file}': expected at least 2 classes, got {len(given.classes)}.")
        pixels = given.content.read()
        samples = cutk.Samples(pixels, given.labels, given.classes, names=given.names)
        return cutk.Splits.of(samples, self.options.test_fraction, self.options.seed)


class Plugin:
    """Provides it, under a name that the standard library's module has as well."""

    @cutk.hookimpl
    def cutk_datasets(self) -> list[type[cutk.Dataset]]:
        """Provide ``csv``."""
        return [CsvTable]


csv = Plugin()
