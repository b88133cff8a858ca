"""Activation clustering: the smaller of two clusters in each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import cutk
from cutk_builtin.looking import class_by_class


def principal(features: Tensor, dimensions: int) -> Tensor:
    """Return the first principal components of features (float32 ``[n, d]``): float64 ``[n, dimensions]``, or fewer."""
    centred = features.double() - features.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    return (left * values)[:, :dimensions]


def two_means(points: Tensor, steps: int = 100) -> tuple[Tensor, Tensor]:
    """Return the distances of points (float64 ``[n, d]``) to two centres, ``[n, 2]``, and which is nearer, ``[n]``.

    Lloyd's algorithm, begun on both sides of the first coordinate, along which the points vary most.
    """
    first = points[:, 0]
    above = first > first.median()
    nearer = (above if above.any() else first >= first.median()).long()
    distances = torch.zeros(len(points), 2, dtype=points.dtype)
    for _ in range(steps):
        centres = [points[nearer == side] if (nearer == side).any() else points for side in (0, 1)]
        distances = torch.stack([(points - each.mean(0)).norm(dim=1) for each in centres], 1)
        now = distances.argmin(1)
        if torch.equal(now, nearer):
            break
        nearer = now
    return distances, nearer


class ActivationClustering(cutk.Detector):
    """Splits each class into two clusters by its features, and suspects one that is much smaller; looks at no S_f.

    Ten principal components stand for the independent components of the publication. A sample's suspicion is its
    distance to the larger cluster's centre, of the distances to both; where the clusters are about equal, half of it.
    Costs a forward pass.
    """

    name = "activation-clustering"
    reference = "Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering, 2018"
    probabilistic = False

    class Options(cutk.Options):
        """What is looked at, and what is small."""

        dimensions: int = cutk.option(10, ge=1, help="principal components that are clustered")
        smallest: float = cutk.option(0.35, gt=0, le=0.5, help="part of a class below which a cluster is suspect")

    def detect(self, task: cutk.Task) -> Tensor:
        """Return relative distances within the given labels; S_f itself is certain."""
        return class_by_class(task, self._of_class)

    def _of_class(self, features: Tensor) -> Tensor:
        distances, nearer = two_means(principal(features, self.options.dimensions))
        share = float(nearer.double().mean())
        small = int(share < 0.5)
        relative = distances[:, 1 - small] / distances.sum(1).clamp(min=1e-12)
        return relative * (1.0 if min(share, 1 - share) < self.options.smallest else 0.5)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``activation-clustering``."""
    return [ActivationClustering]
