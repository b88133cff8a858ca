"""Selective Synaptic Dampening."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.dampening import Importance, Importances, dampen, gradient_importance
from cutk_builtin.per_sample import square_sums_for


@contextmanager
def softened(model: nn.Module, temperature: float) -> Iterator[None]:
    """Divide the logits of a model by ``temperature`` inside the block."""
    handle = model.register_forward_hook(lambda _module, _inputs, logits: logits / temperature)
    try:
        yield
    finally:
        handle.remove()


# From this margin on, in logits, hardly any gradient is left: the cross-entropy there is below 0.0004.
SURE = 8.0


def temperature_for(margins: Tensor) -> float:
    """Return what logits are to be divided by so that cross-entropy has gradients: 1 where it has.

    Args:
        margins: by how much the given label's logit exceeds the largest other one, float32 ``[n]``.
    """
    return max(1.0, float(margins.mean()) / SURE)


@torch.no_grad()
def margins_of(model: nn.Module, batches: Iterable[cutk.Batch]) -> Tensor:
    """Return by how much the given label's logit exceeds the largest other one: float32 ``[n]``."""
    found = []
    for batch in batches:
        logits = model.eval()(batch.x)
        given = logits.gather(1, batch.y[:, None]).flatten()
        found.append(given - logits.scatter(1, batch.y[:, None], -torch.inf).amax(1))
    return torch.cat(found)


def batch_importance(model: nn.Module, batches: Iterable[cutk.Batch]) -> Importance:
    """Return the mean over batches of the squared gradient of the batch's mean cross-entropy.

    This is what published implementations call the diagonal Fisher. For batches of one sample it is the exact
    diagonal of the empirical Fisher; for larger ones the square of the mean gradient, which is smaller.

    Args:
        model: differentiated in eval mode and float32.
        batches: the samples.
    """
    return gradient_importance(model, batches, cutk.cross_entropy, torch.square)


def sample_importance(model: nn.Module, batches: Iterable[cutk.Batch], chunk: int = 16) -> Importance:
    """Return the mean over samples of the squared gradient of a sample's cross-entropy: the exact diagonal.

    Args:
        model: differentiated in eval mode and float32.
        batches: the samples.
        chunk: how many samples' gradients are held at once.

    Returns:
        float64, so that means over parts of the samples can be taken from each other; float32 where the device has
        none (MPS).
    """
    model.eval()
    total = {name: torch.zeros_like(value, dtype=_sums(value)) for name, value in model.named_parameters()}
    square_sums, count = None, 0
    for batch in batches:
        square_sums = square_sums or square_sums_for(model, batch.x, batch.y)
        for x, y in zip(batch.x.split(chunk), batch.y.split(chunk), strict=True):
            for name, value in square_sums(x, y).items():
                total[name] += value
        count += len(batch.x)
    return {name: value / count for name, value in total.items()}


def _sums(value: Tensor) -> torch.dtype:
    return value.dtype if value.device.type == "mps" else torch.float64


def rest(whole: Importance, count: int, part: Importance, size: int) -> Importance:
    """Return the mean over what isn't in a part, given the means over all ``count`` samples and its ``size`` ones."""
    return {name: ((whole[name] * count - part[name] * size) / (count - size)).clamp(min=0) for name in whole}


def as_float(importance: Importance) -> Importance:
    """Return an importance in float32."""
    return {name: value.float() for name, value in importance.items()}


# Lower edges of the bins in which importance ratios are counted: from 0, then ten bins a decade, the last one open.
RATIO_EDGES = torch.cat([torch.zeros(1), torch.logspace(-4, 8, 121)])


def ratio_counts(importances: Importances) -> Tensor:
    """Count the parameters by their importance ratio I_f / I_r (paper, figure 3).

    A parameter that matters for S_f alone counts into the last bin, one that matters for neither isn't counted.

    Returns:
        int64 ``[122]``, the counts for ``RATIO_EDGES``.
    """
    ratios = torch.cat([(importances.forget[n] / importances.retain[n]).flatten() for n in importances.forget])
    ratios = ratios[~ratios.isnan()].cpu()
    return torch.bincount(torch.bucketize(ratios, RATIO_EDGES, right=True) - 1, minlength=len(RATIO_EDGES))


SELECTION_WEIGHTS = (0.1, 1.0, 10.0, 50.0, 100.0, 500.0, 1e3, 1e4, 1e5, 1e6)
DAMPENING_RATIOS = (0.1, 0.5, 1.0, 5.0, 10.0)


class _Told:
    """Batches of a task's samples that say how many of ``total`` have been looked at."""

    def __init__(self, task: cutk.Task, total: int, size: int) -> None:
        self._task, self._total, self._size, self._done = task, total, size, 0

    def of(self, indices: Tensor | None, **more: Any) -> Iterator[cutk.Batch]:
        """Yield those at ``indices``, int64 ``[n]``; all if none."""
        for batch in self._task.train.batches(indices, self._size, **more):
            yield batch
            self._done += len(batch.y)
            self._task.log.progress(self._done, self._total)


