"""Units of work: plain data that names components and holds none, so that it can be sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Cell", "Training", "Unlearning"]


@dataclass(frozen=True)
class Training:
    """One training: the original model, or the gold one without the manipulated samples."""

    manipulation: str
    seed: int
    role: Literal["original", "gold"]

    @property
    def kind(self) -> Literal["train"]:
        """Which folder of the runs keeps it."""
        return "train"

    @property
    def needs(self) -> Training | None:
        """The cell that has to be there before this one can start."""
        return None

    @property
    def labels(self) -> dict[str, Any]:
        """What its records and failures say of it, as far as the cell alone tells."""
        return {"role": self.role, "manipulation": self.manipulation, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.manipulation}, seed {self.seed}: {self.role}"


@dataclass(frozen=True)
class Unlearning:
    """One unlearner at one α: every point of its grid, and the one that the selector takes."""

    manipulation: str
    seed: int
    unlearner: str
    alpha: float

    @property
    def kind(self) -> Literal["unlearn"]:
        """Which folder of the runs keeps it."""
        return "unlearn"

    @property
    def needs(self) -> Training:
        """The original model."""
        return Training(self.manipulation, self.seed, "original")

    @property
    def labels(self) -> dict[str, Any]:
        """What its records and failures say of it, as far as the cell alone tells."""
        about = {"manipulation": self.manipulation, "seed": self.seed}
        return {"role": "unlearned", **about, "unlearner": self.unlearner, "alpha": self.alpha}

    def __str__(self) -> str:
        return f"{self.manipulation}, seed {self.seed}: {self.unlearner} at α = {self.alpha:g}"


Cell = Training | Unlearning
