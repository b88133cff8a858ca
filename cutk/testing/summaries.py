"""What is checked of a summary, on made-up curves against α."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cutk.problem.truth import Curve
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check
from cutk.testing.metrics import require_numbers

__all__ = ["CHECKS", "SUBJECT", "TriedSummary"]

ALPHAS = (0.1, 0.5, 1.0)
COURSES = {
    "an unlearner that gets there": (0.2, 0.6, 0.95),
    "an unlearner that never does": (0.1, 0.1, 0.1),
    "an unlearner that is there at once": (0.95, 0.95, 0.95),
    "an unlearner that gets worse": (0.9, 0.4, 0.0),
    "an unlearner at a single α": (0.5,),
}


class TriedSummary(Subject):
    """A summary, and what it says of made-up curves."""

    def curve(self, course: str, original: float = 0.1) -> Curve:
        """Return a curve that has values for the metrics in ``of``, and for no others; its two seeds are alike."""
        values = dict(zip(ALPHAS, COURSES[course], strict=False))
        names = self.component.of

        def alone() -> Curve:
            ends = dict.fromkeys(names, 0.95), dict.fromkeys(names, original)
            return Curve({name: dict(values) for name in names}, *ends)

        mean = alone()
        return Curve(mean.values, mean.gold, mean.original, seeds=(alone(), alone()))

    def work(self) -> dict[str, Any]:
        """Summarise each curve, and one where the original is as good as gold: nothing was to be corrected."""
        found = {course: self.make().summarise(self.curve(course)) for course in COURSES}
        return {**found, "a harmless manipulation": self.make().summarise(self.curve(next(iter(COURSES)), 0.95))}


@check("Name in of every metric that summarise() reads; a curve may have a single α.", essential=True)
def curves_have_a_value(subject: TriedSummary) -> None:
    """It can be computed from the metrics that it names, whatever course they take."""
    if not subject.component.of:
        raise Unmet("it names no metric that it is computed from")
    _ = subject.first


@check("Return a float within bounds, and None where the curve never gets there.")
def values_are_within_bounds(subject: TriedSummary) -> None:
    """Of whatever curve, it says a finite number within its bounds, or None."""
    for course, value in subject.first.result.items():
        if value is not None:
            require_numbers({"": value}, subject.component.bounds, course)


@check("Work on copies: other summaries read the same curve.")
def curve_is_untouched(subject: TriedSummary) -> None:
    """The curve is as it was."""
    for course in COURSES:
        curve = subject.curve(course)
        before = deepcopy(curve)
        subject.make().summarise(curve)
        if curve != before:
            raise Unmet(f"it changes the curve of {course}")


SUBJECT = TriedSummary
CHECKS = all_checks(globals())
