"""Accuracy everywhere else."""

from __future__ import annotations

import cutk


class RetainAccuracy(cutk.Metric):
    """Clean-label accuracy on unseen samples outside the affected domain D_m."""

    name = "retain_accuracy"
    reference = "Goel et al., TMLR 2024, equation 2"
    higher_is_better = True
    bounds = (0.0, 1.0)
    objective = "utility"

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return Acc_retain, None if every test sample is affected."""
        return cutk.accuracy(evaluation.retain_predictions, evaluation.truth.retain.labels)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``retain_accuracy``."""
    return [RetainAccuracy]
