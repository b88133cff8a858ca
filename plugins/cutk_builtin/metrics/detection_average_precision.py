"""How purely suspicion ranks what is manipulated."""

from __future__ import annotations

import cutk
from cutk_builtin.ranking import average_precision, ranked


class DetectionAveragePrecision(cutk.Metric):
    """Average precision of what the method suspects, over the samples that nobody knew of.

    By chance it is the part of them that is manipulated.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_average_precision"
    reference = "Davis and Goadrich, ICML 2006 (the curve), as a sum over thresholds without interpolation"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return it; None if the method suspects nobody, or all or none of the samples are manipulated."""
        found = ranked(evaluation)
        return None if found is None else average_precision(found.suspicion, found.manipulated)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_average_precision``."""
    return [DetectionAveragePrecision]
