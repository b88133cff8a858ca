"""Accuracy outside the affected domain, class by class."""

from __future__ import annotations

from collections.abc import Mapping

import cutk


class RetainClassAccuracy(cutk.Metric):
    """Clean-label accuracy on unseen samples outside the affected domain, for each class that has some."""

    name = "retain_class_accuracy"
    reference = "Goel et al., TMLR 2024, section 2.2"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float]:
        """Return each class's accuracy by its name."""
        truth = evaluation.truth
        return cutk.class_accuracies(evaluation.retain_predictions, truth.retain.labels, truth.classes)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``retain_class_accuracy``."""
    return [RetainClassAccuracy]
