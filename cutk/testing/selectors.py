"""What is checked of a selector, on made-up scores."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

from cutk.components import Score
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check

__all__ = ["CHECKS", "SUBJECT", "TriedSelector"]

LEVELS = (0.0, 0.35, 1.0)
# What can't be measured where nothing is held out, or all of S_tr is identified.
MAY_LACK = ("validation_accuracy", "retained_accuracy")


class TriedSelector(Subject):
    """A selector and the scores that it ranks."""

    @cached_property
    def scores(self) -> list[Score]:
        """Every combination of a few values for what it measures."""
        names = self.component.measures
        return [
            Score(**dict(zip(names, levels, strict=True))) for levels in itertools.product(LEVELS, repeat=len(names))
        ]

    def work(self) -> tuple[list[Any], Any]:
        """Return the value of every score, and the choice among all of them."""
        selector = self.make()
        return [selector.value(score) for score in self.scores], selector.choose(self.scores)


def _require_number(value: object, score: Score) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unmet(f"of {score} it says {value!r}")


@check("Name in measures all that value() reads, and return a finite float.", essential=True)
def values_are_finite(subject: TriedSelector) -> None:
    """Given what it says that it measures, and nothing else, value() returns a finite number."""
    for value, score in zip(subject.first.result[0], subject.scores, strict=True):
        _require_number(value, score)


@check("Read score.validation_accuracy or 0.0: it is None without held-out samples, as others are where S_f is all.")
def missing_measurements_are_borne(subject: TriedSelector) -> None:
    """It copes with scores without a validation accuracy, or without retained samples."""
    for name in set(MAY_LACK) & set(subject.component.measures):
        for score in subject.scores:
            lacking = replace(score, **{name: None})
            _require_number(subject.make().value(lacking), lacking)


@check("Take out of measures what value() doesn't read, or read it: what is named there costs a pass each time.")
def every_measurement_counts(subject: TriedSelector) -> None:
    """Some values depend on each measurement that it asks for, and on none that it doesn't."""
    values = dict(zip(subject.scores, subject.first.result[0], strict=True))
    for name in subject.component.measures:
        if all(values[score] == values[replace(score, **{name: LEVELS[0]})] for score in subject.scores):
            raise Unmet(f"no value depends on '{name}'")
    for field in fields(Score):
        if field.name not in subject.component.measures and any(
            subject.make().value(replace(score, **{field.name: 0.7})) != values[score] for score in subject.scores
        ):
            raise Unmet(f"its values depend on '{field.name}', which measures doesn't name")


@check("Pass over None in choose(), return a position among all scores, and raise ValueError if none is left.")
def failed_points_are_passed_over(subject: TriedSelector) -> None:
    """choose() ignores points that failed, and says so if all of them did."""
    selector, low, high = subject.make(), subject.scores[0], subject.scores[-1]
    for scores, allowed in (((None, low, None, high), {1, 3}), ((None, None, high), {2}), ((low,), {0})):
        chosen = selector.choose(scores)
        if type(chosen) is not int or chosen not in allowed:
            raise Unmet(f"among {len(scores)} points, of which {scores.count(None)} failed, it chooses {chosen!r}")
    try:
        chosen = selector.choose((None, None))
    except ValueError:
        return
    raise Unmet(f"where all points failed it chooses {chosen!r}")


SUBJECT = TriedSelector
CHECKS = all_checks(globals())
