"""Who is told how a study is getting on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cutk.components import Component
from cutk.errors import Caught, UsageError
from cutk.run.cells import Cell

if TYPE_CHECKING:
    from cutk.run.records import Run

__all__ = ["Observer", "Observers", "PutBack", "Relay", "tell_put_back"]


class Observer(Component):
    """Is told how a study is getting on, in the study's own process. This one keeps it to itself.

    With several workers, what it is told of one cell may come between what it is told of another.
    """

    kind = "observer"
    required = ()

    def ready(self) -> None:
        """Be asked, before anything else happens, whether the study can be observed at all.

        Raises:
            UsageError: if it can't, since a library is missing, say; there is no study then, and nothing is written.
        """

    def started(self, cells: int) -> None:
        """``cells`` of them are about to be computed or read."""

    def cell_started(self, cell: Cell) -> None:
        """A cell is about to be computed."""

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """So much of a cell is done."""

    def scalar(self, cell: Cell, name: str, step: int, value: float) -> None:
        """A method logged a value of a curve; ``step`` counts its values from 0."""

    def cell_finished(self, cell: Cell, run: Run, read: bool) -> None:
        """A cell is there; ``read`` says that it was there before."""

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """A cell gave no result."""

    def warning(self, text: str) -> None:
        """Something went wrong that could be mended, or that a reader of the results has to know."""

    def error(self, error: BaseException) -> None:
        """An error of a component, before it becomes a line of a record; only where this process computes."""

    def finished(self) -> None:
        """All cells are there or have failed, or the study was given up."""


# What is told, by the methods' names.
TOLD = tuple(name for name, value in vars(Observer).items() if callable(value))
Send = Callable[[str, tuple[Any, ...]], None]


class Relay(Observer):
    """Passes on what a worker is told, as a method's name and plain arguments."""

    name = "relay"

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def cell_started(self, cell: Cell) -> None:
        """Pass it on."""
        self._send("cell_started", (cell,))

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """Pass it on."""
        self._send("progress", (cell, done, total))

    def scalar(self, cell: Cell, name: str, step: int, value: float) -> None:
        """Pass it on."""
        self._send("scalar", (cell, name, step, value))

    def warning(self, text: str) -> None:
        """Pass it on."""
        self._send("warning", (text,))


class Observers(Observer):
    """Several, told one after the other; one that fails is told nothing more, and the first one that it failed."""

    name = "observers"

    def __init__(self, first: Observer, others: Sequence[Observer]) -> None:
        super().__init__()
        self._first, self._others = first, list(others)
        self._turn = threading.RLock()  # workers are heard in threads of their own
        for name in TOLD:
            setattr(self, name, self._telling(name))

    def _telling(self, name: str) -> Callable[..., None]:
        def tell(*arguments: Any) -> None:
            with self._turn:
                with contextlib.suppress(OSError):  # a terminal that is gone, a full disk: the work goes on
                    getattr(self._first, name)(*arguments)
                for observer in list(self._others):
                    with Caught() as caught:
                        getattr(observer, name)(*arguments)
                    if name == "ready" and isinstance(caught.error, UsageError):
                        raise caught.error
                    if caught.error is not None:
                        self._others.remove(observer)
                        said = f"The observer '{observer.name}' failed, and is told no more: {caught.reason}"
                        self._first.warning(said)

        return tell


def tell_put_back(observer: Observer, who: str, changed: Sequence[str]) -> None:
    """Warn of what a component changed in the process."""
    if changed:
        observer.warning(f"{who} changed {', '.join(changed)}; that was put back.")


class PutBack:
    """Warns once of each thing that a method, or whoever is about it, changed in the process."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._told: set[str] = set()

    def __call__(self, who: str, changed: Sequence[str]) -> None:
        """Tell of what is new among ``changed``."""
        new = [name for name in changed if name not in self._told]
        self._told.update(new)
        tell_put_back(self._observer, who, new)
