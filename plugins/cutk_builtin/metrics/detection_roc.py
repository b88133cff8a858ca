"""How well suspicion tells manipulated samples from clean ones."""

from __future__ import annotations

import cutk
from cutk_builtin.ranking import area_under_roc, ranked


class DetectionRoc(cutk.Metric):
    """Area under the ROC curve of what the method suspects, over the samples that nobody knew of; 0.5 by chance.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_roc"
    reference = "Hanley and McNeil, Radiology 1982"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return it; None if the method suspects nobody, or all or none of the samples are manipulated."""
        found = ranked(evaluation)
        return None if found is None else area_under_roc(found.suspicion, found.manipulated)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_roc``."""
    return [DetectionRoc]
