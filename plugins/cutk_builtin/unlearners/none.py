"""No unlearning at all."""

from __future__ import annotations

from typing import Any

from torch import nn

import cutk


class NoUnlearning(cutk.Unlearner):
    """Returns the original model as it is: what every method has to beat. Costs nothing."""

    name = "none"
    reference = "Goel et al., TMLR 2024 (“None”)"

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return M_o."""
        return task.original

    @classmethod
    def passes(cls, options: cutk.Options, sizes: cutk.Sizes) -> tuple[float, float]:
        """No pass."""
        return 0.0, 0.0


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``none``."""
    return [NoUnlearning]
