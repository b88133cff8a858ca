"""Accuracy on what was manipulated, class by class."""

from __future__ import annotations

from collections.abc import Mapping

import cutk


class ManipulatedClassAccuracy(cutk.Metric):
    """Clean-label accuracy on S_m as it lies in the training set, for each clean class that has some."""

    name = "manipulated_class_accuracy"
    reference = "Goel et al., TMLR 2024, appendix B.1"
    higher_is_better = True
    bounds = (0.0, 1.0)
    by_domain = True

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float]:
        """Return each clean class's accuracy by its name."""
        truth = evaluation.truth
        clean = truth.clean_labels[truth.manipulated]
        known = clean >= 0
        return cutk.class_accuracies(evaluation.manipulated_predictions[known], clean[known], truth.classes)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``manipulated_class_accuracy``."""
    return [ManipulatedClassAccuracy]
