"""Labels from a file: those that people gave, say, instead of the right ones."""

from __future__ import annotations

import csv
import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import cutk

SUFFIXES = (".txt", ".csv", ".npy", ".npz", ".json", ".pt")
SAMPLE_HEADERS = ("id", "ids", "index", "name", "names", "file", "filename", "path", "sample")
LABEL_HEADERS = ("label", "labels", "class", "target")
MOST_BYTES = 2**28

# What readers of damaged, encrypted, over-declared and deeply nested files raise.
BROKEN = (
    *(ValueError, LookupError, EOFError, RuntimeError, MemoryError, OverflowError, SyntaxError, SystemError, TypeError),
    *(csv.Error, lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


class Given(NamedTuple):
    """Labels as a file has them, and whose they are: names or ids; none where they go by position."""

    labels: Sequence[Any]
    samples: Sequence[Any] | None = None


def _read_csv(text: str, key: str | None) -> Given:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows:
        raise ValueError("it is empty")
    heads = [cell.strip().lower() for cell in rows[0]]
    known = {*SAMPLE_HEADERS, *LABEL_HEADERS, *([key.lower()] if key else [])}
    if not known & set(heads):
        if len(heads) > 2 or key:
            raise ValueError(f"expected a heading with the column {key or 'label'!r}, got {', '.join(heads)}")
        sample, label = (None, 0) if len(heads) == 1 else (0, 1)
    else:
        rows = rows[1:]
        wanted = [key.lower()] if key else LABEL_HEADERS
        label = next((heads.index(name) for name in wanted if name in heads), -1)
        if label < 0:
            raise ValueError(f"expected a column {' or '.join(map(repr, wanted))}, got {', '.join(heads)}")
        sample = next((heads.index(name) for name in SAMPLE_HEADERS if name in heads), None)
    if any(len(row) <= max(label, sample or 0) for row in rows):
        raise ValueError("expected the same columns in every row")
    return Given([row[label] for row in rows], None if sample is None else [row[sample] for row in rows])


def _read_json(text: str, key: str | None) -> Given:
    content = json.loads(text)
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"expected an object with {key!r}")
        content = content[key]
    if isinstance(content, dict):
        return Given(list(content.values()), list(content))
    if not isinstance(content, list):
        raise ValueError("expected an array of labels, or an object from names to labels")
    return Given(content)


def _flat(array: object, what: str) -> list[Any]:
    if isinstance(array, Tensor):
        array = array.numpy()
    if not isinstance(array, np.ndarray):  # a file in the archive that isn't called .npy, or anything in a .pt
        raise ValueError(f"{what}: expected an array in NumPy's format")
    if array.nbytes > MOST_BYTES:  # a tensor may be larger than what is stored of it
        raise ValueError(f"{what}: expected at most {MOST_BYTES} bytes")
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise ValueError(f"{what}: expected whole numbers or texts [N], got {array.dtype} {list(array.shape)}")
    values: list[Any] = array.tolist()
    return values


def _unpacked(file: Path) -> None:
    """Refuse an archive that would fill the memory."""
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES} bytes")


def _among(content: Mapping[str, Any], key: str | None) -> Given:
    """Choose among named arrays which holds the labels, and which says whose they are."""
    whose = next((name for name in SAMPLE_HEADERS if name in content and name != key), None)
    others = [name for name in content if name != whose]
    wanted = key or next((name for name in LABEL_HEADERS if name in others), None)
    wanted = others[0] if wanted is None and len(others) == 1 else wanted
    if wanted not in content:
        raise ValueError(f"expected one array of labels, or the option key, got {', '.join(map(str, content))}")
    samples = None if whose is None else _flat(content[whose], whose)
    return Given(_flat(content[wanted], wanted), samples)


def _read_npz(file: Path, key: str | None) -> Given:
    _unpacked(file)
    with np.load(file, allow_pickle=False) as content:
        return _among(content, key)


def _read_pt(file: Path, key: str | None) -> Given:
    if zipfile.is_zipfile(file):
        _unpacked(file)
    try:
        content = cutk.load_plain(file)
    except OSError:
        raise
    except Exception as error:  # readers of damaged files don't agree on what they raise
        raise ValueError("it is damaged, or holds more than arrays and plain data, which runs code") from error
    if isinstance(content, dict):
        return _among(content, key)
    return Given(_flat(content, "labels"))


