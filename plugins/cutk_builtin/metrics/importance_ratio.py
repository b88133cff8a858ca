"""How unevenly parameters matter for S_f."""

from __future__ import annotations

from collections.abc import Mapping

import cutk


class ImportanceRatio(cutk.Metric):
    """Numbers of parameters by their importance ratio I_f / I_r, for unlearners that log it; labels are lower edges.

    The last bin is open and holds the parameters that matter for S_f alone.
    """

    name = "importance_ratio"
    reference = "Goel et al., TMLR 2024, figure 3"
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def compute(self, evaluation: cutk.Evaluation) -> Mapping[str, float] | None:
        """Return the counts by the bins' lower edges, None for models whose unlearner measures no importance."""
        scalars = evaluation.scalars
        if "importance_ratio_counts" not in scalars:
            return None
        edges, counts = scalars["importance_ratio_edges"], scalars["importance_ratio_counts"]
        return {f"{edge:.4g}": n for edge, n in zip(edges, counts, strict=True) if edge is not None and n is not None}


@cutk.hookimpl
def cutk_metrics() -> list[type[cutk.Metric]]:
    """Provide ``importance_ratio``."""
    return [ImportanceRatio]
