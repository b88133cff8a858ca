"""What only the evaluator knows, and what a metric is computed from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cutk.cost import Cost
from cutk.data.batches import TrainSet
from cutk.data.samples import Samples
from cutk.errors import CellError
from cutk.learning.recipe import Recipe

__all__ = ["Curve", "Domain", "Evaluation", "Truth", "accuracy", "class_accuracies"]


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


def _apart(samples: TrainSet) -> TrainSet:
    return samples.drawing_from(torch.Generator().manual_seed(0))


@dataclass(frozen=True, eq=False)
class Domain:
    """What one manipulation did, and where it does damage.

    Attributes:
        name: the manipulation's.
        manipulated: int64 ``[n]``, sorted: the indices of its part of S_m in S_tr.
        affected: unseen samples of its affected domain, with clean labels.
        targets: int64 ``[len(affected)]``: the class that the attack wants of each, −1 where it wants none.
        start: where its samples begin among ``Truth.affected``.
    """

    name: str
    manipulated: Tensor
    affected: TrainSet
    targets: Tensor
    start: int = 0

    def private(self) -> Domain:
        """Return the same with indices, labels and targets of its own."""
        own = {name: getattr(self, name).clone() for name in ("manipulated", "targets")}
        return replace(self, **own, affected=_apart(self.affected))


@dataclass(frozen=True, eq=False)
class Truth:
    """The evaluator's knowledge of a scenario. It never meets a method.

    Attributes:
        train: S_tr as a developer has it, in batches.
        samples: S_tr as it lies there, with its given labels, ids and names; without overlaid triggers.
        manipulated: int64 ``[n]``, sorted: the indices of S_m in S_tr.
        clean_labels: int64 ``[N]``: the labels of S_tr before the manipulation; −1 where nobody knows any.
        affected: unseen samples of the affected domain D_m, with clean labels. Where manipulations were composed, those
            of all their domains, one behind the other.
        targets: int64 ``[len(affected)]``: the class that the attack wants of each, −1 where it wants none.
        retain: unseen samples outside D_m, with clean labels.
        classes: the classes' names.
        domains: one for each manipulation.
        held_out: the part of the training pool that was held out for validation, if any was.
    """

    train: TrainSet
    samples: Samples
    manipulated: Tensor
    clean_labels: Tensor
    affected: TrainSet
    targets: Tensor
    retain: TrainSet
    classes: tuple[str, ...]
    domains: tuple[Domain, ...] = ()
    held_out: Samples | None = None

    @property
    def target(self) -> int | None:
        """What ``targets`` was called when there was but one."""
        warnings.warn("Truth.target is one of Truth.targets since cutk 0.2.", DeprecationWarning, stacklevel=2)
        wanted = torch.unique(self.targets[self.targets >= 0])
        return int(wanted) if len(wanted) == 1 else None

    def private(self) -> Truth:
        """Return the same with indices, labels and targets of its own: what is written to them, nobody else sees."""
        return replace(
            self,
            manipulated=self.manipulated.clone(),
            clean_labels=self.clean_labels.clone(),
            targets=self.targets.clone(),
            train=_apart(self.train),
            affected=_apart(self.affected),
            retain=_apart(self.retain),
            samples=self.samples.changed(labels=self.samples.labels.clone()),
            domains=tuple(domain.private() for domain in self.domains),
        )

    def on(self, domain: Domain) -> Truth:
        """Return the truth of one domain: what one of several manipulations did; what is outside all stays the same."""
        part = {name: getattr(domain, name) for name in ("manipulated", "affected", "targets")}
        return replace(self, domains=(domain,), **part)


def _classes(logits: Tensor) -> Tensor:
    if not torch.isfinite(logits).all():
        raise CellError("The model's outputs are not finite.")
    return logits.argmax(1)


def _same(model: nn.Module, other: nn.Module) -> bool:
    """Say whether two models agree in weights, in what they are made of, and in modes, hooks and gradients."""

    def settings(module: nn.Module) -> dict[str, object]:
        plain = (bool, int, float, str, tuple, type(None))
        kept = {n: v if isinstance(v, plain) else len(v) if isinstance(v, dict) else 0 for n, v in vars(module).items()}
        needs = {name: (p.requires_grad, p.grad is None) for name, p in module.named_parameters(recurse=False)}
        return {"": type(module), **kept, **needs}

    mine, theirs = model.state_dict(), other.state_dict()
    return (
        list(map(settings, model.modules())) == list(map(settings, other.modules()))
        and mine.keys() == theirs.keys()
        and all(value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]) for name, value in mine.items())
    )


class Evaluation:
    """One model under the evaluator's eyes; each set of samples goes through it once, whatever metrics ask.

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
        self.truth = self._whole = truth
        self.model = self._judged = model
        self.recipe = recipe
        self.identified = identified
        self.identified_before = identified_before
        self.cost = cost
        self.scalars: Mapping[str, Sequence[float | None]] = scalars or {}
        self._copies: list[nn.Module] = []
        self._outputs: dict[str, Tensor] = {}
        self._start = 0

    def private(self) -> Evaluation:
        """Return the same with a model, labels and indices that are nobody else's, for one metric at a time.

        The model is copied anew only where a metric didn't leave it as it was; outputs are computed once.
        """
        if not self._copies or not _same(self._copies[0], self._judged):
            self._copies[:] = [copy.deepcopy(self._judged)]
        part = copy.copy(self)
        part.model, part.truth = self._copies[0], self.truth.private()
        for name in ("identified", "identified_before"):
            mine = getattr(self, name)
            setattr(part, name, None if mine is None else mine.clone())
        part.scalars = {name: list(values) for name, values in self.scalars.items()}
        return part

    def on(self, domain: Domain) -> Evaluation:
        """Return the same model judged on one of ``truth.domains``; it reads what was computed for all of them."""
        part = copy.copy(self)
        part.truth, part._start = self._whole.on(domain), domain.start
        return part

    def _once(self, which: str, samples: TrainSet, indices: Tensor | None = None) -> Tensor:
        if which not in self._outputs:
            self._outputs[which] = self.recipe.logits(self._judged, samples, indices)
        return self._outputs[which].clone()

    @property
    def affected_logits(self) -> Tensor:
        """The model's outputs on ``truth.affected``, float32 ``[n, classes]``."""
        outputs = self._once("affected", self._whole.affected)
        return outputs[self._start : self._start + len(self.truth.affected)]

    @property
    def retain_logits(self) -> Tensor:
        """The model's outputs on ``truth.retain``, float32 ``[n, classes]``."""
        return self._once("retain", self._whole.retain)

    @property
    def manipulated_logits(self) -> Tensor:
        """The model's outputs on S_m as it lies in S_tr, trigger included, float32 ``[n, classes]``."""
        outputs = self._once("manipulated", self._whole.train, self._whole.manipulated)
        return outputs[torch.searchsorted(self._whole.manipulated, self.truth.manipulated)]

    @property
    def identified_logits(self) -> Tensor | None:
        """The model's outputs on S_f as it lies in S_tr, float32 ``[n, classes]``."""
        return None if self.identified is None else self._once("identified", self._whole.train, self.identified)

    @property
    def affected_predictions(self) -> Tensor:
        """Predicted classes on ``truth.affected``, int64 ``[n]``."""
        return _classes(self.affected_logits)

    @property
    def retain_predictions(self) -> Tensor:
        """Predicted classes on ``truth.retain``, int64 ``[n]``."""
        return _classes(self.retain_logits)

    @property
    def manipulated_predictions(self) -> Tensor:
        """Predicted classes on S_m as it lies in S_tr, trigger included, int64 ``[n]``."""
        return _classes(self.manipulated_logits)

    @property
    def identified_predictions(self) -> Tensor | None:
        """Predicted classes on S_f as it lies in S_tr, int64 ``[n]``."""
        outputs = self.identified_logits
        return None if outputs is None else _classes(outputs)


@dataclass(frozen=True)
class Curve:
    """One unlearner's results against α, averaged over seeds: what a summary is computed from.

    Attributes:
        values: for each metric, its mean at each α, in ascending order of α.
        gold: each metric's mean for A(S_tr without S_m).
        original: each metric's mean for M_o.
        seeds: the same for each seed alone; empty in these themselves.
    """

    values: Mapping[str, Mapping[float, float]]
    gold: Mapping[str, float]
    original: Mapping[str, float]
    seeds: tuple[Curve, ...] = ()
