"""Precision against recall of what is suspected."""

from __future__ import annotations

from collections.abc import Mapping

import cutk
from cutk_builtin.ranking import precisions, ranked

RECALLS = tuple(part / 20 for part in range(1, 21))


class DetectionPrecisionAtRecall(cutk.Metric):
    """Precision of what the method suspects at recalls of 0.05 to 1 or beyond, over the samples that nobody knew of.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_precision_at_recall"
    reference = "Davis and Goadrich, ICML 2006"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float] | None:
        """Return the highest precision at each recall or a higher one; None if the method suspects nobody."""
        found = ranked(evaluation)
        if found is None or not found.manipulated.any():
            return None
        precision, recall = precisions(found.suspicion, found.manipulated)
        best = precision.flip(0).cummax(0).values.flip(0)
        return {f"{at:g}": float(best[int((recall < at - 1e-9).sum())]) for at in RECALLS}


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_precision_at_recall``."""
    return [DetectionPrecisionAtRecall]
