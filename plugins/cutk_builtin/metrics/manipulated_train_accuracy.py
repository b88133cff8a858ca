"""Accuracy on what was manipulated."""

from __future__ import annotations

import cutk


class ManipulatedTrainAccuracy(cutk.Metric):
    """Clean-label accuracy on S_m as it lies in the training set; samples without a clean label don't count."""

    name = "manipulated_train_accuracy"
    reference = "Goel et al., TMLR 2024, appendix B.1"
    higher_is_better = True
    bounds = (0.0, 1.0)
    by_domain = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the accuracy, None if no sample of S_m has a clean label."""
        clean = evaluation.truth.clean_labels[evaluation.truth.manipulated]
        known = clean >= 0
        return cutk.accuracy(evaluation.manipulated_predictions[known], clean[known])


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``manipulated_train_accuracy``."""
    return [ManipulatedTrainAccuracy]
