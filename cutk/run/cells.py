"""Units of work, and who is told about them."""

from __future__ import annotations

from dataclasses import dataclass

from cutk.run.plan import Chosen
from cutk.run.records import GOLD, ORIGINAL

__all__ = ["Cell", "Observer"]


@dataclass(frozen=True)
class Cell:
    """One unit of work: a training (original or gold, α is None), or an unlearner at one α.

    Attributes:
        role: ``original``, ``gold`` or ``unlearn``.
    """

    role: str
    manipulation: Chosen
    seed: int
    unlearner: Chosen | None = None
    alpha: float | None = None

    @property
    def unlearner_name(self) -> str:
        """The name that the cell's record carries."""
        return self.unlearner.name if self.unlearner else GOLD if self.role == "gold" else ORIGINAL

    @property
    def kind(self) -> str:
        """Which folder of the runs keeps it."""
        return "train" if self.unlearner is None else "unlearn"

    def __str__(self) -> str:
        what = self.role if self.unlearner is None else f"{self.unlearner.name} at α = {self.alpha:g}"
        return f"{self.manipulation.name}, seed {self.seed}: {what}"


class Observer:
    """Is told how a benchmark is getting on. This one keeps it to itself."""

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
        """Something went wrong that the benchmark could mend."""
