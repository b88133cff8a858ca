"""How often a backdoor opens."""

from __future__ import annotations

import cutk


class AttackSuccessRate(cutk.Metric):
    """Part of the unseen affected samples that are predicted as the class that the attack wants instead of theirs."""

    name = "attack_success_rate"
    reference = "Gu et al., BadNets, IEEE Access 2019"
    higher_is_better = False
    bounds = (0.0, 1.0)
    by_domain = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return the rate, None for manipulations that want no class of anyone.

        Samples that are of the wanted class anyway don't count.
        """
        truth = evaluation.truth
        aimed = (truth.targets >= 0) & (truth.targets != truth.affected.labels)
        return cutk.accuracy(evaluation.affected_predictions[aimed], truth.targets[aimed])


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``attack_success_rate``."""
    return [AttackSuccessRate]
