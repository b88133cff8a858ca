"""Retraining without the deletion set."""

from __future__ import annotations

from typing import Any

from torch import nn

import cutk


class RewoD(cutk.Unlearner):
    r"""Retrains from scratch on S_tr without S_f, with A and the seeds of the original run.

    M_u = A(S_tr \ S_f) (paper, appendix A.2 (1)). Exact where all that is manipulated is identified, and as costly as
    the original training. With ``last_layers`` the last k layers alone are initialised and trained anew (EU-k of Goel
    et al., 2023). Costs as many passes as the training.
    """

    name = "rewod"
    reference = "Goel et al., TMLR 2024, appendix A.2 (1); Goel et al., 2023 (EU-k)"

    class Options(cutk.Options):
        """How deep."""

        last_layers: int | None = cutk.option(None, ge=1, help="retrain the last so many layers alone; none: all")

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the retrained model."""
        return task.retrain(task.retained, last_layers=self.options.last_layers)

    @classmethod
    def passes(cls, options: cutk.Options, sizes: cutk.Sizes) -> tuple[float, float]:
        """One training."""
        return 0.0, sizes.steps * sizes.batch_size / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``rewod``."""
    return [RewoD]
