"""What is known of a repair: one schema, as ``report.json`` holds it and as the page and the terminal show it."""

from __future__ import annotations

from numbers import Real
from typing import Any

from pydantic import ConfigDict, Field

from cutk.errors import UsageError
from cutk.repair.calibration import Calibration
from cutk.repair.verdict import Proportion, Status
from cutk.run.records import Environment, Recorded

__all__ = ["SCHEMA", "Confusion", "Judged", "Limits", "RepairReport", "Sanity", "Suspect", "Touched"]

# Of ``RepairReport`` as JSON.
SCHEMA = 1


class Touched(Recorded):
    """What became of one layer's weights: the change's size by the weights', and how many numbers of them changed."""

    layer: str
    numbers: int
    changed: int
    relative: float


class Confusion(Recorded):
    """What the bad samples' labels teach, as it shows on validation samples.

    A bad sample teaches that its class, as far as the original's best other guess tells, is the given label's.

    Attributes:
        classes: those that the bad samples seem to be of.
        mistaken: how many validation samples of these are taken for what the bad samples of their class are labelled.
        right: how many of them are right; ``others`` of the other classes, none where there is none.
        righted: how many of them are right, and wrong by the original; ``wronged`` the reverse.
    """

    classes: list[str]
    mistaken: Proportion
    right: Proportion
    others: Proportion | None
    righted: int = 0
    wronged: int = 0


class Judged(Recorded):
    """The original model, or a method's candidate to replace it.

    Attributes:
        options: those of the chosen point of the method's grid.
        validation: how many validation samples are right; ``classes`` class by class.
        confusion: what the bad samples' labels teach; none where no sample of their classes is among the validation
            samples, or training samples stand in for these.
        as_labelled: how many bad samples are predicted as they are labelled.
        no_longer: of those that the original predicts as labelled, how many aren't any more; at most ``counted``.
        predictions: how many bad samples are predicted as each class.
        agreement: on how many of the other training samples it agrees with the original.
        attack: how many validation samples of other classes it takes, with a suspected trigger, for the class that the
            bad samples are predicted as; none where no trigger is suspected.
        attack_without: how many of the same samples it takes for that class without the trigger.
        attack_alone: how many of them with the trigger, and not without it.
        within: whether it keeps within the limits.
        score: the selector's value.
        points: how many points of the grid were tried; ``left_out`` how many there was no time for.
        peak_bytes: the most memory in use meanwhile, beyond what was in use before.
    """

    name: str
    options: dict[str, Any] = Field({})
    validation: Proportion | None
    classes: dict[str, Proportion]
    confusion: Confusion | None = None
    as_labelled: Proportion
    no_longer: int = 0
    counted: int = 0
    predictions: dict[str, int]
    agreement: Proportion | None = None
    attack: Proportion | None = None
    attack_without: Proportion | None = None
    attack_alone: int = 0
    within: bool = True
    score: float | None = None
    points: int = 0
    left_out: int = 0
    seconds: float | None = None
    passes: float | None = None
    peak_bytes: int | None = None
    layers: list[Touched] = Field([])


class Limits(Recorded):
    """What the user asked for: how much validation accuracy may be lost, and how long it may take."""

    max_accuracy_loss: float
    budget_seconds: float | None = None


def limits_of(max_accuracy_loss: float, budget_seconds: float | None = None) -> Limits:
    """Return limits as a user gave them; a ``UsageError`` says what can't be one."""
    if not _is_number(max_accuracy_loss):
        raise UsageError(f"max_accuracy_loss: expected 0 to 1, such as 0.01, got {max_accuracy_loss!r:.80}.")
    if budget_seconds is not None and not _is_number(budget_seconds):
        raise UsageError(f"budget: expected a number of seconds, such as 600, got {budget_seconds!r:.80}.")
    if not 0 <= max_accuracy_loss <= 1:
        raise UsageError(f"max_accuracy_loss: expected 0 to 1, such as 0.01, got {max_accuracy_loss:g}.")
    if budget_seconds is not None and not budget_seconds > 0:
        raise UsageError(f"budget: expected more than no time, got {budget_seconds:g} seconds.")
    return Limits(max_accuracy_loss=max_accuracy_loss, budget_seconds=budget_seconds)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class Sanity(Recorded):
    """What the weights do before anything is done: whether these are the data that they were trained on.

    ``tried`` is how samples reach the model, ``fits`` what would suit the weights better.
    """

    line: str
    near_chance: bool
    tried: str
    fits: str = ""


class Suspect(Recorded):
    """A training sample beside the bad ones that looks like them; ``by`` says what the score is."""

    index: int
    name: str
    label: str
    original: str
    repaired: str
    score: float
    by: str


class RepairReport(Recorded):
    """All that a repair found.

    Attributes:
        verdict: what it comes to in plain words.
        status: the same in a word; ``chosen`` is the candidate that was taken, None if the original stays.
        stands_in: whether training samples stand in for validation samples that weren't given.
        failed: methods that gave no model, and why.
        unranked: which detector gave no suspects, and why; empty if it did, or none was asked.
        left_out: what there was no time for.
        unknown: what can't be known.
        suspects: how many samples ``suspects.csv`` lists.
        samples: how many there are: to train on, bad, for validation, and left out as unreadable.
        hashes: SHA-256 of what was handed over.
        seconds: from the first method's begin to the verdict.
        peak_bytes: the most memory that this process has held, data included.
        calibration: what methods did to manipulations planted in the user's own data, if that was asked for.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    version: int = Field(SCHEMA, alias="schema")
    cutk: str
    verdict: str
    status: Status
    chosen: str | None
    limits: Limits
    sanity: Sanity
    stands_in: bool
    original: Judged
    candidates: list[Judged]
    failed: dict[str, str]
    unranked: str = ""
    left_out: list[str]
    unknown: list[str]
    suspects: int
    samples: dict[str, int]
    classes: list[str]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    recipe: dict[str, Any]
    selector: str
    seed: int
    environment: Environment
    hashes: dict[str, str] = Field({})
    command: str = ""
    seconds: float | None = None
    peak_bytes: int | None = None
    calibration: Calibration | None = None

    @property
    def repaired(self) -> bool:
        """Whether a candidate was taken that undoes the damage, or a part of it, within the limits."""
        return self.status != "not repaired"

    @property
    def taken(self) -> Judged | None:
        """The candidate that was taken."""
        return next((one for one in self.candidates if one.name == self.chosen), None)
