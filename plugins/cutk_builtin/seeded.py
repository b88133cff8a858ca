"""From a few known bad samples to the probability that each other one is bad: the mathematics of the seeded probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

import cutk
from cutk_builtin.cross_fitting import FOLDS, folds
from cutk_builtin.densities import FOUND, LARGEST_PRIOR, at_most, log_odds, mixed
from cutk_builtin.looking import Outputs, alternatives
from cutk_builtin.ranking import area_under_roc

# So many samples known to have another class make up for the unlabelled rest as examples of a clean label.
ENOUGH = 3
# Which part of a label's other samples may seem to be bad at most where known clean ones are judged by it.
BELIEVED = 0.5
# What labels by themselves estimate of how S_m is spread over them weighs as much as so many known samples, whose
# labels are chance.
OWN = 20.0


class Posterior(NamedTuple):
    """Who is bad, as far as the known ones tell."""

    probability: Tensor  # float32 [N], on the CPU; 1 for the known ones, 0 for labels that none of them has
    alpha: float  # the part of the bad ones that is known
    priors: dict[int, float]  # for each label of known ones, the part of its other samples that is bad
    trusted: tuple[int, ...] = ()  # the labels whose known clean samples were taken for representative


def standardised(features: Tensor) -> Tensor:
    """Return ``features`` (float32 ``[n, d]``) with mean 0 and variance 1 in each column; constant ones become 0."""
    finite = features.nan_to_num(0.0, 0.0, 0.0)
    centred = finite - finite.mean(0)
    spread = centred.square().mean(0).sqrt()
    scale = finite.abs().mean(0)
    varies = spread > 1e-6 * (scale + 1e-12)
    return torch.where(varies, centred / torch.where(varies, spread, torch.ones_like(spread)), 0.0)


def transition(
    alternative: Tensor, labels: Tensor, suspicion: Tensor, num_classes: int, threshold: float = 0.7
) -> Tensor:
    """Return W: which class a bad sample with given label y has instead, float32 ``[classes, classes]``.

    Row y weighs the classes by how often each is the alternative among the bad with that label, divided by the largest
    share, where one class holds more than ``threshold`` of them; elsewhere each class but y weighs 1. Two more samples
    are counted for no class, so that one or two bad ones settle nothing.

    Args:
        alternative: int64 ``[N]``, each sample's.
        labels: int64 ``[N]``, as given.
        suspicion: float32 ``[N]``, how likely each is bad.
        num_classes: how many classes there are.
        threshold: the share of the most frequent class from which the shares are trusted.
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    counts.index_put_((labels.cpu(), alternative.cpu()), suspicion.cpu().double(), accumulate=True)
    largest = counts.max(1, keepdim=True).values
    settled = largest > threshold * (counts.sum(1, keepdim=True) + 2)
    every = 1 - torch.eye(num_classes, dtype=torch.float64)
    return torch.where(settled, counts / largest.clamp(min=1e-12), every).float()


def probe(
    features: Tensor, bad: Tensor, clean: Tensor, kinds: Tensor, generator: torch.Generator, penalty: float
) -> Tensor:
    """Score samples by logistic regression, each by a model that hasn't been fitted to it: float64 ``[n]``, on the CPU.

    A sample may count as bad and clean in parts. Both weigh the same in all; ``penalty`` / 2 · ‖w‖² is added to the
    mean loss. Scores are standardised.

    Args:
        features: float32 ``[n, d]``, standardised.
        bad: float32 ``[n]``, ≥ 0, on the CPU: how much each sample counts as bad.
        clean: likewise, as clean.
        kinds: int64 ``[n]``, on the CPU: each kind is spread evenly over the folds.
        generator: draws the folds, on the CPU.
        penalty: > 0; the larger, the nearer to the difference of the means.
    """
    device = features.device
    fold = folds(kinds, generator)
    others = torch.arange(FOLDS)[None] != fold[:, None]
    fitted = []
    for weight in (bad, clean):
        each = weight[:, None] * others
        # A single sample is in all folds, as long as nothing else counts.
        each = torch.where(each.sum(0) > 0, each, weight[:, None].expand_as(each))
        fitted.append((each / each.sum(0).clamp(min=1e-12) / 2).to(device))
    as_bad, as_clean = fitted
    with torch.enable_grad():
        w = torch.zeros(features.shape[1], FOLDS, device=device, requires_grad=True)
        b = torch.zeros(FOLDS, device=device, requires_grad=True)
        optimiser = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            scores = features @ w + b
            loss = (as_bad * F.softplus(-scores) + as_clean * F.softplus(scores)).sum()
            loss = loss + penalty / 2 * w.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scores = (features @ w + b).cpu().double().gather(1, fold[:, None]).flatten()
    return (scores - scores.mean()) / scores.std(unbiased=False).clamp(min=1e-12)


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


