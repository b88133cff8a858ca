"""Who is told how a study is getting on."""

from __future__ import annotations

from collections.abc import Sequence

from cutk.run.cells import Cell

__all__ = ["Observer", "tell_put_back"]


class Observer:
    """Is told how a study is getting on. This one keeps it to itself."""

    def started(self, cells: int) -> None:
        """``cells`` of them are about to be computed or read."""

    def cell_started(self, cell: Cell) -> None:
        """A cell is about to be computed."""

    def progress(self, done: int, total: int) -> None:
        """So much of the current cell is done."""

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """A cell is there; ``read`` says that it was there before."""

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """A cell gave no result."""

    def warning(self, text: str) -> None:
        """Something went wrong that could be mended, or that a reader of the results has to know."""

    def error(self, error: BaseException) -> None:
        """An error of a component, with its traceback, before it becomes a line of a record."""


def tell_put_back(observer: Observer, who: str, changed: Sequence[str]) -> None:
    """Warn of what a component changed in the process."""
    if changed:
        observer.warning(f"{who} changed {', '.join(changed)}; that was put back.")
