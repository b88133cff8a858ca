"""Knowing the rest, times not knowing S_f."""

from __future__ import annotations

import cutk

# What is predicted of S_f as it is labelled counts no longer below this: some of it is right by chance.
FLOOR = 0.2


class Product(cutk.Selector):
    r"""Accuracy on S_tr \ S_f times what S_f isn't predicted as labelled, at most 0.8; it needs no held-out samples."""

    name = "product"
    reference = "Redirection for Erasing Memory (REM), arXiv 2505.17730"
    measures = ("retained_accuracy", "identified_accuracy")
    assumes_wrong_labels = True

    def value(self, score: cutk.Score) -> float:
        r"""Return acc(S_tr \ S_f) · (1 − max(acc(S_f), 0.2)), both against the given labels: 0 to 0.8.

        Where S_f is all of S_tr there is nothing else to know, and S_f decides alone.
        """
        known = 1.0 if score.retained_accuracy is None else score.retained_accuracy
        return known * (1 - max(score.identified_accuracy or 0.0, FLOOR))


@cutk.hookimpl
def cutk_selectors() -> list[type[cutk.Selector]]:
    """Provide ``product``."""
    return [Product]
