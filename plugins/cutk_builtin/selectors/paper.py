"""The paper's rule."""

from __future__ import annotations

import cutk


class Paper(cutk.Selector):
    """½ · validation accuracy + ½ · the part of S_f that is predicted otherwise than before.

    Without held-out samples S_f decides alone. The second term takes it for good when the original's prediction on an
    identified sample changes, which it is where labels were manipulated, and isn't where they were right.
    """

    name = "paper"
    reference = "Goel et al., TMLR 2024, section 3.2"
    measures = ("validation_accuracy", "changed_fraction")
    assumes_wrong_labels = True

    def value(self, score: cutk.Score) -> float:
        """Return the rule's value, 0 to 1."""
        return 0.5 * (score.validation_accuracy or 0.0) + 0.5 * (score.changed_fraction or 0.0)


@cutk.hookimpl
def cutk_selectors() -> list[type[cutk.Selector]]:
    """Provide ``paper``."""
    return [Paper]
