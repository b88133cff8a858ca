"""Potion: dampening without labels, as far as it takes to neutralise a poison's trigger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.dampening import Importance, Importances, dampen, gradient_importance

# Where searches on poisoned digits end, as a multiple of |S_f| / |S_tr|: after 70 tries, in between 31 and 136.
LIKELY_GROWTH = 32.0


class Prepared(NamedTuple):
    """I_f and I_r, and all finite I_f / I_r in ascending order: float32 ``[n]``."""

    importances: Importances
    ratios: Tensor


def output_norm(logits: Tensor, _: cutk.Batch) -> Tensor:
    """Return the mean over samples of ‖f(x)‖₂, of logits float32 ``[B, classes]``."""
    return logits.norm(dim=1).mean()


def label_free_importance(model: nn.Module, batches: Iterable[cutk.Batch]) -> Importance:
    """Return the mean over batches of the absolute gradient of a batch's mean ‖f(x)‖₂: no label is asked."""
    return gradient_importance(model, batches, output_norm, torch.abs)


def finite_ratios(importances: Importances) -> Tensor:
    """Return the finite I_f / I_r of all parameters together, ascending: float32 ``[n]``."""
    ratios = torch.cat([(importances.forget[n] / importances.retain[n]).flatten() for n in importances.forget])
    return ratios[ratios.isfinite()].sort().values


def percentile_of(size: float) -> float:
    """Return the percentile from which on parameters are selected, 100 − ln(1 + 100 · s), not below 0.

    >>> [round(percentile_of(size), 3) for size in (0.0, 0.01, 0.1)]
    [100.0, 99.307, 97.602]
    """
    return max(0.0, 100 - math.log1p(100 * size))


def percentile(ordered: Tensor, percent: float) -> float:
    """Return a percentile of ascending values ``[n]``, n ≥ 1, linear between neighbours.

    ``torch.quantile`` takes at most 16 million values, fewer than large networks have.

    >>> percentile(torch.tensor([0.0, 1.0, 3.0]), 75)
    2.0
    """
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (place - below) * (high - low)


class Search(NamedTuple):
    """How far a search went: how many sizes were tried, the last one's percentile, how many numbers it changed."""

    tries: int
    percentile: float
    dampened_parameters: int


def neutralise(
    model: nn.Module,
    prepared: Prepared,
    healed: Callable[[], bool],
    size: float,
    step: float,
    tries: int,
) -> Search:
    """Dampen ``model`` in place, each time from its original weights and more of them, until it is ``healed``.

    Args:
        model: ends as it was in the last try, healed or not.
        prepared: importances and their ratios.
        healed: asked about the model after each try that changed other weights than the one before.
        size: s, > 0, of the first try.
        step: > 1, by which s grows with each try.
        tries: how many there are at most, ≥ 1.
    """
    parameters = list(model.named_parameters())
    before = [parameter.detach().clone() for _, parameter in parameters]
    changed = 0
    for tried in range(1, tries + 1):
        percent = percentile_of(size)
        threshold = percentile(prepared.ratios, percent)
        with torch.no_grad():
            for (_, parameter), original in zip(parameters, before, strict=True):
                parameter.copy_(original)
        now = dampen(parameters, prepared.importances, threshold, 1.0)
        # What is selected only grows: as many as before are the same ones. And a factor is below 1 where the ratio is
        # above 1, so that a threshold below 1 changes no more than one of 1.
        if (now > changed and healed()) or threshold <= 1:
            return Search(tried, percent, now)
        changed, size = now, size * step
    return Search(tries, percent, now)


class Potion(cutk.Unlearner):
    r"""Shrinks what S_f's outputs depend on more than others', a bit more each time until S_f loses its labels.

    The importance of a parameter is its mean absolute gradient of the norm of the outputs, ‖f(x)‖₂, which needs no
    label: I_f on S_f, I_r on S_tr \ S_f. With c the percentile 100 − ln(1 + 100 · s) of all finite I_f / I_r, those
    with I_f > c · I_r are multiplied by min(1, I_r / I_f). s starts at |S_f| / |S_tr| / 25 and grows by a tenth with
    each try, always from the original weights, until accuracy on S_f against its given labels is at most ρ times what
    it was: the poison trigger neutralisation search, which needs no grid and no held-out samples. Where S_f never gets
    there, the last try is returned. Published for poisoning: what a trigger adds can be taken away again; two classes
    taken for each other are no such addition.

    Each gradient is that of a mean over ``batch_size`` samples, or over S_f where it is smaller. Over many samples
    gradients cancel out, so that larger batches make I_r small beside I_f everywhere, and the search takes what all
    classes need: on the digits with a tenth of the poison known, accuracy on clean samples falls from 99.0 to 95.5 %
    with 16, to 82.8 % with 64 and to 68.9 % with 512 (two seeds), which is what the authors' code has.

    Costs one pass over S_tr, and a forward pass of S_f for each try that changes more weights than the last.
    """

    name = "potion"
    reference = "Schoepf, Foster, Brintrup, Potion: Towards Poison Unlearning, 2024, arXiv 2406.09173"

    class Options(cutk.Options):
        """How far the search goes, and in which steps."""

        accuracy_ratio: float = cutk.option(
            0.2, ge=0, lt=1, help="ρ: the search ends when accuracy on S_f is at most this part of what it was"
        )
        start_divisor: float = cutk.option(25.0, gt=0, help="the search starts at s = |S_f| / |S_tr| divided by this")
        step: float = cutk.option(1.1, gt=1, le=100, help="by which s grows with each try")
        tries: int = cutk.option(500, ge=1, help="tries at most")
        batch_size: int = cutk.option(16, ge=1, help="samples per gradient; many cancel each other out")

    prepared_by = ("batch_size",)

    def prepare(self, task: cutk.Task) -> Prepared:
        """Measure I_f and I_r on augmented batches, the model in eval mode."""
        if len(task.retained) == 0:
            raise cutk.CellError("Potion compares S_f with the rest of the training set, and there is no rest.")
        size = self.options.batch_size
        importances = Importances(
            *(
                label_free_importance(task.original, task.train.batches(part, size, shuffle=True, augment=True))
                for part in (task.identified, task.retained)
            )
        )
        ratios = finite_ratios(importances)
        if len(ratios) == 0:
            raise cutk.CellError("Potion compares gradients on S_f with those on the rest, and these are all zero.")
        return Prepared(importances, ratios)

    def unlearn(self, task: cutk.Task, state: Prepared | None = None) -> nn.Module:
        """Search, and return the original dampened so far; unchanged where it predicts nothing of S_f as labelled."""
        prepared = self.prepare(task) if state is None else state
        o, model, labels = self.options, task.original, task.train.labels[task.identified].cpu()

        def right() -> int:
            return int((task.recipe.predict(model, task.train, task.identified) == labels).sum())

        before, found = right(), Search(0, 100.0, 0)
        if before > 0:
            start = len(labels) / len(task.train) / o.start_divisor
            found = neutralise(model, prepared, lambda: right() <= o.accuracy_ratio * before, start, o.step, o.tries)
        for name, value in found._asdict().items():
            task.log.scalar(name, value)
        return model

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """One pass for both importances; then as many looks at S_f as take s to some 32 · |S_f| / |S_tr|."""
        likely = max(1.0, math.log(LIKELY_GROWTH * options.start_divisor) / math.log(options.step))
        looks = 1 + min(options.tries, round(likely))
        return 1.0, looks / 3 * sizes.identified / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``potion``."""
    return [Potion]
