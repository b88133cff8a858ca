"""The user's own images, listed in a table with their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

import cutk
from cutk_builtin.own_data import RECIPE, SUGGESTS

PATHS = ("path", "file", "filename", "name", "image")
LABELS = ("label", "class", "target")
LONGEST_SIDE = 10_000


def rows_of(file: Path, path: str | None, label: str | None) -> list[tuple[str, str]]:
    """Return the paths and labels in a table, without lines that are empty.

    Raises:
        UsageError: if the file isn't there, or lacks one of the columns.
    """
    rows = cutk.read_table(file, "a table with a path and a label column")
    heads = [cell.strip().lower() for cell in rows[0]] if rows else []

    def place(names: Sequence[str]) -> int | None:
        return next((heads.index(name) for name in names if name in heads), None)

    known = {"path": [path.lower()] if path else PATHS, "label": [label.lower()] if label else LABELS}
    columns = [column for names in known.values() if (column := place(names)) is not None]
    for what, names in known.items():
        if place(names) is None:
            got = ", ".join(repr(cell.strip()) for cell in rows[0][:10]) if rows else "nothing"
            called = f"{' or '.join(map(repr, names))} (-o csv.{what}=NAME names another)"
            advice, lines = about_features(file, rows, columns) if what == "path" else ("", ())
            raise cutk.UsageError(f"'{file}': expected a column of {what}s, called {called}, got {got}.{advice}", lines)
    if len(rows) < 2:
        raise cutk.UsageError(f"'{file}': expected a line for each image, got none.")
    short = next((i for i, row in enumerate(rows) if len(row) <= max(columns)), None)
    if short is not None:
        raise cutk.UsageError(f"'{file}': expected the same columns in every line, got fewer in entry {short}.")
    found = [(row[columns[0]].strip(), row[columns[1]].strip()) for row in rows[1:]]
    if (empty := next((i for i, (_, label) in enumerate(found) if not label), None)) is not None:
        raise cutk.UsageError(f"'{file}': expected a label in every line, got none for '{found[empty][0]}'.")
    if all(label.endswith(".0") and label[:-2].isdecimal() for _, label in found):
        raise cutk.UsageError(
            f"'{file}': expected labels that are names or whole numbers, got '{found[0][1]}', as a column with gaps is "
            "written. Write whole numbers."
        )
    if strange := next((label for _, label in found if not is_text(label)), None):
        raise cutk.UsageError(
            f"'{file}': expected text in UTF-8 or UTF-16, got the label {strange!a}. Save it as UTF-8."
        )
    return found


def is_text(text: str) -> bool:
    """Say whether ``text`` is free of bytes that stand for themselves, as what is no UTF-8 is read."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def is_number(text: str) -> bool:
    """Say whether ``text`` is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def about_features(file: Path, rows: list[list[str]], labels: list[int]) -> tuple[str, tuple[str, ...]]:
    """Return advice on a table that has no paths, and lines of code that follow it; none if it isn't one of features.

    ``labels`` holds the place of the column of labels, if there is one.
    """
    some, width = rows[1:100], min(map(len, rows), default=0)
    numeric = {i: all(is_number(row[i]) for row in some) for i in range(width) if i not in labels}
    if not some or sum(numeric.values()) < max(1, len(numeric) / 2):
        return "", ()
    held = " That is a table of features: they are given as arrays:FILE, an .npz file of features and labels."
    if not all(numeric.values()) or not labels or labels[0] >= width:
        return f"{held} Make numbers of what is text.", ()
    made, (at,) = f"{file.stem}.npz", labels
    kind = "int" if all(row[at].strip().isdecimal() for row in some) else "str"
    return f"{held} These lines of Python make {made} of it:", (
        f"import cutk, numpy; table = numpy.array(cutk.read_table({str(file)!r})[1:])",
        f"names, labels = numpy.unique(table[:, {at}].astype({kind}), return_inverse=True)",
        f"features = numpy.delete(table, {at}, 1).astype('float32')",
        f"numpy.savez({made!r}, features=features, labels=labels, classes=names)",
    )


def classes_in(labels: list[str]) -> tuple[str, ...]:
    """Return the classes in order: whole numbers by their size, from 0 up without gaps, names by the alphabet."""
    names = sorted(set(labels))
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(map(str, range(max(map(int, names)) + 1))) if max(map(int, names)) < len(labels) else tuple(names)
    return tuple(names)


class CsvTable(cutk.Dataset):
    """Your own images, listed in a .csv file with a path and a label column.

    Columns are separated by commas, semicolons or tabs. Paths are relative to the table's folder. Labels are names of
    classes, which count in alphabetical order, or their numbers from 0 up. Images are turned as their EXIF data say,
    and laid on white where they are transparent.
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
                f"relative to '{file.parent}'{'' if is_text(missing[0]) else ', and their names in UTF-8 or UTF-16'}."
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
