"""Gradients like those of S_f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import cutk
from cutk_builtin.looking import outputs
from cutk_builtin.seeded import by_similarity, split


def similarity(
    features: Tensor, errors: Tensor, seed_features: Tensor, seed_errors: Tensor, *, own: bool = False
) -> Tensor:
    """Return each sample's mean cosine similarity to the seeds of last-layer gradients: float64 ``[n]``, on the CPU.

    The gradient of cross-entropy by the weights of a linear layer is the outer product of p − e_y and the features, and
    the cosine of two outer products is the product of the cosines.

    Args:
        features: float32 ``[n, d]``.
        errors: float32 ``[n, classes]``, p − e_y.
        seed_features: float32 ``[s, d]``.
        seed_errors: float32 ``[s, classes]``.
        own: whether the samples are the seeds, each of which is then compared with the others alone.
    """

    def cosine(one: Tensor, other: Tensor) -> Tensor:
        unit, others = (torch.nn.functional.normalize(each, dim=1) for each in (one, other))
        return unit @ others.T

    similar = cosine(features, seed_features) * cosine(errors, seed_errors)
    if own and len(similar) > 1:
        return ((similar.sum(1) - similar.diagonal()) / (len(similar) - 1)).cpu().double()
    return similar.mean(1).cpu().double()


class GradientSimilarity(cutk.Detector):
    """Suspects samples whose last-layer gradients point where those of S_f do, among those of the same given label.

    The cosine counterpart of TracIn at the last checkpoint, restricted to the last layer; the mean over S_f becomes a
    probability as the seeded probe's score does. Where the last layer works at several places or on several tokens, its
    input's mean over them stands for the features, and where it can't be watched the logits do. Costs a forward pass.
    """

    name = "gradient-similarity"
    reference = "Pruthi et al., NeurIPS 2020 (TracIn); Hammoudeh and Lowd, CCS 2022 (cosine)"

    def detect(self, task: cutk.Task) -> Tensor:
        """Return the posterior."""
        labels, known = task.train.labels.cpu(), task.identified.cpu()
        seen = outputs(task.original, task.recipe, task.train)
        errors = seen.logits.softmax(1).nan_to_num(0.0)
        errors[torch.arange(len(labels)), labels.to(errors.device)] -= 1
        scores = {}
        for label, (bad, unknown) in split(labels, known).items():
            seeds, rest = ((seen.features[i], errors[i]) for i in (bad.to(errors.device), unknown.to(errors.device)))
            scores[label] = similarity(*seeds, *seeds, own=True), similarity(*rest, *seeds), unknown
        return by_similarity(scores, labels, known).probability

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``gradient-similarity``."""
    return [GradientSimilarity]
