"""Accuracy on what was manipulated."""

from __future__ import annotations

import cutk


class ManipulatedTrainAccuracy(cutk.Metric):
    """Clean-label accuracy on S_m as it lies in the training set."""

    name = "manipulated_train_accuracy"
    reference = "Goel et al., TMLR 2024, appendix B.1"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the accuracy."""
        truth = evaluation.truth
        return cutk.accuracy(evaluation.manipulated_predictions, truth.clean_labels[truth.manipulated])


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``manipulated_train_accuracy``."""
    return [ManipulatedTrainAccuracy]
