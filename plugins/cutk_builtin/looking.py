"""What a model says of the training samples, for those that look for bad ones among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import cutk


class Outputs(NamedTuple):
    """What a model says of the training samples, on its device."""

    features: Tensor  # float32 [N, d], what its last layer is given
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
            features.append(_flat(seen[-1], given) if seen else None)
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
    weighted = [m for m in last if any(p.ndim >= 2 for p in m.parameters(recurse=False))]
    # A network that holds its weights itself doesn't say which of them come last.
    own = weighted and weighted[0] is model and not isinstance(model, nn.Linear)
    return None if not weighted or own or isinstance(weighted[0], nn.Embedding) else weighted[0]


def _flat(given: Tensor, logits: Tensor) -> Tensor | None:
    """Return a layer's input as float32 ``[B, d]``: averaged over places or tokens; None if it is neither."""
    if given.ndim < 2 or len(given) != len(logits) or not given.is_floating_point():
        return None
    if given.ndim == 3:
        given = given.mean(1)
    return given.float().flatten(2).mean(2) if given.ndim > 3 else given.float()


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
        judge: maps the features of one label's samples, float32 ``[n, d]``, to values from 0 to 1, ``[n]``.

    Returns:
        float32 ``[N]``, on the CPU.
    """
    labels = task.train.labels.cpu()
    features = outputs(task.original, task.recipe, task.train).features
    suspicion = torch.zeros(len(labels))
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        suspicion[mine] = judge(features[mine.to(features.device)]).float()
    suspicion[task.identified.cpu()] = 1.0
    return suspicion
