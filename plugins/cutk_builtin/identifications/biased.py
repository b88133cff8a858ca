"""S_f that doesn't represent S_m."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import cutk


def class_by_class(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Order samples so that all of one class come before any of the next, both classes and samples at random.

    Args:
        labels: int64 ``[n]``.
        generator: a CPU generator.

    Returns:
        int64 ``[n]``: positions in ``labels``.
    """
    order = torch.randperm(len(labels), generator=generator)
    found, position = torch.unique(labels, return_inverse=True)
    rank = torch.randperm(len(found), generator=generator)[position]
    return order[torch.sort(rank[order], stable=True).indices]


def distances(samples: cutk.TrainSet) -> Tensor:
    """Return how far each sample lies from the mean of all that carry its label: float64 ``[N]``, Euclidean.

    Samples are what a model is given: normalised, with their triggers, unaugmented.
    """
    size = len(samples)
    sums: Tensor = torch.zeros(0)
    for batch in samples.batches():
        x = batch.x.cpu().double().flatten(1)
        if not len(sums):
            sums = torch.zeros(samples.num_classes, x.shape[1], dtype=torch.float64)
        sums.index_add_(0, batch.y.cpu(), x)
    counts = torch.bincount(samples.labels, minlength=samples.num_classes)
    centres = sums / counts.clamp(min=1)[:, None]
    result = torch.zeros(size, dtype=torch.float64)
    for batch in samples.batches():
        result[batch.index.cpu()] = (batch.x.cpu().double().flatten(1) - centres[batch.y.cpu()]).norm(dim=1)
    return result


class Biased(cutk.Identification):
    """Finds what is easy to find first, so that S_f doesn't represent S_m.

    ``class``: manipulated samples of one clean class are found before any of the next, in an order of classes that the
    seed draws. ``ease``: samples are found in the order of their distance in input space from the mean of all training
    samples that carry their given label, the farthest first, since they look least like what they are said to be.
    Either way ``round(α · |S_m|)`` samples are found, and those of one α are among those of every larger one.
    """

    name = "biased"
    reference = "Goel et al., TMLR 2024, section 5 (what a representative set has to be)"

    class Options(cutk.Options):
        """What makes a sample easy to find."""

        by: Literal["class", "ease"] = cutk.option("class", help="found first: one class, or what looks odd")

    def identify(self, truth: cutk.Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Take the first of S_m."""
        count = round(alpha * len(truth.manipulated))
        if count == 0:
            raise cutk.UsageError(
                f"Alpha {alpha:g} identifies none of the {len(truth.manipulated)} manipulated samples."
            )
        if self.options.by == "class":
            order = class_by_class(truth.clean_labels[truth.manipulated], generator)
        elif truth.samples.form == "tokens":
            raise cutk.UsageError("biased: by=ease needs images or features, between which distances mean something.")
        else:
            order = distances(truth.train)[truth.manipulated].argsort(descending=True, stable=True)
        return truth.manipulated[order[:count]].sort().values


@cutk.hookimpl
def cutk_identifications() -> list[type[cutk.Identification]]:
    """Provide ``biased``."""
    return [Biased]
