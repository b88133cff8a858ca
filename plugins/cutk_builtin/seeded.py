"""From a few known bad samples to the probability that each other one is bad: the mathematics of the seeded probe.

Scores of one label's samples are few numbers; they are compared on the CPU, in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

import cutk

# So many samples known to have another class make up for the unlabelled rest as examples of a clean label.
ENOUGH = 10
FOLDS = 5
# How many scores of the other kind a normal density's spread is taken from, beside its own: for very few known samples.
BORROWED = 3.0
LARGEST_PRIOR = 0.95


class Outputs(NamedTuple):
    """What a model says of the training samples, on its device."""

    features: Tensor  # float32 [N, d], what its last layer is given
    logits: Tensor  # float32 [N, classes]


class Normal(NamedTuple):
    """A normal density."""

    mean: float
    std: float

    def log_density(self, values: Tensor) -> Tensor:
        """Return its logarithm at ``values``, up to a constant that all of them share."""
        return -0.5 * ((values - self.mean) / self.std) ** 2 - math.log(self.std)


class Posterior(NamedTuple):
    """Who is bad, as far as the known ones tell."""

    probability: Tensor  # float32 [N], on the CPU; 1 for the known ones, 0 for labels that none of them has
    alpha: float  # the part of the bad ones that is known
    priors: dict[int, float]  # for each label of known ones, the part of its other samples that is bad


@torch.no_grad()
def outputs(model: nn.Module, recipe: cutk.Recipe, train: cutk.TrainSet) -> Outputs:
    """Return what ``model`` says of unaugmented samples; where its last layer can't be watched, logits are features."""
    seen: list[Tensor] = []
    features, logits = [], []
    classifier = _classifier(model)
    handle = None
    if classifier is not None:
        handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[:1]))
    model.eval()
    try:
        for batch in train.batches():
            seen.clear()
            with recipe.autocast():
                given = model(batch.x).float()
            logits.append(given)
            features.append(_flat(seen[-1], given))
    except IndexError:
        features = logits
    finally:
        if handle is not None:
            handle.remove()
    return Outputs(torch.cat(features if len(features) == len(logits) else logits), torch.cat(logits))


def _classifier(model: nn.Module) -> nn.Module | None:
    """Return the last module with a weight matrix, if there is one."""
    try:
        last = cutk.last_layers(model, 1)
    except cutk.CellError:
        return None
    weighted = [m for m in last if any(p.ndim >= 2 for p in m.parameters(recurse=False))]
    return weighted[0] if weighted and not isinstance(weighted[0], nn.Embedding) else None


def _flat(given: Tensor, logits: Tensor) -> Tensor:
    """Return a layer's input as float32 ``[B, d]``: averaged over places (a convolution's) or tokens."""
    if given.ndim < 2 or len(given) != len(logits) or not given.is_floating_point():
        raise IndexError
    if given.ndim == 3:
        given = given.mean(1)
    return given.float().flatten(2).mean(2) if given.ndim > 3 else given.float()


def standardised(features: Tensor) -> Tensor:
    """Return ``features`` (float32 ``[n, d]``) with mean 0 and variance 1 in each column; constant ones become 0."""
    finite = features.nan_to_num(0.0, 0.0, 0.0)
    centred = finite - finite.mean(0)
    spread = centred.square().mean(0).sqrt()
    scale = finite.abs().mean(0)
    varies = spread > 1e-6 * (scale + 1e-12)
    return torch.where(varies, centred / torch.where(varies, spread, torch.ones_like(spread)), 0.0)


