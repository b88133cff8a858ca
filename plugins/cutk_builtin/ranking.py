"""How well suspicion ranks the manipulated samples that nobody knew of: what the detection metrics share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import cutk


class Ranked(NamedTuple):
    """The samples of S_tr outside S_f."""

    suspicion: Tensor  # float32 [n]
    manipulated: Tensor  # bool [n]
    labels: Tensor  # int64 [n], as given


def ranked(evaluation: cutk.Evaluation) -> Ranked | None:
    """Return what was suspected of samples that nobody knew of; None if nothing was said, or nobody knew of any."""
    suspicion, identified = evaluation.suspicion, evaluation.identified
    if suspicion is None or identified is None:
        return None
    truth = evaluation.truth
    unknown = torch.ones(len(suspicion), dtype=torch.bool)
    unknown[identified.cpu()] = False
    manipulated = torch.zeros(len(suspicion), dtype=torch.bool)
    manipulated[truth.manipulated.cpu()] = True
    return Ranked(suspicion[unknown], manipulated[unknown], truth.train.labels.cpu()[unknown])


def precisions(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision and recall at each threshold, the highest first: float64 ``[t]`` each.

    Samples with equal scores are above a threshold together.

    Args:
        scores: float ``[n]``.
        positive: bool ``[n]``, some of them.
    """
    order = scores.argsort(descending=True, stable=True)
    ordered, hits = scores[order], positive[order].double().cumsum(0)
    last = torch.ones(len(scores), dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    count = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    return (hits / count)[last], (hits / hits[-1])[last]


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Return Σ (recallᵢ − recallᵢ₋₁) · precisionᵢ over thresholds; None without a positive or without a negative.

    >>> average_precision(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([True, False, True]))
    0.8333333333333333
    """
    if not _has_both(positive):
        return None
    precision, recall = precisions(scores, positive)
    return float((precision * torch.diff(recall, prepend=recall.new_zeros(1))).sum())


def area_under_roc(scores: Tensor, positive: Tensor) -> float | None:
    """Return how likely a positive scores higher than a negative, ties counting half; None as above.

    >>> area_under_roc(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]))
    0.875
    """
    if not _has_both(positive):
        return None
    _, which, counts = scores.unique(return_inverse=True, return_counts=True)
    below = counts.cumsum(0) - counts
    rank = (below + (counts + 1) / 2).double()[which]
    ours = int(positive.sum())
    return float((rank[positive].sum() - ours * (ours + 1) / 2) / (ours * (len(scores) - ours)))


def precision_at(scores: Tensor, positive: Tensor, count: int) -> float | None:
    """Return the share of positives among the ``count`` highest scores, None without a positive or a negative.

    Of samples that are equal with the last of them, as many count in parts as there is room for.

    >>> precision_at(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]), 2)
    0.75
    """
    if not _has_both(positive):
        return None
    least = scores.topk(count).values[-1]
    above, equal = scores > least, scores == least
    room = count - int(above.sum())
    return float((positive[above].sum() + room * positive[equal].double().mean()) / count)


def _has_both(positive: Tensor) -> bool:
    return 0 < int(positive.sum()) < len(positive)