def common_alpha(known: dict[int, int], priors: dict[int, float], others: dict[int, int]) -> float:
    """Return the known part of all bad samples, which is the same for every label.

    Args:
        known: how many are known, by label.
        priors: the estimated bad part of the others, by label; of labels that have no others, nothing.
        others: how many others there are, likewise.
    """
    total = sum(known.values())
    return total / (sum(priors[label] * others[label] for label in priors) + total)


def tied(
    found: dict[int, tuple[float, Tensor]], known: dict[int, int]
) -> tuple[float, dict[int, float], dict[int, Tensor]]:
    """Return α, and for each label the share of the bad that it implies and each unknown sample's probability.

    The known samples are a draw from all bad ones. So how many of them have a label says how many of all have, up to
    chance, and the fewer are known the more of that there is: the labels' parts of S_m have a Dirichlet prior of
    concentration ``OWN``, whose mean is what the labels' own estimates say, and their posterior's mean is taken.

    Args:
        found: for each label that has unknown samples the share as estimated by itself, and their log-odds, float64
            ``[n]``.
        known: how many are known to be bad, by label, of all labels that S_f has.
    """
    others = {label: len(odds) for label, (_, odds) in found.items()}
    alpha = common_alpha(known, {label: share for label, (share, _) in found.items()}, others)
    own = OWN / (sum(known.values()) + OWN)
    priors = {}
    for label, (share, _) in found.items():
        implied = known[label] * (1 / alpha - 1) / others[label]
        priors[label] = min(implied + own * (share - implied), LARGEST_PRIOR)
    return alpha, priors, {label: shifted(odds, priors[label]).float() for label, (_, odds) in found.items()}


class _Pool(NamedTuple):
    """The samples of one given label: which are known to be bad, which are unknown, which are known to be clean."""

    bad: Tensor
    unknown: Tensor
    clean: Tensor  # known bad ones of other labels, whose own this probably is
    features: Tensor  # of all of them, in this order

    @property
    def kinds(self) -> Tensor:
        """Return which of them each is: 0, 1, 2, int64 ``[n]``."""
        sizes = torch.tensor([len(self.bad), len(self.unknown), len(self.clean)])
        return torch.repeat_interleave(torch.arange(3), sizes)


def _pools(features: Tensor, labels: Tensor, identified: Tensor, alternative: Tensor) -> dict[int, _Pool]:
    pools = {}
    for label, (bad, unknown) in split(labels, identified).items():
        clean = identified[(labels[identified] != label) & (alternative == label)]
        if len(clean) < ENOUGH:
            clean = clean[:0]
        members = torch.cat([bad, unknown, clean])
        pools[label] = _Pool(bad, unknown, clean, standardised(features[members.to(features.device)]))
    return pools


def _representative(
    pools: dict[int, _Pool], shares: dict[int, float], generator: torch.Generator, penalty: float
) -> bool:
    """Return whether the known clean look like the clean ones among the unknown, of which ``shares`` seem to be bad.

    If they do, a probe of its own tells them from the unknown only as far as those are bad: from these perfectly at
    best, from the others by chance. They don't where they carry the trigger, or the model knows their labels by heart.
    A share was found by taking them for clean, and is the larger the less they are, so that it counts up to a limit.

    All labels answer together, each weighing by how sure its area under the ROC curve is: what is clean under one
    label is bad under another, and few tell little. If the answer is no, nothing has been drawn.
    """
    before = generator.get_state()
    excess = precision = 0.0
    for label, pool in pools.items():
        n, m = len(pool.clean), len(pool.unknown)
        if n == 0:
            continue
        kinds = pool.kinds
        unknown, clean = kinds == 1, kinds == 2
        scores = probe(pool.features, unknown.float(), clean.float(), kinds, generator, penalty / n)
        told = area_under_roc(scores[unknown | clean], unknown[unknown | clean])
        if told is None:
            continue
        weight = 12 * n * m / (n + m + 1)  # 1 / the area's variance where there is nothing to tell
        excess += weight * (told - 0.5 - min(shares[label], BELIEVED) / 2)
        precision += weight
    if precision > 0 and excess <= math.sqrt(precision):
        return True
    generator.set_state(before)
    return False


def _suspected(
    pool: _Pool, suspicion: Tensor | None, trusted: bool, generator: torch.Generator, penalty: float
) -> tuple[float, Tensor]:
    """Return the share of the bad among the unknown, and the log-odds of each.

    Args:
        pool: of one label.
        suspicion: the guess so far, float32, of each unknown sample; None before there is one.
        trusted: whether the known clean ones are representative; then they say what is clean, where there are any, and
            the unknown count for ``FOUND`` of them at most.
        generator: draws the folds.
        penalty: the probe's.
    """
    kinds = pool.kinds
    trusted = trusted and len(pool.clean) > 0
    bad, clean = (kinds == 0).float(), (kinds == 2).float()
    if suspicion is not None:
        bad[kinds == 1] = at_most(suspicion, FOUND)
        clean[kinds == 1] = at_most(1 - suspicion, FOUND) if trusted else 1 - suspicion
    elif len(pool.clean) == 0:
        clean[kinds == 1] = 1.0
    scores = probe(pool.features, bad, clean, kinds, generator, penalty / float(bad.sum()))
    known_bad, unknown, known_clean = (scores[kinds == kind] for kind in range(3))
    found = mixed(unknown, known_bad, known_clean, free=suspicion is not None and not trusted)
    return found.share, log_odds(unknown, found.bad, found.clean).clamp(-30, 30)


