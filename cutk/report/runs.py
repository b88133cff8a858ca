"""Stored runs as a report reads them: nothing is computed, nothing is written, and what is damaged is left aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cutk.errors import UsageError, one_line
from cutk.run.store import FAILED, parse_record
from cutk.run.unlearning import Attempt

__all__ = ["Identity", "Measured", "StoredRun", "Training", "read_runs"]

_KINDS = ("train", "unlearn")
_RECORD = "record.json"


class _Part(BaseModel):
    # What a later version of cutk adds to its records is no reason to refuse them.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Identity(_Part):
    """A component as it decides a result: its options, one point after the other."""

    name: str
    provider: str
    source: str = ""
    options: list[dict[str, Any]]


class Training(_Part):
    """Everything that decides what a training gives."""

    data: str
    manipulation: Identity
    model: Identity
    recipe: dict[str, Any]
    validation_fraction: float
    precision: str
    device: str


class Unlearning(_Part):
    """Everything that decides what an unlearner gives."""

    original: Training
    unlearner: Identity


class Labels(_Part):
    """What a run is called."""

    dataset: str
    manipulation: str
    model: str
    unlearner: str
    alpha: float | None
    seed: int
    manipulated: int
    identified: int | None


class Measured(_Part):
    """What a reader has to know of a metric; an open end of its bounds is None."""

    name: str
    summary: str
    higher_is_better: bool
    bounds: tuple[float | None, float | None]
    objective: str = ""

    @property
    def is_fraction(self) -> bool:
        """Say whether every value lies between 0 and 1."""
        return self.bounds == (0, 1)


class StoredRun(_Part):
    """One ``record.json``."""

    key: str
    labels: Labels
    decided_by: Unlearning | Training
    provider: str
    attempts: list[Attempt] = Field(min_length=1)
    selected: int = Field(ge=0)
    measured: dict[str, Measured]
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _selected_is_there(self) -> StoredRun:
        if self.selected >= len(self.attempts):
            raise ValueError(f"attempt {self.selected} is selected, and there are {len(self.attempts)}")
        return self

    @property
    def training(self) -> Training:
        """What decides the original model, or the gold one."""
        return self.decided_by.original if isinstance(self.decided_by, Unlearning) else self.decided_by

    @property
    def unlearner(self) -> Identity | None:
        """The unlearner, None for the original and gold."""
        return self.decided_by.unlearner if isinstance(self.decided_by, Unlearning) else None


def read_runs(root: Path, warn: Callable[[str], None]) -> list[StoredRun]:
    """Return every run below ``root``, in the order of their labels.

    Args:
        root: a runs folder, as ``cutk bench`` leaves it.
        warn: told of each run that can't be read.

    Raises:
        UsageError: if there is no such folder, or no run in it that can be read.
    """
    if not root.is_dir():
        raise UsageError(f"Runs folder '{root}' is not there. Expected the folder that cutk bench --runs DIR filled.")
    folders = [folder for kind in _KINDS for folder in sorted((root / kind).glob("[!.]*")) if folder.is_dir()]
    if not folders:
        raise UsageError(f"No runs in '{root}'. Expected the folder that cutk bench --runs DIR filled.")
    runs = []
    for folder in folders:
        try:
            runs.append(_read(folder))
        except (OSError, ValueError, RecursionError) as error:
            warn(f"{folder} is left out: {_reason(error)}")
    if not runs:
        raise UsageError(f"None of the {len(folders)} runs in '{root}' can be read.")
    return sorted(runs, key=_order)


def read_failures(root: Path) -> list[str]:
    """Return why cells of a runs folder gave no run, a line each, in the order of their text."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((root / FAILED).glob("[!.]*.txt"))]
    return sorted(" ".join(text.split()) for text in texts)


def _order(run: StoredRun) -> tuple[Any, ...]:
    labels = run.labels
    return (
        labels.dataset,
        labels.model,
        labels.manipulation,
        labels.unlearner,
        labels.alpha or 0,
        labels.seed,
        run.key,
    )


def _read(folder: Path) -> StoredRun:
    return StoredRun.model_validate(parse_record((folder / _RECORD).read_text(encoding="utf-8"), folder.name))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{_RECORD} is missing"
    if isinstance(error, OSError):
        return f"{_RECORD} cannot be read ({error.strerror})"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{_RECORD} is damaged ({where + ': ' if where else ''}{first['msg']})"
    return f"{_RECORD} is damaged ({one_line(error)})"
