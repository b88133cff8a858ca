"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cutk.cli.messages import say, visible
from cutk.run.cells import Cell
from cutk.run.observer import Observer

__all__ = ["PlainObserver", "RichObserver", "watching"]

# Lines about one long cell come this many seconds apart at least.
_QUIET = 30.0
OnError = Callable[[BaseException], None] | None


class PlainObserver(Observer):
    """One line for each cell, for logs and pipes."""

    def __init__(self, on_error: OnError = None) -> None:
        self._on_error = on_error
        self._done = self._cells = 0
        self._spoke = 0.0
        self._cell = ""

    def started(self, cells: int) -> None:
        """Remember how many there are."""
        self._cells = cells

    def cell_started(self, cell: Cell) -> None:
        """Start the clock."""
        self._cell, self._spoke = str(cell), time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """Say so now and then."""
        if time.monotonic() - self._spoke > _QUIET and done < total:
            self._spoke = time.monotonic()
            say(f"[{self._done + 1}/{self._cells}] {self._cell}: {done} of {total}")

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """Say that it is there."""
        self._done += 1
        say(f"[{self._done}/{self._cells}] {cell}{' (read)' if read else ''}")

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Say why."""
        self._done += 1
        say(f"[{self._done}/{self._cells}] {cell}: failed: {reason}")

    def warning(self, text: str) -> None:
        """Pass it on."""
        say(f"Warning: {text}")

    def error(self, error: BaseException) -> None:
        """Pass it on."""
        if self._on_error:
            self._on_error(error)


class RichObserver(Observer):
    """A bar for the cells and one for the current cell."""

    def __init__(self, console: Console, on_error: OnError = None) -> None:
        self._on_error = on_error
        self._bars = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._all = self._bars.add_task("cells", total=None)
        self._one = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> RichObserver:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, cells: int) -> None:
        """Show the bar."""
        self._bars.update(self._all, total=cells)

    def cell_started(self, cell: Cell) -> None:
        """Show its name."""
        self._bars.reset(self._one, description=escape(visible(str(cell))), total=None, visible=True)

    def progress(self, done: int, total: int) -> None:
        """Move its bar."""
        self._bars.update(self._one, completed=done, total=total)

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """Move the bar."""
        self._bars.advance(self._all)

    def _print(self, colour: str, word: str, text: str) -> None:
        self._bars.console.print(f"[{colour}]{word}[/{colour}] {escape(visible(text))}", highlight=False)

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Print the reason above the bars."""
        self._print("red", "failed", f"{cell}: {reason}")
        self._bars.advance(self._all)

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
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with RichObserver(console, on_error) as observer:
                yield observer
        else:
            yield PlainObserver(on_error)
    except KeyboardInterrupt:
        say(f"Interrupted. Finished cells are in '{runs}'; the same command goes on from there.")
        raise click.exceptions.Abort from None
