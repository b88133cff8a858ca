"""How much must be identified for a method to work."""

from __future__ import annotations

from collections.abc import Mapping

import cutk


def smallest_alpha(accuracy: Mapping[float, float], gold: float, part: float = 0.9) -> float | None:
    """Return the smallest α whose accuracy is at least ``part · gold``, or None if none is.

    >>> smallest_alpha({0.1: 0.5, 0.5: 0.9, 1.0: 0.8}, gold=0.95)
    0.5
    """
    return min((alpha for alpha, value in accuracy.items() if value >= part * gold), default=None)


class AlphaStar(cutk.Summary):
    """Smallest α of the plan at which corrected accuracy, averaged over seeds, is at least 0.9 of gold's."""

    name = "alpha_star"
    reference = "Goel et al., TMLR 2024, section 2.2"
    higher_is_better = False
    bounds = (0.0, 1.0)
    of = ("corrected_accuracy",)

    def summarise(self, curve: cutk.Curve) -> float | None:
        """Return α*, None if no α of the plan is enough."""
        return smallest_alpha(curve.values["corrected_accuracy"], curve.gold["corrected_accuracy"])


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``alpha_star``."""
    return [AlphaStar]
