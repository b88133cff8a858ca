"""How many of the first suspects are manipulated."""

from __future__ import annotations

import cutk
from cutk_builtin.ranking import precision_at, ranked


class DetectionPrecision(cutk.Metric):
    """Part of the first suspects that is manipulated, where as many are looked at as S_m has samples besides S_f.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_precision"
    reference = "Precision at |S_m|, which is recall there, too"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return it; None if the method suspects nobody, or all or none of the samples are manipulated."""
        found = ranked(evaluation)
        return None if found is None else precision_at(found.suspicion, found.manipulated, int(found.manipulated.sum()))


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_precision``."""
    return [DetectionPrecision]
