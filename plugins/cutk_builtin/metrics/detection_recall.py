"""How much of what is manipulated is taken for it."""

from __future__ import annotations

import cutk
from cutk_builtin.ranking import ranked


class DetectionRecall(cutk.Metric):
    """Part of the manipulated samples that nobody knew of, that the method suspects: above one half.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_recall"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return it; None if the method suspects nobody, or all manipulated samples were known."""
        found = ranked(evaluation)
        if found is None or not found.manipulated.any():
            return None
        return float((found.suspicion[found.manipulated] > 0.5).double().mean())


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_recall``."""
    return [DetectionRecall]
