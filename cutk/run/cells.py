"""Units of work: plain data that names components and holds none, so that it can be sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

__all__ = ["Cell", "Training", "Unlearning"]


@dataclass(frozen=True, slots=True)
class Training:
    """One training: the original model, or the gold one without the manipulated samples."""

    manipulation: str
    seed: int
    role: Literal["original", "gold"]
    kind: ClassVar[Literal["train"]] = "train"
    needs: ClassVar[None] = None

    @property
    def labels(self) -> dict[str, Any]:
        """What its records and failures say of it, as far as the cell alone tells."""
        return {"role": self.role, "manipulation": self.manipulation, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.manipulation}, seed {self.seed}: {self.role}"


@dataclass(frozen=True, slots=True)
class Unlearning:
    """One unlearner at one α: every point of its grid, and the one that the selector takes."""

    manipulation: str
    seed: int
    unlearner: str
    alpha: float
    kind: ClassVar[Literal["unlearn"]] = "unlearn"

    @property
    def needs(self) -> Training:
        """The cell that has to be there before this one can start: the original model's."""
        return Training(self.manipulation, self.seed, "original")

    @property
    def labels(self) -> dict[str, Any]:
        """What its records and failures say of it, as far as the cell alone tells."""
        return {"role": "unlearned"} | {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        return f"{self.manipulation}, seed {self.seed}: {self.unlearner} at α = {self.alpha:g}"


Cell = Training | Unlearning