def read(file: Path, key: str | None = None) -> Given:
    """Return the labels in a file; nothing in it is executed.

    Raises:
        UsageError: if the file isn't there, or holds something else.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file() or file.suffix not in SUFFIXES:
        problem = "ends otherwise" if file.is_file() else "is not there, or no regular file"
        raise cutk.UsageError(
            f"'{file}' {problem}: expected labels as .txt, .csv, .npy, .npz, .json or .pt. "
            "Give it with -m label-file:FILE."
        )
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES} bytes")
        if file.suffix == ".npz":
            return _read_npz(file, key)
        if file.suffix == ".pt":
            return _read_pt(file, key)
        if file.suffix == ".npy":
            return Given(_flat(np.load(file, mmap_mode="r", allow_pickle=False), "labels"))
        with file.open(encoding="utf-8-sig", newline="") as lines:
            text = lines.read(MOST_BYTES)
        if file.suffix == ".txt":
            return Given([line for line in text.split("\n") if line.strip()])
        return _read_csv(text, key) if file.suffix == ".csv" else _read_json(text, key)
    except OSError as error:
        raise cutk.UsageError(f"'{file}' can't be read: {error.strerror or error}.") from error
    except BROKEN as error:
        raise cutk.UsageError(
            f"'{file}': expected labels, got something else ({' '.join(str(error).split())})."
        ) from error


def as_index(label: Any, classes: dict[str, int]) -> int:
    """Return a class's index, given by name or by index; a name goes first.

    Raises:
        ValueError: if there is no such class.
    """
    text = str(label).strip()
    if text in classes and not isinstance(label, bool):
        return classes[text]
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < len(classes):
        return int(text)
    raise ValueError(f"expected class names or indices from 0 to {len(classes) - 1}, got '{text[:60]}'")


def line_up(given: Given, train: cutk.Samples) -> Tensor:
    """Return the label that each training sample has in the file, int64 ``[N]``.

    Raises:
        ValueError: if there are too few or too many, a sample is missing or twice there, or a label is no class.
    """
    classes = {name: index for index, name in enumerate(train.classes)}
    if given.samples is None:
        expected = train.published
        highest = int(train.ids.max()) + 1
        if len(given.labels) < highest or expected not in (None, len(given.labels)):
            wanted = f"{expected}" if expected else f"{highest} or more"
            raise ValueError(
                f"expected {wanted} labels, one for each sample of the dataset as published, got {len(given.labels)}"
            )
        found = [given.labels[i] for i in train.ids.tolist()]
    else:
        table = {str(sample).strip(): label for sample, label in zip(given.samples, given.labels, strict=True)}
        if len(table) < len(given.samples):
            raise ValueError("expected each sample once, got some twice")
        ids = map(str, train.ids.tolist())
        keys = [
            name if name in table else number
            for number, name in zip(ids, train.names or [""] * len(train), strict=True)
        ]
        missing = [key for key in keys if key not in table]
        if missing:
            raise ValueError(
                f"expected a label for each of {len(train)} samples, by its name or id, got none for {len(missing)}, "
                f"'{missing[0][:60]}' for one"
            )
        found = [table[key] for key in keys]
    return torch.tensor([as_index(label, classes) for label in found])


class LabelFile(cutk.Manipulation):
    """Gives training samples the labels of a file; those that differ from the dataset's make up S_m.

    Made for labels of human annotators, such as CIFAR-10N's, whose ``CIFAR-10_human.pt`` is read as it is published. A
    list of labels (``.txt`` with one a line, a column of a ``.csv``, ``.npy``, an array of an ``.npz`` or of a ``.pt``
    that ``torch.save`` wrote, a ``.json`` array) has one for each sample of the training data as published, in their
    order. With names or ids beside them (a ``.csv`` column or an array ``name`` or ``id``, a ``.json`` object) they go
    by these. Labels are class names or indices. All classes count as affected.
    """

    name = "label-file"
    reference = "Wei et al., Learning with Noisy Labels Revisited, ICLR 2022 (CIFAR-10N)"
    variant = "file"

    class Options(cutk.Options):
        """Which file."""

        file: Path = cutk.option(Path("labels.txt"), help=".txt, .csv, .npy, .npz, .json or .pt file with labels")
        key: str | None = cutk.option(None, help="the column, array or entry that holds them, if the file has several")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Read the labels."""
        file = self.options.file.expanduser()
        given = read(file, self.options.key)
        try:
            labels = line_up(given, train)
        except ValueError as error:
            raise cutk.UsageError(f"'{file}': {error}.") from error
        changed = (labels != train.labels).nonzero().flatten()
        if not len(changed):
            raise cutk.UsageError(f"'{file}' has the dataset's own labels: expected some that differ.")
        return cutk.Corruption(train.changed(labels=labels), manipulated=changed)


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``label-file``."""
    return [LabelFile]
