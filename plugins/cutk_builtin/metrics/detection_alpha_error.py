"""How far off the method is about how much is known."""

from __future__ import annotations

import cutk
from cutk_builtin.ranking import ranked


class DetectionAlphaError(cutk.Metric):
    """How far from α is what the method takes it for: |S_f| / (|S_f| + Σ P(manipulated) of the others).

    Of methods that suspect samples by probabilities (``seal``, a seeded detector). What is in S_f counts as known.
    """

    name = "detection_alpha_error"
    higher_is_better = False
    bounds = (0.0, 1.0)
    of_suspicion = True

    def compute(self, evaluation: cutk.Evaluation) -> float | None:
        """Return it, from 0 to 1; None if the method gives no probabilities, or nothing is manipulated."""
        found, identified = ranked(evaluation), evaluation.identified
        nothing = len(evaluation.truth.manipulated) == 0 or not evaluation.probabilistic
        if found is None or identified is None or nothing:
            return None
        known = len(identified)
        among = float(found.manipulated.sum())
        return abs(known / (known + float(found.suspicion.double().sum())) - known / (known + among))


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``detection_alpha_error``."""
    return [DetectionAlphaError]