def posterior(
    features: Tensor,
    labels: Tensor,
    identified: Tensor,
    alternative: Tensor,
    generator: torch.Generator,
    *,
    penalty: float = 20.0,
    refinements: int = 4,
) -> Posterior:
    """Return how likely each sample is bad, given that ``identified`` are a uniform part of all that are.

    Args:
        features: float32 ``[N, d]``.
        labels: int64 ``[N]``, as given, on the CPU.
        identified: int64 ``[n]``, n ≥ 1, on the CPU.
        alternative: int64 ``[n]``, which class each of them may really have.
        generator: draws the folds, on the CPU.
        penalty: the probe's, divided by how many samples count as bad; where clean ones are told, by their number.
        refinements: how often the probe is fitted again, to all samples as likely as they seem to be bad. Those found
            bad weigh as ``FOUND`` known ones at most, and those found clean as well where known clean ones are
            representative, which is asked once, after the first fit, and not at all if that is the last one.
    """
    probability = torch.zeros(len(labels))
    probability[identified] = 1.0
    pools = _pools(features, labels, identified, alternative)
    known = counted(labels[identified])
    alpha, priors, suspicion = 1.0, dict[int, float](), dict[int, Tensor]()
    trusted = False
    for done in range(refinements + 1 if pools else 0):
        found = {
            label: _suspected(pool, suspicion.get(label), trusted, generator, penalty) for label, pool in pools.items()
        }
        alpha, priors, suspicion = tied(found, known)
        if done == 0 and refinements:
            trusted = _representative(pools, priors, generator, penalty)
    for label, pool in pools.items():
        probability[pool.unknown] = suspicion[label]
    told = tuple(label for label, pool in pools.items() if trusted and len(pool.clean) > 0)
    return Posterior(probability, alpha, priors, told)


def by_similarity(scores: dict[int, tuple[Tensor, Tensor, Tensor]], labels: Tensor, identified: Tensor) -> Posterior:
    """Return the same from scores that others have made: one probability for each sample.

    Args:
        scores: for each label the known bad samples' scores, each made without itself, those of the unknown ones, and
            which these are; more is worse.
        labels: int64 ``[N]``, as given.
        identified: int64 ``[n]``.
    """
    probability = torch.zeros(len(labels))
    probability[identified] = 1.0
    found, known = {}, counted(labels[identified])
    for label, (bad, unknown, _) in scores.items():
        middle, spread = unknown.mean(), unknown.std(unbiased=False).clamp(min=1e-12)
        of_bad, of_unknown = (bad - middle) / spread, (unknown - middle) / spread
        mixture = mixed(of_unknown, of_bad, of_bad[:0], free=False)
        found[label] = mixture.share, log_odds(of_unknown, mixture.bad, mixture.clean).clamp(-30, 30)
    if not found:
        return Posterior(probability, 1.0, {})
    alpha, priors, suspicion = tied(found, known)
    for label, (_, _, where) in scores.items():
        probability[where] = suspicion[label]
    return Posterior(probability, alpha, priors)


def counted(labels: Tensor) -> dict[int, int]:
    """Return how many samples have each label that occurs in ``labels``, int64 ``[n]``."""
    those, counts = labels.unique(return_counts=True)
    return dict(zip(those.tolist(), counts.tolist(), strict=True))


def split(labels: Tensor, identified: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Return for each label that occurs in S_f, and not only there, which samples are known to be bad, and which not.

    Args:
        labels: int64 ``[N]``, as given, on the CPU.
        identified: int64 ``[n]``, on the CPU.
    """
    known = torch.zeros(len(labels), dtype=torch.bool)
    known[identified] = True
    found = {}
    for label in labels[identified].unique().tolist():
        mine = labels == label
        bad, unknown = (mine & known).nonzero().flatten(), (mine & ~known).nonzero().flatten()
        if len(unknown):
            found[label] = bad, unknown
    return found


def suspected(
    task: cutk.Task, views: Sequence[Outputs], penalty: float, refinements: int, among: Tensor | None = None
) -> Posterior:
    """Return how likely each sample is bad, by what models say of it: features of all, classes of the last.

    Of those ``among`` them alone, in that order, if they are given: int64 ``[n]``, sorted, on the CPU, S_f among them.
    """
    labels, known = task.train.labels.cpu(), task.identified.cpu()
    if among is not None:
        labels, known = labels[among], torch.searchsorted(among, known)
    features = torch.cat([F.normalize(view.features, dim=1) for view in views], 1)
    logits = views[-1].logits
    here = known.to(logits.device)
    other = alternatives(logits[here], labels.to(here.device)[here]).cpu()
    return posterior(features, labels, known, other, task.generator, penalty=penalty, refinements=refinements)
