"""Accuracy where the manipulation does its damage."""

from __future__ import annotations

import cutk


class CorrectedAccuracy(cutk.Metric):
    """Clean-label accuracy on unseen samples of the affected domain D_m."""

    name = "corrected_accuracy"
    reference = "Goel et al., TMLR 2024, equation 1"
    higher_is_better = True
    bounds = (0.0, 1.0)
    objective = "unlearning"
    by_domain = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return Acc_corr."""
        return cutk.accuracy(evaluation.affected_predictions, evaluation.truth.affected.labels)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``corrected_accuracy``."""
    return [CorrectedAccuracy]
