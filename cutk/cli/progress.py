"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cutk.cli.messages import say, stderr_console, visible
from cutk.run.cells import Cell
from cutk.run.observer import Observer

if TYPE_CHECKING:
    from rich.console import Console

    from cutk.run.records import Run

__all__ = ["PlainObserver", "RichObserver", "watching"]

# Lines about one long cell come this many seconds apart at least.
_QUIET = 30.0
OnError = Callable[[BaseException], None] | None


class PlainObserver(Observer):
    """One line for each cell, for logs and pipes."""

    name = "lines"

    def __init__(self, on_error: OnError = None) -> None:
        super().__init__()
        self._on_error = on_error
        self._done = self._cells = 0
        self._spoke: dict[Cell, float] = {}

    def started(self, cells: int) -> None:
        """Remember how many there are."""
        self._cells = cells

    def cell_started(self, cell: Cell) -> None:
        """Start the clock."""
        self._spoke[cell] = time.monotonic()

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """Say so now and then."""
        if time.monotonic() - self._spoke.get(cell, math.inf) > _QUIET and done < total:
            self._spoke[cell] = time.monotonic()
            say(f"[{self._done + 1}/{self._cells}] {cell}: {done} of {total}")

    def cell_finished(self, cell: Cell, run: Run, read: bool) -> None:
        """Say that it is there."""
        self._done += 1
        self._spoke.pop(cell, None)
        say(f"[{self._done}/{self._cells}] {cell}{' (read)' if read else ''}")

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Say why."""
        self._done += 1
        self._spoke.pop(cell, None)
        say(f"[{self._done}/{self._cells}] {cell}: failed: {reason}")

    def warning(self, text: str) -> None:
        """Pass it on."""
        say(f"Warning: {text}")

    def error(self, error: BaseException) -> None:
        """Pass it on."""
        if self._on_error:
            self._on_error(error)


class RichObserver(Observer):
    """A bar for all cells, with the time that is left, and one for each that is being computed."""

    name = "bars"

    def __init__(self, console: Console, on_error: OnError = None) -> None:
        super().__init__()
        self._on_error = on_error
        self._bars = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._all = self._bars.add_task("cells", total=None)
        self._cells: dict[Cell, TaskID] = {}

    def __enter__(self) -> RichObserver:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, cells: int) -> None:
        """Show the bar."""
        self._bars.update(self._all, total=cells)

    def cell_started(self, cell: Cell) -> None:
        """Show a bar of its own."""
        if cell not in self._cells:
            self._cells[cell] = self._bars.add_task(escape(visible(str(cell))), total=None)

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """Move its bar."""
        if cell in self._cells:
            self._bars.update(self._cells[cell], completed=done, total=total)

    def _end(self, cell: Cell) -> None:
        if cell in self._cells:
            self._bars.remove_task(self._cells.pop(cell))
        self._bars.advance(self._all)

    def cell_finished(self, cell: Cell, run: Run, read: bool) -> None:
        """Take its bar away."""
        self._end(cell)

    def _print(self, colour: str, word: str, text: str) -> None:
        self._bars.console.print(f"[{colour}]{word}[/{colour}] {escape(visible(text))}", highlight=False)

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Print the reason above the bars."""
        self._print("red", "failed", f"{cell}: {reason}")
        self._end(cell)

    def warning(self, text: str) -> None:
        """Print it above the bars."""
        self._print("yellow", "Warning:", text)

    def error(self, error: BaseException) -> None:
        """Pass it on, the bars out of the way."""
        if self._on_error:
            self._bars.stop()
            self._on_error(error)
            self._bars.start()


@contextmanager
def watching(runs: Path, on_error: OnError = None) -> Iterator[Observer]:
    """Yield the observer that suits stderr; on Ctrl-C say how to go on.

    Args:
        runs: the folder where finished cells are, as the user calls it.
        on_error: told what failed while it can still be looked at, if there is somebody to tell.
    """
    console = stderr_console()
    try:
        if console.is_terminal:
            with RichObserver(console, on_error) as observer:
                yield observer
        else:
            yield PlainObserver(on_error)
    except KeyboardInterrupt:
        say(f"Interrupted. Finished cells are in '{runs}'; the same command goes on from there.")
        raise click.exceptions.Abort from None