def alternatives(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each sample's likeliest class but the given one: int64 ``[n]``, of logits ``[n, classes]``."""
    return logits.scatter(1, labels[:, None], -math.inf).argmax(1)


def transition(alternative: Tensor, labels: Tensor, num_classes: int, threshold: float = 0.7) -> Tensor:
    """Return W: which class a known bad sample with given label y has instead, float32 ``[classes, classes]``.

    Row y weighs the classes by how often each is the alternative among the known ones with that label, divided by the
    largest share, where one class holds more than ``threshold`` of them; elsewhere each class but y weighs 1. Two
    more samples are counted for no class, so that one or two known ones settle nothing.

    Args:
        alternative: int64 ``[n]``, of the known ones.
        labels: int64 ``[n]``, their given labels.
        num_classes: how many classes there are.
        threshold: the share of the most frequent class from which the shares are trusted.
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    counts.index_put_((labels.cpu(), alternative.cpu()), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    largest = counts.max(1, keepdim=True).values
    settled = largest > threshold * (counts.sum(1, keepdim=True) + 2)
    every = 1 - torch.eye(num_classes, dtype=torch.float64)
    return torch.where(settled, counts / largest.clamp(min=1), every).float()


def probe(
    features: Tensor, positive: Tensor, negative: Tensor, generator: torch.Generator, penalty: float = 0.01
) -> Tensor:
    """Score samples by logistic regression, each by a model that hasn't been fitted to it: float64 ``[n]``, on the CPU.

    The two kinds weigh the same, however many there are; ``penalty`` / 2 · ‖w‖² is added to the mean loss. Where there
    is a single sample of a kind, it is fitted to as well.

    Args:
        features: float32 ``[n, d]``, standardised.
        positive: bool ``[n]``, at least one.
        negative: bool ``[n]``, at least one; samples of neither kind are scored alone.
        generator: draws the folds, on the CPU.
        penalty: > 0.
    """
    device, count = features.device, len(features)
    folds = max(1, min(FOLDS, int(positive.sum()), int(negative.sum())))
    fold = torch.zeros(count, dtype=torch.int64)
    for kind in (positive, negative, ~(positive | negative)):
        size = int(kind.sum())
        fold[kind.cpu()] = torch.randperm(size, generator=generator) % folds
    others = torch.arange(folds)[None] != fold[:, None] if folds > 1 else torch.ones(count, 1, dtype=torch.bool)
    weight = torch.zeros(count, folds)
    for kind in (positive.cpu(), negative.cpu()):
        mine = (kind[:, None] & others).float()
        weight += mine / mine.sum(0) / 2
    weight = weight.to(device)
    sign = torch.where(positive, 1.0, -1.0).to(device)[:, None]
    with torch.enable_grad():
        w = torch.zeros(features.shape[1], folds, device=device, requires_grad=True)
        b = torch.zeros(folds, device=device, requires_grad=True)
        optimiser = torch.optim.LBFGS([w, b], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = (weight * F.softplus(-sign * (features @ w + b))).sum() + penalty / 2 * w.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scores = features @ w + b
    return scores.cpu().double().gather(1, fold[:, None]).flatten()


def normal_of(scores: Tensor, spread: float) -> Normal:
    """Return the normal density of ``scores``; its variance leans towards ``spread``² where they are few."""
    mean = float(scores.mean())
    squares = float((scores - mean).square().sum()) + BORROWED * spread**2
    # One degree of freedom goes into the mean.
    return Normal(mean, max(math.sqrt(squares / (len(scores) - 1 + BORROWED)), 1e-6))


def mixed(scores: Tensor, bad: Normal, clean: Normal | None = None, steps: int = 300) -> tuple[float, Normal]:
    """Take unlabelled ``scores`` (float64 ``[n]``) for a mixture with a known density of the bad; return its share.

    By expectation maximisation, of the share alone where the density of the clean is known, else of both.
    """
    share, found = 0.2, clean or Normal(float(scores.mean()), max(float(scores.std(unbiased=False)), 1e-3))
    for _ in range(steps):
        odds = math.log(share / (1 - share)) + bad.log_density(scores) - found.log_density(scores)
        q = torch.sigmoid(odds)
        share = min(max(float(q.mean()), 1e-4), LARGEST_PRIOR)
        if clean is None:
            rest = 1 - q
            total = float(rest.sum())
            mean = float((rest * scores).sum()) / total
            variance = float((rest * (scores - mean).square()).sum()) / total
            # What is clean scores lower, whatever the scores look like.
            found = Normal(min(mean, bad.mean), max(math.sqrt(variance), 1e-3))
    return share, found


def shifted(odds: Tensor, mean: float) -> Tensor:
    """Return probabilities with mean ``mean`` whose log-odds are ``odds`` (float64 ``[n]``) plus a constant."""
    low, high = -100.0 - float(odds.max()), 100.0 - float(odds.min())
    for _ in range(80):
        middle = (low + high) / 2
        if float(torch.sigmoid(odds + middle).mean()) < mean:
            low = middle
        else:
            high = middle
    return torch.sigmoid(odds + (low + high) / 2)


def log_odds(scores: Tensor, bad: Normal, clean: Normal) -> Tensor:
    """Return the logarithm of how many times likelier the bad have each score: float64 ``[n]``, rising with the score.

    The wider of two normal densities wins at both ends. Beyond the extremum, which lies outside their means as long as
    the bad have the higher one, the odds stay what they are there.

    >>> log_odds(torch.tensor([-9.0, -1.0, 3.0]), Normal(2.0, 2.0), Normal(0.0, 1.0)).round(decimals=3).tolist()
    [-1.36, -1.36, 3.682]
    """
    curvature = 1 / bad.std**2 - 1 / clean.std**2
    if curvature:
        extremum = (bad.mean / bad.std**2 - clean.mean / clean.std**2) / curvature
        scores = scores.clamp(max=extremum) if curvature > 0 else scores.clamp(min=extremum)
    return bad.log_density(scores) - clean.log_density(scores)


def common_alpha(known: dict[int, int], priors: dict[int, float], others: dict[int, int]) -> float:
    """Return the known part of all bad samples, which is the same for every label.

    Args:
        known: how many are known, by label.
        priors: the estimated bad part of the others, by label.
        others: how many others there are, by label.
    """
    total = sum(known.values())
    return total / (sum(priors[label] * others[label] for label in known) + total)


def posterior(
    features: Tensor,
    labels: Tensor,
    identified: Tensor,
    alternative: Tensor,
    generator: torch.Generator,
    penalty: float = 0.01,
) -> Posterior:
    """Return how likely each sample is bad, given that ``identified`` are a uniform part of all that are.

    Args:
        features: float32 ``[N, d]``.
        labels: int64 ``[N]``, as given, on the CPU.
        identified: int64 ``[n]``, n ≥ 1, on the CPU.
        alternative: int64 ``[n]``, which class each of them may really have.
        generator: draws the folds, on the CPU.
        penalty: the probe's.
    """
    probability = torch.zeros(len(labels))
    probability[identified] = 1.0
    bad = probability.bool()
    scored: dict[int, tuple[Tensor, Tensor]] = {}
    known, others, priors = {}, {}, {}
    for label in labels[identified].unique().tolist():
        mine = labels == label
        rest = (mine & ~bad).nonzero().flatten()
        if len(rest) == 0:
            continue
        positives = (mine & bad).nonzero().flatten()
        foreign = identified[(labels[identified] != label) & (alternative == label)]
        told = foreign if len(foreign) >= ENOUGH else foreign[:0]
        pool = torch.cat([positives, rest, told])
        place = torch.arange(len(pool))
        positive = place < len(positives)
        unlabelled = ~positive & (place < len(positives) + len(rest))
        negative = ~positive & ~unlabelled if len(told) else unlabelled
        scores = probe(standardised(features[pool.to(features.device)]), positive, negative, generator, penalty)
        seen = scores[unlabelled]
        spread = max(float(seen.std(unbiased=False)), 1e-3)
        dense = normal_of(scores[positive], spread)
        clean = normal_of(scores[negative], spread) if len(told) else None
        priors[label], found = mixed(seen, dense, clean)
        odds = log_odds(seen, dense, found).clamp(-30, 30)
        scored[label], known[label], others[label] = (rest, odds), len(positives), len(rest)
    if not scored:
        return Posterior(probability, 1.0, {})
    alpha = common_alpha(known, priors, others)
    for label, (rest, odds) in scored.items():
        priors[label] = min(known[label] * (1 / alpha - 1) / others[label], LARGEST_PRIOR)
        probability[rest] = shifted(odds, priors[label]).float()
    return Posterior(probability, alpha, priors)
