"""Runs on disk: content-addressed, atomic, and read instead of computed when they are there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from cutk.errors import UsageError, one_line, printable
from cutk.run.files import (
    RECORD,
    TEMPORARY,
    WEIGHTS,
    Damaged,
    Unreadable,
    is_abandoned,
    load_weights,
    move_run,
    own_name,
    parse_record,
    reading,
    regular,
    uncollected,
    unwritten,
    whole_run,
    write_over,
    write_record,
    write_weights,
)
from cutk.run.joining import holds, joined
from cutk.run.keys import KINDS, Kind, kind_of
from cutk.run.records import Failure, Run

__all__ = ["Parcel", "Store"]

_ROLES = ("original", "gold", "unlearned")
_log = logging.getLogger(__name__)


class Parcel(NamedTuple):
    """A run that is sent somewhere, and its weights as they are stored."""

    run: Run
    weights: bytes


class Store:
    """A runs folder: ``<root>/<kind>/<key>/record.json``, and beside it the weights.

    A run is written into a temporary folder and moved to its place in one step, so that it is there wholly or not at
    all. When two processes compute the same run, the first to finish puts it there and the other one's is dropped.
    The folder is made by ``open``, and stays the same if the working folder changes.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))

    def open(self) -> None:
        """Make the folder, and clear what killed processes left; a ``UsageError`` says that it can't be written to."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root, prefix=own_name()) as file:
                now = os.fstat(file.fileno()).st_mtime  # by the folder's clock: this machine's may be wrong
        except OSError as error:
            raise UsageError(
                f"Runs folder '{self.root}' cannot be written to ({error.strerror}). Choose another with --runs DIR."
            ) from None
        with contextlib.suppress(OSError):  # another time
            # A run that replaces another comes before that one, by its name.
            for left in sorted(each for name in ("", "*/") for each in self.root.glob(f"{name}{TEMPORARY}*")):
                with contextlib.suppress(OSError, Unreadable):
                    if is_abandoned(left, now):
                        _log.info("Clearing what a process that was killed left: '%s'", left)
                        self._clear(left)

    def peek(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there or is damaged; otherwise as ``read``, but nothing is set aside."""
        try:
            return self._sound(kind, key)
        except Damaged:
            return None

    def read(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there.

        Raises:
            Damaged: if it isn't what was written; it is out of the way then.
            Unreadable: if it can't be read now, or is of another version of cutk; it stays where it is.
        """
        with contextlib.suppress(Damaged):  # another process may have put another in its place by the second look
            return self._sound(kind, key)
        try:
            return self._sound(kind, key)
        except Damaged as damage:
            raise self._set_aside(kind, key, str(damage)) from None

    def has(self, run: Run) -> bool:
        """Say whether there is a record of a run, without reading it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # what else happens is no answer
            return stat.S_ISREG(os.stat(self._file(kind_of(run), run.key, RECORD)).st_mode)
        return False

    def parcel(self, kind: Kind, key: str) -> Parcel | None:
        """Return a run with its weights, or None if it isn't there; raises as ``read`` does."""
        path = self._file(kind, key, WEIGHTS)
        for _ in range(2):  # another process may have replaced them since the record was read
            run = self.read(kind, key)
            if run is None:
                return None
            with reading(path), regular(path) as file:
                content = file.read()
            if hashlib.sha256(content).hexdigest() == run.weights_sha256:
                return Parcel(run, content)
        raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read (its checksum differs)")

    def runs(self, warn: Callable[[str], None] = lambda _: None) -> list[Run]:
        """Return all runs by their labels' order; nothing is set aside, and weights aren't looked at.

        Raises:
            UsageError: if there is no such folder, or no run in it that can be read. ``warn`` is told of each that
                can't be; of those of another version, a line for all.
        """
        if not self.root.is_dir():
            raise UsageError(
                f"Runs folder '{self.root}' is not there. Expected the folder that cutk bench --runs DIR filled."
            )
        runs, others, seen = [], Counter[str](), 0
        with uncollected():
            for kind, key in self._names():
                seen += 1
                try:
                    run = self._record(kind, key)
                except Unreadable as error:
                    if not error.another:
                        warn(f"Left out: {one_line(error)}")
                    others[error.another] += 1
                except Damaged as damage:
                    warn(printable(f"{self._folder(kind, key)} is left out: {damage}"))
                else:
                    runs += [run] if run else []
        del others[""]
        for another, count in others.items():
            runs_are = "1 run is" if count == 1 else f"{count} runs are"
            warn(f"{runs_are} left out in '{printable(str(self.root))}': {another}")
        if not runs:
            what = f"None of the {seen} runs in '{self.root}' can be read" if seen else f"No runs in '{self.root}'"
            raise UsageError(f"{what}. Expected a folder that cutk bench --runs DIR filled.")
        return sorted(runs, key=_order)

    def seeds(self) -> set[int]:
        """Return the seeds of the runs that can be read."""
        found = set()
        with uncollected():
            for kind, key in self._names():
                with contextlib.suppress(Damaged, Unreadable):
                    run = self._record(kind, key)
                    found |= {run.trained.seed} if run else set()
        return found

    def weights(self, kind: Kind, key: str) -> dict[str, Tensor]:
        """Return a run's weights, on the CPU; raises as ``read`` does, and ``Damaged`` if they aren't there."""
        for _ in range(2):  # another process may have replaced them since the record was read
            run = self.read(kind, key)
            if run is None:
                raise Damaged(f"{self._folder(kind, key)} is not there")
            try:
                return load_weights(self._file(kind, key, WEIGHTS), run.weights_sha256)
            except Damaged as damage:
                why = str(damage)
        raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read ({why})")

    def write(self, run: Run, weights: Mapping[str, Tensor] | bytes, *, replace: bool = False) -> Run:
        """Write a run, whose weights may be given as they are stored, and return what is there then.

        Where one with the same weights is there already, what it measured besides stays. One with other weights, which
        another machine or process computed from the same key, stays as it is if it holds as much, unless ``replace``
        says that it doesn't.

        Raises:
            CellError: if it can't be written; what is there stays.
        """
        kind, folder = kind_of(run), self._folder(kind_of(run), run.key)
        temporary = folder.parent / own_name()
        try:
            temporary.mkdir(parents=True)
            digest, size = write_weights(temporary / WEIGHTS, weights)
            run = run.model_copy(update={"weights_sha256": digest, "weights_bytes": size})
            write_record(temporary / RECORD, run)
            while True:
                there, damaged = self._there(kind, run.key)
                if there is not None and there.weights_sha256 == digest:
                    if (together := self.update(run)) is not None:
                        return together
                    continue
                if there is not None and not replace and holds(there, run):
                    return there.model_copy(update={"labels": run.labels, "provider": run.provider})
                if move_run(temporary, folder, replace=replace or damaged or there is not None):
                    return run
        except (OSError, SafetensorError) as error:
            raise unwritten(folder, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _there(self, kind: Kind, key: str) -> tuple[Run | None, bool]:
        """Return what is there, and whether that is damaged."""
        for _ in range(2):  # another process may be replacing it
            with contextlib.suppress(Damaged):
                return self._sound(kind, key), False
        return None, True

    def update(self, run: Run) -> Run | None:
        """Add ``run`` to the record that is there, and return that; None if there is none of the same weights.

        Raises as ``write``.
        """
        there = self.read(kind_of(run), run.key)
        if there is None or run.weights_sha256 not in ("", there.weights_sha256):
            return None
        about = {"weights_sha256": there.weights_sha256, "weights_bytes": there.weights_bytes}
        folder, together = self._folder(kind_of(run), run.key), joined(run, there).model_copy(update=about)
        # Beside the run's folder and not in it, where ``open`` finds what a killed process left.
        try:
            write_over(folder / RECORD, together, beside=folder.resolve().parent)
        except OSError as error:
            raise unwritten(folder, error) from error
        return together

    def _failed(self, key: str) -> Path:
        return self.root / "failed" / f"{key}.json"

    def note_failure(self, key: str, failure: Failure) -> None:
        """Keep why a cell gave no run, until it gives one."""
        with contextlib.suppress(OSError):  # it is reported anyway; a full disk is no reason to stop
            path = self._failed(key)
            path.parent.mkdir(exist_ok=True)
            self._failures_by_cell.setdefault(failure.cell, []).append(path)
            write_over(path, failure, beside=path.parent)

    def notes_failures(self) -> bool:
        """Say whether a failure may have been kept, which is asked for every cell, and is seldom so."""
        return os.path.isdir(self.root / "failed")

    def forget_failure(self, key: str, cell: str = "") -> None:
        """Drop what ``note_failure`` kept, if anything, also of the same ``cell`` by other code."""
        if not self.notes_failures():
            return
        of_cell = self._failures_by_cell.pop(cell, []) if cell else []
        for path in (self._failed(key), *of_cell):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @cached_property
    def _failures_by_cell(self) -> dict[str, list[Path]]:
        """Where the failures of each cell are, by whatever code: looked for once, since there may be thousands."""
        found: dict[str, list[Path]] = {}
        for path, failure in self._noted_failures():
            found.setdefault(failure.cell, []).append(path)
        return found

    def _noted_failures(self) -> Iterator[tuple[Path, Failure]]:
        for path in self._failed("").parent.glob("[!.]*.json"):
            with contextlib.suppress(OSError, Damaged, Unreadable):
                yield path, parse_record(path, Failure)

    def failures(self) -> list[Failure]:
        """Return why cells gave no run, as far as it can be read, in the order of their labels."""
        found = [failure for _, failure in self._noted_failures()]

        def at(f: Failure) -> tuple[Any, ...]:
            return (f.dataset, f.model, f.manipulation, f.unlearner or "", f.alpha or 0.0, f.seed or 0, f.reason)

        return sorted(found, key=at)

    # Reading.

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root.joinpath(kind, key)

    def _file(self, kind: Kind, key: str, name: str) -> str:
        return os.path.join(self.root, kind, key, name)  # a Path takes ten times as long to make

    def _names(self) -> Iterator[tuple[Kind, str]]:
        for kind in KINDS:
            with contextlib.suppress(FileNotFoundError, Damaged), reading(self.root / kind):
                yield from ((kind, name) for name in sorted(os.listdir(self.root / kind)) if not name.startswith("."))

    def _sound(self, kind: Kind, key: str) -> Run | None:
        """Return a run whose weights are there in full; their checksum is compared when they are needed."""
        with uncollected():
            run = self._record(kind, key)
        if run is None:
            return None
        path, wrong = self._file(kind, key, WEIGHTS), ""
        try:
            with reading(path):
                there = os.stat(path)
            if not stat.S_ISREG(there.st_mode):
                wrong = "it is not a file"
            elif there.st_size != run.weights_bytes:
                wrong = "it is cut off"
        except FileNotFoundError:
            wrong = "it is missing"
        if wrong:
            raise Damaged(f"{WEIGHTS} cannot be read ({wrong})")
        return run

    def _record(self, kind: Kind, key: str) -> Run | None:
        path = self._file(kind, key, RECORD)
        try:
            with reading(path):
                run = parse_record(path, Run)
            if run.key != key:
                raise Damaged("it is not the record of this run")
        except FileNotFoundError:
            if os.path.isdir(self._folder(kind, key)):
                raise Damaged(f"{RECORD} is missing") from None
            return None
        except Damaged as damage:
            raise Damaged(f"{RECORD} cannot be read ({damage})") from None
        return run

    # Writing.

    def _clear(self, left: Path) -> None:
        if left.is_symlink() or not left.is_dir():
            left.unlink()
            return
        # Its process was killed before it could move a run to its place, or between the two steps of a replacement.
        if (run := whole_run(left)) is not None:
            move_run(left, self._folder(kind_of(run), run.key))
        shutil.rmtree(left, ignore_errors=True)

    def _set_aside(self, kind: Kind, key: str, reason: str) -> Damaged:
        folder, aside = self._folder(kind, key), self.root / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            number = 0
            while os.path.lexists(target := aside / f"{kind}-{key[:16]}-{number}"):
                number += 1
            with contextlib.suppress(FileNotFoundError):  # another process set it aside
                folder.rename(target)
        except OSError as error:
            raise Unreadable(
                f"{folder}: {reason}, and it cannot be set aside ({error.strerror}). Remove it, "
                "or choose another folder with --runs DIR."
            ) from None
        _log.info("Set aside '%s' as '%s': %s", folder, target, reason)
        return Damaged(f"{folder}: {reason}; set aside as {target}")


def _order(run: Run) -> tuple[Any, ...]:
    labels = run.labels
    at = (labels.dataset, labels.model, labels.manipulation, labels.recipe, _ROLES.index(labels.role))
    return (*at, labels.unlearner or "", labels.alpha or 0.0, labels.seed, run.key)
