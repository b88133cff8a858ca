"""What is known of methods on data like the user's: manipulations planted there, and who undid them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from cutk.errors import conjoined
from cutk.repair.verdict import Proportion, percent
from cutk.run.records import Recorded
from cutk.run.summary import RECOVERED

__all__ = ["Calibration", "Shown", "Trial", "rows_of", "sentences_of", "shown_as", "told_setting"]

Outcome = Literal["heals", "in part", "does not heal", "harms", "no damage"]


class Trial(Recorded):
    """A method on a planted manipulation.

    Attributes:
        manipulated: how many samples were manipulated; ``identified`` how many of these the method was told.
        original: accuracy on unseen samples that the manipulation is about, of the model that was trained on it;
            ``corrected`` of the method's, ``gold`` of the one that was trained without the manipulated samples.
        retain: accuracy on unseen samples that it isn't about, of the method's model; ``retain_before`` of the
            original. None where it is about all.
        seconds: what the method took.
    """

    manipulation: str
    unlearner: str
    manipulated: int
    identified: int
    original: Proportion
    corrected: Proportion
    gold: Proportion
    retain: float | None = None
    retain_before: float | None = None
    seconds: float | None = None

    @property
    def outcome(self) -> Outcome:
        """What it comes to: healed is what reaches 0.9 of gold, and damaged what doesn't, as α* counts it."""
        enough = RECOVERED * self.gold.value
        if self.corrected.high < self.original.low:
            return "harms"
        if self.gold.low <= self.original.high or self.original.value >= enough:
            return "no damage"
        if self.corrected.value >= enough:
            return "heals"
        return "in part" if self.corrected.low > self.original.high else "does not heal"


class Calibration(Recorded):
    """A benchmark on the user's own samples, network and recipe.

    Attributes:
        train: how many samples were trained on, none of those on the list; ``test`` how many were measured on.
        manipulated: how many samples were to be manipulated: the bad ones that are known, by ``alpha``.
        alpha: the part of them that methods were told.
        seed: of all chance.
        trials: one for each manipulation and method.
        unfit: manipulations that don't fit the data, and why.
        failed: what gave no number, and why.
        left_out: what there was no time for.
        runs: the folder where the runs are; empty if they weren't kept.
    """

    train: int
    test: int
    manipulated: int
    alpha: float
    seed: int
    trials: list[Trial] = Field([])
    unfit: dict[str, str] = Field({})
    failed: dict[str, str] = Field({})
    left_out: list[str] = Field([])
    runs: str = ""


def rows_of(calibration: Calibration) -> list[tuple[str, ...]]:
    """Return the table as texts, its heading first."""
    lines: list[tuple[str, ...]] = [
        ("planted", "samples", "method", "original", "corrected", "gold", "retain", "before", "")
    ]
    for one in calibration.trials:
        retain, before = ("–" if value is None else percent(value) for value in (one.retain, one.retain_before))
        values = (one.original.percent, one.corrected.percent, one.gold.percent, retain, before)
        lines.append((one.manipulation, str(one.manipulated), one.unlearner, *values, one.outcome))
    return lines


def told_setting(calibration: Calibration) -> str:
    """Return what was planted in what, in a sentence."""
    many = calibration.manipulated
    return (
        f"Planted in {calibration.train:,} samples that aren't on the list, one manipulation at a time, about {many:,} "
        f"samples each; methods were told {100 * calibration.alpha:.3g} % of them. Measured on {calibration.test:,} "
        f"others, with seed {calibration.seed}: one seed can't tell a small difference from chance."
    )


def sentences_of(calibration: Calibration, max_loss: float) -> list[str]:
    """Return a sentence for each method: what it heals on these data, and what it doesn't."""
    found = []
    for name in dict.fromkeys(one.unlearner for one in calibration.trials):
        mine = [one for one in calibration.trials if one.unlearner == name]
        words = {"heals": "heals", "in part": "heals in part", "does not heal": "does not heal", "harms": "harms"}
        parts = [
            f"{words[outcome]} {conjoined([_told(one, max_loss) for one in those])}"
            for outcome in words
            if (those := [one for one in mine if one.outcome == outcome])
        ]
        text = f"On data like yours {name} {conjoined(parts)}" if parts else ""
        if harmless := [one.manipulation for one in mine if one.outcome == "no damage"]:
            doing = f"{conjoined(harmless)} did no damage that shows, so there was nothing to heal"
            text = f"{text}; {doing}" if text else f"On data like yours {doing} for {name}"
            broken = [one for one in mine if one.outcome == "no damage" and _lost(one) > max_loss + 1e-9]
            if broken:
                costs = [f"{100 * _lost(one):.1f} points with {one.manipulation}" for one in broken]
                text += f"; {name} costs {conjoined(costs)} elsewhere nonetheless"
        found.append(f"{text}.")
    return found


def _lost(trial: Trial) -> float:
    """Return how much accuracy a method lost on samples that the manipulation isn't about."""
    return 0.0 if trial.retain is None or trial.retain_before is None else trial.retain_before - trial.retain


def _told(trial: Trial, max_loss: float) -> str:
    lost = _lost(trial)
    cost = f", at the cost of {100 * lost:.1f} points elsewhere" if lost > max_loss + 1e-9 else ""
    change = f"{trial.original.percent} → {trial.corrected.percent}"
    return f"{trial.manipulation} ({change}, gold {trial.gold.percent}{cost})"


class Shown(NamedTuple):
    """A calibration as texts, for a page or a terminal."""

    setting: str
    sentences: list[str]
    heading: tuple[str, ...]
    lines: list[tuple[str, ...]]
    remarks: list[str]


def shown_as(calibration: Calibration, max_loss: float) -> Shown:
    """Return a calibration as texts; what costs more than ``max_loss`` of retain accuracy is said to."""
    heading, *lines = rows_of(calibration)
    remarks = [f"There was no time to plant {', '.join(calibration.left_out)}."] if calibration.left_out else []
    remarks += [f"{where} gave no number: {reason}" for where, reason in calibration.failed.items()]
    remarks += [f"{name} doesn't fit these data: {reason}" for name, reason in calibration.unfit.items()]
    remarks += [f"The runs are in '{calibration.runs}'."] if calibration.runs else []
    return Shown(told_setting(calibration), sentences_of(calibration, max_loss), heading, lines, remarks)
