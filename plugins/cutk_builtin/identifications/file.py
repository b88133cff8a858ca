"""S_f from a list of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import cutk


def entries_of(file: Path) -> list[str]:
    """Return what a list names; a ``UsageError`` as ``cutk.read_list`` raises it."""
    return cutk.read_list(file, "Give it with --identification file:FILE.")


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
