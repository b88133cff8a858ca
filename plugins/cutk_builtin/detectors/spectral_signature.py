"""Spectral signatures: what sticks out along the main direction of its class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import cutk
from cutk_builtin.looking import class_by_class


def outlyingness(features: Tensor) -> Tensor:
    """Return the squared projections of centred ``features`` on their first right singular vector: float64 ``[n]``."""
    centred = features.double() - features.double().mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return (centred @ directions[0]).square()


def by_rank(scores: Tensor, part: float) -> Tensor:
    """Return values from 0 to 1 in the order of ``scores``, above 0.5 for the largest ``part`` of them alone.

    Equal scores share their mean rank.

    >>> [round(value, 3) for value in by_rank(torch.tensor([0.0, 3.0, 1.0, 2.0]), 0.25).tolist()]
    [0.0, 1.0, 0.25, 0.5]
    """
    count = len(scores)
    suspects = min(count, round(part * count))
    _, which, ties = scores.unique(return_inverse=True, return_counts=True)
    rank = (ties.cumsum(0) - (ties + 1) / 2)[which].float()
    below, above = rank / max(1, count - suspects - 1) / 2, (rank - (count - suspects) + 1) / max(1, suspects) / 2 + 0.5
    return torch.where(rank < count - suspects, below, above).clamp(0, 1)


class SpectralSignature(cutk.Detector):
    """Suspects in each class what projects farthest on the main direction of its features; looks at no S_f.

    The largest 1.5 · ε of each class, as published, are above one half. So all classes are suspected alike, and where
    few of them have bad samples precision over all samples is low however well these are ranked within their class.
    Costs a forward pass.
    """

    name = "spectral-signature"
    reference = "Tran, Li, Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018, algorithm 1"
    probabilistic = False

    class Options(cutk.Options):
        """How many it expects."""

        fraction: float = cutk.option(0.1, gt=0, le=0.5, help="ε: the largest part of a class that may be manipulated")

    def detect(self, task: cutk.Task) -> Tensor:
        """Return ranks within the given labels; S_f itself is certain."""
        return class_by_class(task, lambda features: by_rank(outlyingness(features), 1.5 * self.options.fraction))

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``spectral-signature``."""
    return [SpectralSignature]
