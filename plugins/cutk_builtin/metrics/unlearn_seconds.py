"""How long unlearning takes."""

from __future__ import annotations

import cutk


class UnlearnSeconds(cutk.Metric):
    """Wall-clock seconds of prepare and unlearn, the device synchronised, evaluation excluded."""

    name = "unlearn_seconds"
    reference = "Goel et al., TMLR 2024, table 3"
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the seconds, None for models that are trained and not unlearned."""
        return None if evaluation.cost is None else evaluation.cost.seconds


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``unlearn_seconds``."""
    return [UnlearnSeconds]
