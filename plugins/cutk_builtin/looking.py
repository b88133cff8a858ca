"""What a model says of the training samples, for those that look for bad ones among them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
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


@torch.no_grad()
def outputs(model: nn.Module, recipe: cutk.Recipe, train: cutk.TrainSet) -> Outputs:
    """Return what ``model`` says of unaugmented samples; where its last layer can't be watched, logits are features."""
    seen: list[Tensor] = []
    features: list[Tensor | None] = []
    logits: list[Tensor] = []
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
            features.append(_flat(classifier, seen[-1], given) if classifier is not None and seen else None)
    finally:
        if handle is not None:
            handle.remove()
    watched = [part for part in features if part is not None]
    return Outputs(torch.cat(watched if len(watched) == len(logits) else logits), torch.cat(logits))


def _classifier(model: nn.Module) -> nn.Module | None:
    """Return the last module with a weight matrix, if there is one."""
    try:
        last = cutk.last_layers(model, 1)
    except cutk.CellError:
        return None
    weighted = [m for m in last if _has_weights(m)]
    # A network that holds its weights itself doesn't say which of them come last.
    own = weighted and weighted[0] is model and not isinstance(model, nn.Linear)
    return None if not weighted or own or isinstance(weighted[0], nn.Embedding) else weighted[0]


def features_last(layer: nn.Module, given: Tensor) -> bool:
    """Return whether a layer's input, ``[B, …]``, has its features in the last dimension, not in the second.

    Linear layers are given them so, convolutions aren't, and of others it is what three dimensions have as a rule.
    """
    convolves = hasattr(layer, "kernel_size")
    return isinstance(layer, nn.Linear) or (given.ndim == 3 and not convolves)


def _flat(layer: nn.Module, given: Tensor, logits: Tensor) -> Tensor | None:
    """Return a layer's input as float32 ``[B, d]``: averaged over places or tokens; None if it is neither."""
    if given.ndim < 2 or len(given) != len(logits) or not given.is_floating_point():
        return None
    if given.ndim == 2:
        return given.float()
    if features_last(layer, given):
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
    given = deque[tuple[Tensor, bool]](maxlen=LAYERS)  # of a deep network not everything fits

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        there = (x for x in inputs[:1] if isinstance(x, Tensor) and x.ndim > 1 and x.is_floating_point())
        given.extend((x, features_last(module, x)) for x in there)

    handles = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.Linear) or (module is not model and _has_weights(module))
    ]
    model.eval()
    sums: list[Tensor] = []
    count = visits if train.augments else 1
    try:
        for visit in range(count):
            parts: list[list[Tensor]] = []
            for batch in train.batches(among, augment=visit > 0):
                given.clear()
                with recipe.autocast():
                    logits = model(batch.x).float()
                parts.append([*(pooled(x, last=last) for x, last in given if len(x) == len(logits)), logits])
            found = [torch.cat(column) for column in zip(*parts, strict=True)]
            sums = [a.add_(b) for a, b in zip(sums, found, strict=True)] if sums else found
    finally:
        for handle in handles:
            handle.remove()
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
    # Singular values need double precision, which not every device has, and finite numbers.
    features = outputs(task.original, task.recipe, task.train).features.cpu().nan_to_num(0.0, 0.0, 0.0)
    suspicion = torch.zeros(len(labels))
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        suspicion[mine] = judge(features[mine]).float()
    suspicion[task.identified.cpu()] = 1.0
    return suspicion
