"""S_f drawn uniformly from S_m."""

from __future__ import annotations

import torch
from torch import Tensor

import cutk


def share_of(manipulated: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw ``round(alpha · n)`` of ``manipulated`` (int64 ``[n]``), uniformly; return them sorted.

    With a generator in the same state, a smaller α gives a subset of what a larger one gives.

    Raises:
        UsageError: if that is none.
    """
    count = round(alpha * len(manipulated))
    if count == 0:
        raise cutk.UsageError(
            f"Alpha {alpha:g} identifies none of the {len(manipulated)} manipulated samples; "
            f"use at least {1 / max(len(manipulated), 1):.3g}, or manipulate more."
        )
    order = torch.randperm(len(manipulated), generator=generator)
    return manipulated[order[:count]].sort().values


class Uniform(cutk.Identification):
    """Finds each manipulated sample with the same probability, and none that is clean.

    Nested: what is found at one α is found at every larger one, so that a curve against α varies less.
    """

    name = "uniform"
    reference = "Goel et al., TMLR 2024, section 2.2"

    def identify(self, truth: cutk.Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Draw S_f from S_m."""
        return share_of(truth.manipulated, alpha, generator)


@cutk.hookimpl
def cutk_identifications() -> list[type[cutk.Identification]]:
    """Provide ``uniform``."""
    return [Uniform]
