"""How much must be identified for a method to work."""

from __future__ import annotations

from collections.abc import Mapping

import cutk

PART = 0.9


def smallest_alpha(accuracy: Mapping[float, float], gold: float, part: float = PART) -> float | None:
    """Return the smallest α from which on the accuracy stays at ``part · gold`` or above, or None if there is none.

    >>> smallest_alpha({0.1: 0.9, 0.5: 0.8, 0.8: 0.9, 1.0: 0.95}, gold=0.95)
    0.8
    """
    reached = None
    for alpha in sorted(accuracy, reverse=True):
        if accuracy[alpha] < part * gold:
            break
        reached = alpha
    return reached


class AlphaStar(cutk.Summary):
    """Smallest α of the plan from which on corrected accuracy is at least 0.9 of gold's, for it and every larger α."""

    name = "alpha_star"
    reference = "Goel et al., TMLR 2024, section 2.2"
    higher_is_better = False
    bounds = (0.0, 1.0)
    of = ("corrected_accuracy",)

    def summarise(self, curve: cutk.Curve) -> float | None:
        """Return α*; None if no α of the plan is enough, or if the original is good enough: nothing was to correct."""
        (metric,) = self.of
        if metric not in curve.gold or metric not in curve.values:
            return None
        gold = curve.gold[metric]
        if curve.original.get(metric, 0.0) >= PART * gold:
            return None
        return smallest_alpha(curve.values[metric], gold)


@cutk.hookimpl
def cutk_summaries() -> list[type[cutk.Summary]]:
    """Provide ``alpha_star``."""
    return [AlphaStar]
