"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cutk.run.cells import Cell, Observer

__all__ = ["PlainObserver", "RichObserver", "watching"]

# Lines about one long cell come this many seconds apart at least.
_QUIET = 30.0


class PlainObserver(Observer):
    """One line for each cell, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = self._cells = 0
        self._spoke = 0.0
        self._cell = ""

    def _say(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)

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
            self._say(f"[{self._done + 1}/{self._cells}] {self._cell}: {done} of {total}")

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """Say that it is there."""
        self._done += 1
        self._say(f"[{self._done}/{self._cells}] {cell}{' (read)' if read else ''}")

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Say why."""
        self._done += 1
        self._say(f"[{self._done}/{self._cells}] {cell}: failed: {reason}")

    def warning(self, text: str) -> None:
        """Pass it on."""
        self._say(f"Warning: {text}")


class RichObserver(Observer):
    """A bar for the cells and one for the current cell."""

    def __init__(self, console: Console) -> None:
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
        self._bars.reset(self._one, description=escape(str(cell)), total=None, visible=True)

    def progress(self, done: int, total: int) -> None:
        """Move its bar."""
        self._bars.update(self._one, completed=done, total=total)

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """Move the bar."""
        self._bars.advance(self._all)

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Print the reason above the bars."""
        self._bars.console.print(f"[red]failed[/red] {escape(str(cell))}: {escape(reason)}", highlight=False)
        self._bars.advance(self._all)

    def warning(self, text: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(f"[yellow]Warning:[/yellow] {escape(text)}", highlight=False)


@contextmanager
def watching(runs: Path) -> Iterator[Observer]:
    """Yield the observer that suits stderr; on Ctrl-C say how to go on."""
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with RichObserver(console) as observer:
                yield observer
        else:
            yield PlainObserver(console)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. Finished cells are in '{runs}'; the same command goes on from there.", err=True)
        raise click.exceptions.Abort from None
