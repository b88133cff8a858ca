"""How much of the damage is healed, over all identified fractions."""

from collections.abc import Mapping
from statistics import fmean

import cutk


def healed(accuracy: Mapping[float, float], original: float, gold: float) -> float | None:
    """Return the mean over α of (accuracy − original) / (gold − original), each part within 0 and 1.

    None where the manipulation did no damage, so that there is nothing to heal.

    >>> healed({0.1: 0.3, 1.0: 0.9}, original=0.1, gold=0.9)
    0.625
    """
    damage = gold - original
    if damage <= 0:
        return None
    return fmean(min(max((value - original) / damage, 0.0), 1.0) for value in accuracy.values())


class Healing(cutk.Summary):
    """Part of the way from the original's corrected accuracy to gold's that a method goes, averaged over α."""

    name = "healing"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of = ("corrected_accuracy",)

    def summarise(self, curve: cutk.Curve) -> float | None:
        """Return the part, None where there is no damage."""
        (name,) = self.of
        return healed(curve.values[name], curve.original[name], curve.gold[name])


@cutk.hookimpl
def cutk_summaries() -> list[type[cutk.Summary]]:
    """Provide ``healing``."""
    return [Healing]
