"""Accuracy inside the affected domain, class by class."""

from __future__ import annotations

from collections.abc import Mapping

import cutk


class AffectedClassAccuracy(cutk.Metric):
    """Clean-label accuracy on unseen samples of the affected domain, for each class that has some."""

    name = "affected_class_accuracy"
    reference = "Goel et al., TMLR 2024, appendix B.1"
    higher_is_better = True
    bounds = (0.0, 1.0)
    by_domain = True

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float]:
        """Return each class's accuracy by its name."""
        truth = evaluation.truth
        return cutk.class_accuracies(evaluation.affected_predictions, truth.affected.labels, truth.classes)


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``affected_class_accuracy``."""
    return [AffectedClassAccuracy]
