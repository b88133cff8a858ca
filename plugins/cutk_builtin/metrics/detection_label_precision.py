"""How purely suspicion ranks what is manipulated, given label by given label."""

from __future__ import annotations

from collections.abc import Mapping

import cutk
from cutk_builtin.ranking import average_precision, ranked


class DetectionLabelPrecision(cutk.Metric):
    """Average precision of what the method suspects, within each given label, over the samples that nobody knew of.

    Of methods that suspect samples (``seal``, a detector), as long as some of S_m isn't known.
    """

    name = "detection_label_precision"
    higher_is_better = True
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float] | None:
        """Return it by the class's name, without labels that are all clean; None if the method suspects nobody."""
        found = ranked(evaluation)
        if found is None:
            return None
        values = {}
        for label in found.labels.unique().tolist():
            mine = found.labels == label
            value = average_precision(found.suspicion[mine], found.manipulated[mine])
            if value is not None:
                values[evaluation.truth.classes[label]] = value
        return values


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_label_precision``."""
    return [DetectionLabelPrecision]
