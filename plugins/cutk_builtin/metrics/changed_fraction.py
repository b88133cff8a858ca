"""How much of S_f is seen otherwise than before."""

from __future__ import annotations

import cutk


class ChangedFraction(cutk.Metric):
    """Part of S_f whose predicted class differs from the original model's."""

    name = "changed_fraction"
    reference = "Goel et al., TMLR 2024, section 3.2"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the fraction, None for models that saw no S_f."""
        now, before = evaluation.identified_predictions, evaluation.identified_before
        if now is None or before is None:
            return None
        same = cutk.accuracy(now, before)
        return None if same is None else 1 - same


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``changed_fraction``."""
    return [ChangedFraction]
