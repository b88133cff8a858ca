"""What only the evaluator knows, and what a metric is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from cutk.cost import Cost
from cutk.data.batches import TrainSet
from cutk.learning.recipe import Recipe

__all__ = ["Curve", "Evaluation", "Truth", "accuracy", "class_accuracies"]


def accuracy(predictions: Tensor, labels: Tensor) -> float | None:
    """Return the fraction of ``predictions`` that equal ``labels`` (both int64 ``[n]``), None if there are none.

    >>> import torch
    >>> accuracy(torch.tensor([1, 2, 3, 3]), torch.tensor([1, 2, 3, 4]))
    0.75
    """
    return float((predictions == labels).double().mean()) if len(labels) else None


def class_accuracies(predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return the accuracy on each class that ``labels`` hold, by the class's name.

    Args:
        predictions: int64 ``[n]``.
        labels: int64 ``[n]``.
        classes: the names.

    >>> import torch
    >>> class_accuracies(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), ["cat", "dog", "eel"])
    {'cat': 0.5, 'dog': 1.0}
    """
    return {
        classes[label]: float((predictions[labels == label] == label).double().mean())
        for label in torch.unique(labels).tolist()
    }


@dataclass(frozen=True, eq=False)
class Truth:
    """The evaluator's knowledge of a scenario. It never meets a method.

    Attributes:
        train: S_tr as it lies there.
        manipulated: int64 ``[n]``, sorted: the indices of S_m in S_tr.
        clean_labels: int64 ``[N]``: the labels of S_tr before the manipulation.
        affected: unseen samples of the affected domain D_m, with clean labels.
        retain: unseen samples outside D_m, with clean labels.
        target: the class a backdoor aims at, if there is one.
        classes: the classes' names.
    """

    train: TrainSet
    manipulated: Tensor
    clean_labels: Tensor
    affected: TrainSet
    retain: TrainSet
    target: int | None
    classes: tuple[str, ...]


class Evaluation:
    """One model under the evaluator's eyes; every set of predictions is computed once, when first asked for.

    Args:
        truth: the scenario's truth.
        model: the model to judge, in eval mode.
        recipe: how to run it.
        identified: int64 ``[n]``, the indices of S_f; none for the original and gold, which saw no S_f.
        identified_before: int64 ``[n]``, the original model's predictions on S_f.
        cost: of the unlearning; none for the original and gold, which were trained.
        scalars: the curves that the method logged, by name; a value that wasn't finite is none.
    """

    def __init__(
        self,
        truth: Truth,
        model: nn.Module,
        recipe: Recipe,
        *,
        identified: Tensor | None = None,
        identified_before: Tensor | None = None,
        cost: Cost | None = None,
        scalars: Mapping[str, Sequence[float | None]] | None = None,
    ) -> None:
        self.truth = truth
        self.model = model
        self.recipe = recipe
        self.identified = identified
        self.identified_before = identified_before
        self.cost = cost
        self.scalars: Mapping[str, Sequence[float | None]] = scalars or {}

    @cached_property
    def affected_predictions(self) -> Tensor:
        """Predicted classes on ``truth.affected``, int64 ``[n]``."""
        return self.recipe.predict(self.model, self.truth.affected)

    @cached_property
    def retain_predictions(self) -> Tensor:
        """Predicted classes on ``truth.retain``, int64 ``[n]``."""
        return self.recipe.predict(self.model, self.truth.retain)

    @cached_property
    def manipulated_predictions(self) -> Tensor:
        """Predicted classes on S_m as it lies in S_tr, trigger included, int64 ``[n]``."""
        return self.recipe.predict(self.model, self.truth.train, self.truth.manipulated)

    @cached_property
    def identified_predictions(self) -> Tensor | None:
        """Predicted classes on S_f as it lies in S_tr, int64 ``[n]``."""
        if self.identified is None:
            return None
        return self.recipe.predict(self.model, self.truth.train, self.identified)


@dataclass(frozen=True)
class Curve:
    """One unlearner's results against α, averaged over seeds: what a summary is computed from.

    Attributes:
        values: for each metric, its mean at each α, in ascending order of α.
        gold: each metric's mean for A(S_tr without S_m).
        original: each metric's mean for M_o.
        seeds: the same of each seed alone, in their order.
    """

    values: dict[str, dict[float, float]]
    gold: dict[str, float]
    original: dict[str, float]
    seeds: tuple[Curve, ...] = ()
