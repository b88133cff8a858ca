"""How often a backdoor opens."""

from __future__ import annotations

import cutk


class AttackSuccessRate(cutk.Metric):
    """Part of the triggered unseen samples of other classes that are predicted as the target class."""

    name = "attack_success_rate"
    reference = "Gu et al., BadNets, IEEE Access 2019"
    higher_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the rate, None for manipulations without a target class."""
        truth = evaluation.truth
        if truth.target is None:
            return None
        others = truth.affected.labels != truth.target
        hits = evaluation.affected_predictions[others] == truth.target
        return float(hits.double().mean()) if len(hits) else None


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``attack_success_rate``."""
    return [AttackSuccessRate]
