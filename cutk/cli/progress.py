"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
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
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cutk.cli.messages import say, stderr_console, visible
from cutk.run.cells import Cell
from cutk.run.observer import Observer

if TYPE_CHECKING:
    from rich.console import Console

    from cutk.repair.problem import Tell
    from cutk.run.records import Run

__all__ = ["PlainObserver", "RichObserver", "telling", "watching"]

# Lines about one long cell come this many seconds apart at least.
_QUIET = 30.0
OnError = Callable[[BaseException], None] | None


def rate(done: float, seconds: float) -> str:
    """Return how fast something goes, as people say it.

    >>> rate(600, 60), rate(2, 60), rate(0, 60)
    ('10 a second', '30 s each', '')
    """
    from cutk.report.naming import duration

    if done <= 0 or seconds <= 0:
        return ""
    each = seconds / done
    return f"{done / seconds:.3g} a second" if each < 1 else f"{duration(each)} each"


def pace(done: int, total: int, seconds: float) -> str:
    """Return how far something is, how fast, and what is left of it.

    >>> pace(300, 900, 60)
    '300 of 900, 5 a second, about 2 min left'
    """
    from cutk.report.naming import duration

    fast = rate(done, seconds)
    left = f", {fast}, about {duration((total - done) * seconds / done)} left" if fast else ""
    return f"{done} of {total}{left}"


class _Rate(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """Return it, once it is known."""
        return Text(rate(task.completed, task.elapsed or 0.0), style="progress.data.speed")


def _bars(console: Console) -> Progress:
    """Return bars that say how far each part is, for how long, how fast, and what is left."""
    return Progress(
        TextColumn("{task.description}", table_column=None),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class PlainObserver(Observer):
    """One line for each cell, for logs and pipes."""

    name = "lines"

    def __init__(self, on_error: OnError = None) -> None:
        super().__init__()
        self._on_error = on_error
        self._done = self._cells = 0
        self._spoke: dict[Cell, float] = {}
        self._began: dict[Cell, float] = {}

    def started(self, cells: int) -> None:
        """Remember how many there are."""
        self._cells = cells

    def cell_started(self, cell: Cell) -> None:
        """Start the clock."""
        self._spoke[cell] = self._began[cell] = time.monotonic()

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """Say so now and then."""
        now = time.monotonic()
        if now - self._spoke.get(cell, math.inf) > _QUIET and done < total:
            self._spoke[cell] = now
            say(f"[{self._done + 1}/{self._cells}] {cell}: {pace(done, total, now - self._began[cell])}")

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
        self._bars = _bars(console)
        self._all = self._bars.add_task("cells", total=None)
        self._cells: dict[Cell, TaskID] = {}

    def __enter__(self) -> RichObserver:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone
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
def telling() -> Iterator[Tell]:
    """Yield what is told how far each part has come: bars on a terminal, a line now and then elsewhere."""
    console = stderr_console()
    if not console.is_terminal:
        began: dict[str, float] = {}
        spoke: dict[str, float] = {}
        far: dict[str, int] = {}

        def line(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            since = began.setdefault(what, now)
            if done < far.get(what, 0):  # it begins anew, as with each point of a grid
                since = began[what] = now
            far[what] = done
            if now - spoke.setdefault(what, now) > _QUIET and done < total:
                spoke[what] = now
                say(f"{what}: {pace(done, total, now - since)}")

        yield line
        return
    tasks: dict[str, TaskID] = {}
    far = {}
    with _bars(console) as bars:

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(escape(visible(what)), total=total)
            elif done < far.get(what, 0):  # it begins anew, as with each point of a grid
                bars.reset(tasks[what])
            far[what] = done
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

        yield bar


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