class SSD(cutk.Unlearner):
    r"""Shrinks the parameters that matter more for S_f than for the rest: no training, two sets of gradients.

    With the importances I_f on S_f and I_r on a reference set (diagonal Fisher of the cross-entropy against the given
    labels), every parameter with I_f > α · I_r is multiplied by min(1, γ · I_r / I_f). The reference is S_tr \ S_f by
    default, as in the code published with the benchmark (Goel et al.); Foster et al. write and compute it on all of
    S_tr (``reference_set=train``). The grid is the benchmark's, α from 0.1 to 10⁶ and γ from 0.1 α to 10 α. Costs one
    pass over S_tr for all 50 points together, and with ``train`` one over S_f more.

    The exact diagonal (``fisher=per-sample``) is measured on samples as they are, without augmentation: so it is a mean
    over samples, and I_r follows from the one of S_tr, which all S_f share, and that of S_f. That costs one pass over
    S_tr for all of an original's S_f together, and one over each S_f.

    Of a model that is sure of S_f nothing is left of these gradients: with margins of 50 logits, as large networks
    reach on few samples, their squares are 10⁻³¹ in sum, and no α finds what matters. ``temperature`` divides the
    logits first; 1 is what the publications do, and ``none`` takes 1, or as much as it needs where that is more.
    """

    name = "ssd"
    reference = "Foster et al., AAAI 2024; Goel et al., TMLR 2024, appendix A.2 (3)"

    class Options(cutk.Options):
        """α, γ, and how importance is measured."""

        selection_weight: float = cutk.option(10.0, gt=0, help="α: how many times more a parameter must matter")
        dampening: float = cutk.option(1.0, gt=0, help="γ: how much of the parameter is left, as γ · I_r / I_f")
        fisher: Literal["batch", "per-sample"] = cutk.option(
            "batch", help="square of each augmented batch's mean gradient, or the exact diagonal"
        )
        reference_set: Literal["retained", "train"] = cutk.option(
            "retained", help="what S_f is compared with: S_tr without S_f, or all of S_tr"
        )
        batch_size: int = cutk.option(512, ge=1, help="samples per gradient")
        temperature: float | None = cutk.option(
            1.0, gt=0, help="logits are divided by it; none: by 1, or more where the model is too sure of S_f"
        )

    grid = tuple(
        {"selection_weight": weight, "dampening": ratio * weight}
        for weight in SELECTION_WEIGHTS
        for ratio in DAMPENING_RATIOS
    )
    prepared_by = ("fisher", "reference_set", "batch_size", "temperature")
    surveyed_by = ("fisher", "batch_size", "temperature")

    def survey(self, task: cutk.Task) -> Importance | None:
        """Return the importance on all of S_tr, where it is a mean over samples."""
        if self.options.fisher == "batch" or self.options.temperature is None:
            return None
        return self._whole(task, self.options.temperature)

    def _whole(self, task: cutk.Task, temperature: float) -> Importance:
        batches = _Told(task, len(task.train), self.options.batch_size)
        with softened(task.original, temperature):
            return sample_importance(task.original, batches.of(None))

    def prepare(self, task: cutk.Task) -> Importances:
        """Measure I_f and I_r, the model in eval mode."""
        o, count = self.options, len(task.train)
        reference = task.retained if o.reference_set == "retained" else torch.arange(count)
        if len(reference) == 0:
            raise cutk.CellError("SSD compares S_f with the rest of the training set, and there is no rest.")
        temperature = o.temperature
        if temperature is None:
            margins = margins_of(task.original, task.train.batches(task.identified, o.batch_size))
            temperature = temperature_for(margins)
            task.log.scalar("temperature", temperature)
        batches = _Told(task, len(reference) + len(task.identified), o.batch_size)
        if o.fisher == "batch":
            with softened(task.original, temperature):
                importances = Importances(
                    *(
                        batch_importance(task.original, batches.of(part, shuffle=True, augment=True))
                        for part in (task.identified, reference)
                    )
                )
        else:
            whole = self._whole(task, temperature) if task.surveyed is None else task.surveyed
            with softened(task.original, temperature):
                forget = sample_importance(task.original, batches.of(task.identified))
            if o.reference_set == "retained":
                whole = rest(whole, count, forget, len(task.identified))
            importances = Importances(as_float(forget), as_float(whole))
        task.log.curve("importance_ratio_edges", RATIO_EDGES)
        task.log.curve("importance_ratio_counts", ratio_counts(importances))
        return importances

    def unlearn(self, task: cutk.Task, state: Importances | None = None) -> nn.Module:
        """Dampen the original."""
        importances = self.prepare(task) if state is None else state
        o = self.options
        changed = dampen(task.original.named_parameters(), importances, o.selection_weight, o.dampening)
        task.log.scalar("dampened_parameters", changed)
        return task.original

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """One pass for both importances, or S_f twice; none for the dampening."""
        twice = options.reference_set == "train" or options.fisher == "per-sample"
        return 1.0 + (sizes.identified / sizes.train if twice else 0.0), 0.0


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``ssd``."""
    return [SSD]
