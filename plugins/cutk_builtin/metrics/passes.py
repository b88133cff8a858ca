"""What unlearning costs in data."""

from __future__ import annotations

import cutk


class Passes(cutk.Metric):
    """Samples that prepare and unlearn drew from the training set, divided by its size."""

    name = "passes"
    reference = "Goel et al., TMLR 2024, appendix B.2 (cost, counted instead of timed)"
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the passes, None for models that are trained and not unlearned."""
        return None if evaluation.cost is None else evaluation.cost.passes


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``passes``."""
    return [Passes]
