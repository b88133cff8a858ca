"""What a model says of the training samples, for those that look for bad ones among them."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cutk

# What so many of the last layers with weights are given are features: what tells apart classes that the labels confuse
# is lost in the last of them, and still there before.
LAYERS = 3


class Outputs(NamedTuple):
    """What a model says of the training samples, on its device."""

    features: Tensor  # float32 [N, d], what its last layer, or one of the last, is given
    logits: Tensor  # float32 [N, classes]


@contextlib.contextmanager
def _watching(model: nn.Module, count: int) -> Iterator[deque[tuple[Tensor, bool]]]:
    """Yield what the last ``count`` layers with weights are given when ``model`` runs, in the order in which they do.

    Beside each input stands whether its features come last. A network that holds its weights itself isn't watched.
    """
    given = deque[tuple[Tensor, bool]](maxlen=count)  # of a deep network not everything fits

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        there = (x for x in inputs[:1] if isinstance(x, Tensor) and x.ndim > 1 and x.is_floating_point())
        given.extend((x, features_last(module, x)) for x in there)

    handles = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.Linear) or (module is not model and _has_weights(module))
    ]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def outputs(model: nn.Module, recipe: cutk.Recipe, train: cutk.TrainSet) -> Outputs:
    """Return what ``model`` says of unaugmented samples; where its last layer can't be watched, logits are features.

    Features are finite: 0 stands for what isn't.
    """
    features: list[Tensor] = []
    logits: list[Tensor] = []
    model.eval()
    with _watching(model, 1) as given:
        for batch in train.batches():
            given.clear()
            with recipe.autocast():
                said = model(batch.x).float()
            logits.append(said)
            features.extend(averaged(x, last=last) for x, last in given if len(x) == len(said))
    found = torch.cat(features if len(features) == len(logits) else logits)
    return Outputs(found.nan_to_num(0.0, 0.0, 0.0), torch.cat(logits))


def features_last(layer: nn.Module, given: Tensor) -> bool:
    """Return whether a layer's input, ``[B, …]``, has its features in the last dimension, not in the second.

    Linear layers are given them so, convolutions aren't, and of others it is what three dimensions have as a rule.
    """
    convolves = hasattr(layer, "kernel_size")
    return isinstance(layer, nn.Linear) or (given.ndim == 3 and not convolves)


def averaged(given: Tensor, *, last: bool) -> Tensor:
    """Return a layer's input as float32 ``[B, d]``: means over places or tokens.

    Args:
        given: float ``[B, d]``, ``[B, …, d]`` if features come ``last``, else ``[B, d, …]``.
        last: whether they do.
    """
    if given.ndim == 2:
        return given.float()
    if last:
        return (given if given.ndim == 3 else given.float().flatten(1, -2)).mean(1).float()
    return given.float().flatten(2).mean(2)


@torch.no_grad()
def views(
    model: nn.Module, recipe: cutk.Recipe, train: cutk.TrainSet, among: Tensor | None = None, visits: int = 1
) -> list[Outputs]:
    """Return what ``model`` says of samples, with the inputs of its last ``LAYERS`` layers as features, in turn.

    Looked at are those ``among`` them (int64 ``[n]``; all, if not given), in that order. Of places or tokens, features
    are the means and the largest values. Where no layer can be watched, logits are features. Everything is the mean
    over ``visits``, of which the first sees samples as they are, and the others augmented ones; where nothing is
    augmented one is enough.
    """
    model.eval()
    sums: list[Tensor] = []
    count = visits if train.augments else 1
    with _watching(model, LAYERS) as given:
        for visit in range(count):
            parts: list[list[Tensor]] = []
            for batch in train.batches(among, augment=visit > 0):
                given.clear()
                with recipe.autocast():
                    logits = model(batch.x).float()
                parts.append([*(pooled(x, last=last) for x, last in given if len(x) == len(logits)), logits])
            found = [torch.cat(column) for column in zip(*parts, strict=True)]
            sums = [a.add_(b) for a, b in zip(sums, found, strict=True)] if sums else found
    *features, logits = [total.div_(count) for total in sums]
    return [Outputs(part, logits) for part in features or [logits]]


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters(recurse=False))


def pooled(given: Tensor, *, last: bool) -> Tensor:
    """Return a layer's input as float32 ``[B, d]``: means over places or tokens, and the largest values there.

    Args:
        given: float ``[B, d]``, ``[B, …, d]`` if features come ``last``, else ``[B, d, …]``.
        last: whether they do.
    """
    if given.ndim == 2:
        return given.float()
    there = (given.float().movedim(-1, 1) if last else given.float()).flatten(2)
    return torch.cat([there.mean(2), there.amax(2)], 1)


def concerned(task: cutk.Task) -> Tensor:
    """Return which samples may be bad, int64 ``[n]``, sorted, on the CPU: those under a label that occurs in S_f."""
    labels = task.train.labels.cpu()
    return torch.isin(labels, labels[task.identified.cpu()]).nonzero().flatten()


def alternatives(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each sample's likeliest class but the given one: int64 ``[n]``, of logits ``[n, classes]``.

    >>> alternatives(torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]]), torch.tensor([0, 2])).tolist()
    [2, 1]
    """
    return logits.scatter(1, labels[:, None], -math.inf).argmax(1)


def class_by_class(task: cutk.Task, judge: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what ``judge`` says of the original's features under each given label; S_f itself is certain.

    Args:
        task: the problem.
        judge: maps the features of one label's samples, float32 ``[n, d]``, on the CPU and finite, to values from 0 to
            1, ``[n]``.

    Returns:
        float32 ``[N]``, on the CPU.
    """
    labels = task.train.labels.cpu()
    # Singular values need double precision, which not every device has.
    features = outputs(task.original, task.recipe, task.train).features.cpu()
    suspicion = torch.zeros(len(labels))
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        suspicion[mine] = judge(features[mine]).float()
    suspicion[task.identified.cpu()] = 1.0
    return suspicion
