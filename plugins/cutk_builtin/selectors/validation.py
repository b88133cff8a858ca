"""Held-out samples decide alone."""

from __future__ import annotations

import cutk


class Validation(cutk.Selector):
    """Accuracy on held-out samples, which sees no damage that is confined to the trigger.

    Without held-out samples every candidate is worth the same, and the first one is taken.
    """

    name = "validation"
    measures = ("validation_accuracy",)

    def value(self, score: cutk.Score) -> float:
        """Return the accuracy, 0 to 1."""
        return score.validation_accuracy or 0.0


@cutk.hookimpl
def cutk_selectors() -> list[type[cutk.Selector]]:
    """Provide ``validation``."""
    return [Validation]
