"""S_f with clean samples in it."""

from __future__ import annotations

import torch
from torch import Tensor

import cutk


def mixed(manipulated: Tensor, total: int, alpha: float, share: float, generator: torch.Generator) -> Tensor:
    """Draw ``k = round(alpha · n)`` of ``manipulated`` and so many others that they are ``share`` of all drawn.

    With a generator in the same state, a smaller α gives a subset of what a larger one gives.

    Args:
        manipulated: int64 ``[n]``.
        total: how many samples there are.
        alpha: the part of ``manipulated`` to draw.
        share: the part of the result that isn't from ``manipulated``, to the nearest sample; below 1.
        generator: a CPU generator.

    Returns:
        What was drawn, sorted.

    Raises:
        UsageError: if ``k`` is 0, or there aren't enough others.
    """
    count = round(alpha * len(manipulated))
    if count == 0:
        raise cutk.UsageError(f"Alpha {alpha:g} identifies none of the {len(manipulated)} manipulated samples.")
    clean = torch.ones(total, dtype=torch.bool)
    clean[manipulated] = False
    others = clean.nonzero().flatten()
    wrong = round(count * share / (1 - share))
    if wrong > len(others):
        raise cutk.UsageError(
            f"false-positives: expected at most the {len(others)} clean samples there are in S_f, got {wrong} at alpha "
            f"{alpha:g}. Lower false-positives.share."
        )
    right = manipulated[torch.randperm(len(manipulated), generator=generator)[:count]]
    return torch.cat([right, others[torch.randperm(len(others), generator=generator)[:wrong]]]).sort().values


class FalsePositives(cutk.Identification):
    """Finds manipulated samples uniformly, and takes clean ones for manipulated: a share of S_f is wrong.

    α is the part of S_m that is found, as ever, so S_f holds α · |S_m| manipulated samples and clean ones beside them:
    a detector with a recall of α and a precision of 1 − ``share``. Nested: what is in S_f at one α is in it at every
    larger one.
    """

    name = "false-positives"
    reference = "Goel et al., TMLR 2024, section 5"

    class Options(cutk.Options):
        """How often the detector is wrong."""

        share: float = cutk.option(0.2, ge=0, lt=1, help="part of S_f that is clean")

    def identify(self, truth: cutk.Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Draw S_f from S_m and from the clean samples."""
        return mixed(truth.manipulated, len(truth.train), alpha, self.options.share, generator)


@cutk.hookimpl
def cutk_identifications() -> list[type[cutk.Identification]]:
    """Provide ``false-positives``."""
    return [FalsePositives]
