"""S_f from a list of the user's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cutk

HEADERS = {"id", "ids", "index", "indices", "name", "names", "file", "filename", "path", "sample"}
MOST_BYTES = 2**28


def entries_of(file: Path) -> list[str]:
    """Return what a list names: lines of a .txt file, the first column of a .csv file, or a .json array.

    Raises:
        UsageError: if the file isn't there, is no such list, or names nothing.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file() or file.suffix not in (".txt", ".csv", ".json"):
        problem = "ends otherwise" if file.is_file() else "is not there, or no regular file"
        raise cutk.UsageError(
            f"'{file}' {problem}: expected a .txt, .csv or .json list of samples. "
            "Give it with --identification file:FILE."
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            text = lines.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES} characters")
        entries = parse(text, file.suffix)
    except OSError as error:
        raise cutk.UsageError(f"'{file}' can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise cutk.UsageError(f"'{file}': expected a list of ids or names, got something else ({error}).") from error
    if not entries:
        raise cutk.UsageError(f"'{file}' names no sample: expected an id or a name a line.")
    return entries


def parse(text: str, suffix: str) -> list[str]:
    """Return the entries of a list, without blank lines, remarks (#) and a heading."""
    if suffix == ".json":
        content: Any = json.loads(text)
        if not isinstance(content, list) or not all(type(entry) in (int, str) for entry in content):
            raise ValueError("expected a JSON array of whole numbers and texts")
        return [str(entry) for entry in content]
    lines = text.splitlines()
    if suffix == ".csv":
        lines = [row[0] for row in csv.reader(lines) if row]
        if lines and lines[0].strip().lower() in HEADERS:
            del lines[0]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def positions(entries: Sequence[str], samples: cutk.Samples, held_out: cutk.Samples | None) -> Tensor:
    """Return where the samples that are listed stand in ``samples``: int64 ``[n]``, sorted, without repeats.

    A name goes before an id of the same spelling. What was held out is passed over.

    Raises:
        UsageError: lists the entries that are neither a name nor an id.
    """
    by_name: dict[str, list[int]] = {}
    for position, name in enumerate(samples.names or ()):
        by_name.setdefault(name, []).append(position)
    by_id = {str(number): [position] for position, number in enumerate(samples.ids.tolist())}
    elsewhere = set() if held_out is None else {*map(str, held_out.ids.tolist()), *(held_out.names or ())}
    found: set[int] = set()
    unknown = []
    for entry in entries:
        # 007 is an id, too.
        plain = str(int(entry)) if entry.isascii() and entry.isdecimal() and len(entry) < 20 else entry
        if there := by_name.get(entry) or by_id.get(plain):
            found.update(there)
        elif not {entry, plain} & elsewhere:
            unknown.append(entry)
    if unknown:
        shown = ", ".join(f"'{entry[:60]}'" for entry in unknown[:10]) + (", …" if len(unknown) > 10 else "")
        what = "names or ids" if samples.names else "ids"
        raise cutk.UsageError(
            f"file: expected {what} of training samples, got {len(unknown)} that match none: {shown}."
        )
    return torch.tensor(sorted(found), dtype=torch.int64)


class File(cutk.Identification):
    """Takes S_f from a list of your own: at α a part of it, drawn uniformly and nested; at α = 1 all of it.

    The list is a ``.txt`` file with an entry a line, the first column of a ``.csv`` file, or a ``.json`` array. An
    entry is a sample's file name, where the dataset has names, or its id: its position in the training data as
    published, from 0. Listed samples that are held out for validation are passed over. It may list clean samples.
    """

    name = "file"
    variant = "file"

    class Options(cutk.Options):
        """Which list."""

        file: Path = cutk.option(Path("bad.txt"), help=".txt, .csv or .json list of ids or names")

    def identify(self, truth: cutk.Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Read the list, and draw a part of it."""
        listed = positions(entries_of(self.options.file.expanduser()), truth.samples, truth.held_out)
        count = round(alpha * len(listed))
        if count == 0:
            raise cutk.UsageError(f"Alpha {alpha:g} identifies none of the {len(listed)} samples that are listed.")
        return listed[torch.randperm(len(listed), generator=generator)[:count]].sort().values


@cutk.hookimpl
def cutk_identifications() -> list[type[cutk.Identification]]:
    """Provide ``file``."""
    return [File]
