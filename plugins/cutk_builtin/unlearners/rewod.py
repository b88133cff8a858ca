"""Retraining without the deletion set."""

from __future__ import annotations

from typing import Any

from torch import nn

import cutk


class RewoD(cutk.Unlearner):
    r"""Retrains from scratch on S_tr without S_f, with A and the seeds of the original run.

    M_u = A(S_tr \\ S_f) (paper, appendix A.2 (1)). Exact where all that is manipulated is identified, and as costly as
    the original training.
    """

    name = "rewod"
    reference = "Goel et al., TMLR 2024, appendix A.2 (1)"

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the retrained model."""
        return task.retrain(task.retained)

    @classmethod
    def passes(cls, options: cutk.Options, sizes: cutk.Sizes) -> tuple[float, float]:
        """One training."""
        return 0.0, sizes.steps * sizes.batch_size / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``rewod``."""
    return [RewoD]
