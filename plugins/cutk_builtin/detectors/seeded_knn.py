"""Nearest neighbours in S_f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import cutk
from cutk_builtin.looking import outputs
from cutk_builtin.seeded import by_similarity, split


def nearness(features: Tensor, seeds: Tensor, k: int, *, own: bool = False) -> Tensor:
    """Return each sample's mean cosine similarity to the ``k`` most similar seeds: float64 ``[n]``, on the CPU.

    Args:
        features: float32 ``[n, d]``.
        seeds: float32 ``[s, d]``.
        k: how many; all if there are fewer.
        own: whether ``features`` are the seeds, each of which is then compared with the others alone; one alone is
            as near as can be.
    """
    unit, other = (torch.nn.functional.normalize(each, dim=1) for each in (features, seeds))
    similar = unit @ other.T
    if own:
        if len(seeds) == 1:
            return torch.ones(1, dtype=torch.float64)
        similar.fill_diagonal_(-torch.inf)
    k = min(k, len(seeds) - own)
    return similar.topk(k, dim=1).values.mean(1).cpu().double()


class SeededKnn(cutk.Detector):
    """Suspects what lies near S_f, among the samples of the same given label.

    The score is the mean cosine similarity of features to the k most similar samples of S_f; it becomes a probability
    as that of the seeded probe does. Costs a forward pass.
    """

    name = "seeded-knn"
    reference = "cutk; k nearest neighbours in features as Bahri et al., ICML 2020, who look at their labels instead"

    class Options(cutk.Options):
        """How many neighbours count."""

        k: int = cutk.option(5, ge=1, help="neighbours in S_f")

    def detect(self, task: cutk.Task) -> Tensor:
        """Return the posterior."""
        labels, known = task.train.labels.cpu(), task.identified.cpu()
        features = outputs(task.original, task.recipe, task.train).features
        scores = {}
        for label, (bad, unknown) in split(labels, known).items():
            seeds, rest = (features[each.to(features.device)] for each in (bad, unknown))
            k = self.options.k
            scores[label] = nearness(seeds, seeds, k, own=True), nearness(rest, seeds, k), unknown
        return by_similarity(scores, labels, known).probability

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``seeded-knn``."""
    return [SeededKnn]
