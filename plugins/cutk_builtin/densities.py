"""Scores of the bad and of the clean as two normal densities: how they are fitted, and what they say of a sample.

Scores of one label's samples are few numbers; they are compared on the CPU, in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# How many scores a density's spread is taken from beside its own where it is estimated: for very few known samples.
BORROWED = 3.0
LARGEST_PRIOR = 0.95
# What was found weighs as much as so many known ones at most: it helps where few are known, and can't outvote many.
FOUND = 5.0


class Normal(NamedTuple):
    """A normal density."""

    mean: float
    std: float

    def log_density(self, values: Tensor) -> Tensor:
        """Return its logarithm at ``values``, up to a constant that all of them share."""
        return -0.5 * ((values - self.mean) / self.std) ** 2 - math.log(self.std)


def normal_of(scores: Tensor, weights: Tensor | None = None, borrowed: float = BORROWED) -> Normal:
    """Return the normal density of standardised ``scores``, float64 ``[n]``, each of them weighing as ``weights`` say.

    Its variance is estimated as if there were ``borrowed`` scores more, as far from the mean as all of them are.
    """
    weights = torch.ones_like(scores) if weights is None else weights
    total = float(weights.sum())
    mean = float((weights * scores).sum()) / max(total, 1e-12)
    squares = float((weights * (scores - mean).square()).sum())
    return Normal(mean, max(math.sqrt((squares + borrowed) / (total + borrowed)), 1e-3))


def at_most(weights: Tensor, total: float) -> Tensor:
    """Return ``weights``, float ``[n]``, scaled down so that their sum is no larger than ``total``."""
    return weights * min(1.0, total / max(float(weights.sum()), 1e-12))


class Mixture(NamedTuple):
    """Two normal densities, and the share of the bad."""

    share: float
    bad: Normal
    clean: Normal


def mixed(scores: Tensor, bad: Tensor, clean: Tensor, *, free: bool, share: float = 0.2, steps: int = 300) -> Mixture:
    """Take unlabelled ``scores`` (float64 ``[n]``) for a mixture of the bad and the clean, by expectation maximisation.

    Args:
        scores: standardised.
        bad: scores of known bad samples, float64 ``[b]``, b ≥ 1.
        clean: scores of known clean ones, float64 ``[c]``, or none.
        free: whether the known ones are only the first guess of the densities, and then count among the others, the
            density of the bad counting at most ``FOUND`` of those; otherwise the known ones alone give the density of
            the bad, and of the clean if there are any.
        share: the first guess.
        steps: of expectation maximisation.
    """
    found = Mixture(share, normal_of(bad), normal_of(clean) if len(clean) else normal_of(scores))
    every = torch.cat([scores, bad, clean])
    known_bad, known_clean = torch.ones_like(bad), torch.ones_like(clean)
    for _ in range(steps):
        odds = math.log(found.share / (1 - found.share))
        q = torch.sigmoid(odds + found.bad.log_density(scores) - found.clean.log_density(scores))
        dense, rest = found.bad, found.clean
        if free:
            dense = normal_of(every, torch.cat([at_most(q, FOUND), known_bad, 0 * known_clean]), 1.0)
        if free or len(clean) == 0:
            rest = normal_of(every, torch.cat([1 - q, 0 * known_bad, known_clean]), 1.0)
            # What is clean scores lower, whatever the scores look like.
            rest = Normal(min(rest.mean, dense.mean), rest.std)
        found = Mixture(min(max(float(q.mean()), 1e-4), LARGEST_PRIOR), dense, rest)
    return found


def log_odds(scores: Tensor, bad: Normal, clean: Normal) -> Tensor:
    """Return the logarithm of how many times likelier the bad have each score: float64 ``[n]``, rising with the score.

    The wider of two normal densities wins at both ends. Beyond the extremum, which lies outside their means as long as
    the bad have the higher one, the odds stay what they are there.

    >>> odds = log_odds(torch.tensor([-9.0, -1.0, 3.0]), Normal(2.0, 2.0), Normal(0.0, 1.0))
    >>> [round(each, 3) for each in odds.tolist()]
    [-1.36, -1.36, 3.682]
    """
    curvature = 1 / bad.std**2 - 1 / clean.std**2
    if curvature:
        extremum = (bad.mean / bad.std**2 - clean.mean / clean.std**2) / curvature
        scores = scores.clamp(max=extremum) if curvature > 0 else scores.clamp(min=extremum)
    return bad.log_density(scores) - clean.log_density(scores)
