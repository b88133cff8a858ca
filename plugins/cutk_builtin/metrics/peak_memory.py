"""What unlearning costs in memory."""

from __future__ import annotations

import cutk


class PeakMemory(cutk.Metric):
    """Most memory in use at once during prepare and unlearn, in MiB beyond what was in use before."""

    name = "peak_memory"
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the memory, None where it can't be told (see ``cutk.Cost``) and for models that are trained."""
        cost = evaluation.cost
        return None if cost is None or cost.peak_bytes is None else cost.peak_bytes / 2**20


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``peak_memory``."""
    return [PeakMemory]
