"""What only the evaluator knows, and what a metric is computed from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cutk.cost import Cost
from cutk.data.batches import TrainSet
from cutk.data.samples import Samples
from cutk.learning.recipe import Recipe, classes_of

__all__ = ["Curve", "Domain", "Evaluation", "Truth", "accuracy", "class_accuracies"]


def accuracy(predictions: Tensor, labels: Tensor) -> float | None:
    """Return the fraction of ``predictions`` that equal ``labels`` (both int64 ``[n]``), None if there are none.

    >>> import torch
    >>> accuracy(torch.tensor([1, 2, 3, 3]), torch.tensor([1, 2, 3, 4]))
    0.75
    """
    return float((predictions == labels).double().mean()) if len(labels) else None


def class_accuracies(predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return the accuracy on each class that ``labels`` hold, by the class's name (both int64 ``[n]``).

    >>> import torch
    >>> class_accuracies(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), ["cat", "dog", "eel"])
    {'cat': 0.5, 'dog': 1.0}
    """
    return {
        classes[label]: float((predictions[labels == label] == label).double().mean())
        for label in torch.unique(labels).tolist()
    }


Known = TypeVar("Known", "Domain", "Truth")


def _private(known: Known) -> Known:
    """Return the same with indices, labels and targets of its own; the contents of samples are shared."""
    own: dict[str, Any] = {}
    for name, value in vars(known).items():
        if isinstance(value, Tensor):
            own[name] = value.clone()
        elif isinstance(value, TrainSet):
            own[name] = value.drawing_from(torch.Generator().manual_seed(0))
        elif isinstance(value, Samples):
            own[name] = value.changed(labels=value.labels.clone())
    return replace(known, **own)


@dataclass(frozen=True, eq=False)
class Domain:
    """What one manipulation did, and where it does damage."""

    name: str  # the manipulation's
    manipulated: Tensor  # int64 [n], sorted: the indices of its part of S_m in S_tr
    affected: TrainSet  # unseen samples of its affected domain, with clean labels
    targets: Tensor  # int64 [len(affected)]: the class that the attack wants of each, −1 where it wants none
    start: int = 0  # where its samples begin among Truth.affected


@dataclass(frozen=True, eq=False)
class Truth:
    """The evaluator's knowledge of a scenario. It never meets a method."""

    train: TrainSet  # S_tr as a developer has it, in batches
    samples: Samples  # S_tr as it lies there, with its given labels, ids and names; without overlaid triggers
    manipulated: Tensor  # int64 [n], sorted: the indices of S_m in S_tr
    clean_labels: Tensor  # int64 [N]: the labels of S_tr before the manipulation; −1 where nobody knows any
    affected: TrainSet  # unseen samples of the affected domain D_m, with clean labels; of all domains, one by one
    targets: Tensor  # int64 [len(affected)]: the class that the attack wants of each, −1 where it wants none
    retain: TrainSet  # unseen samples outside D_m, with clean labels
    classes: tuple[str, ...]  # the classes' names
    domains: tuple[Domain, ...] = ()  # one for each manipulation
    held_out: Samples | None = None  # the part of the training pool that was held out for validation, if any was

    @property
    def target(self) -> int | None:
        """What ``targets`` was called when there was but one."""
        warnings.warn("Truth.target is one of Truth.targets since cutk 0.2.", DeprecationWarning, stacklevel=2)
        wanted = torch.unique(self.targets[self.targets >= 0])
        return int(wanted) if len(wanted) == 1 else None

    def private(self) -> Truth:
        """Return the same with indices, labels and targets of its own: what is written to them, nobody else sees."""
        return replace(_private(self), domains=tuple(_private(domain) for domain in self.domains))

    def on(self, domain: Domain) -> Truth:
        """Return the truth of one of ``domains``; what is outside all stays the same."""
        part = {name: getattr(domain, name) for name in ("manipulated", "affected", "targets")}
        return replace(self, domains=(domain,), **part)


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


@dataclass(eq=False)
class Evaluation:
    """One model under the evaluator's eyes; each set of samples goes through it once, whatever metrics ask.

    The original and gold, which were trained and saw no S_f, have neither ``identified`` nor ``cost``.
    """

    truth: Truth  # the scenario's
    model: nn.Module  # the model to judge, in eval mode
    recipe: Recipe  # how to run it
    _: KW_ONLY
    identified: Tensor | None = None  # int64 [n], the indices of S_f
    identified_before: Tensor | None = None  # int64 [n], the original model's predictions on S_f
    cost: Cost | None = None  # of the unlearning
    scalars: Mapping[str, Sequence[float | None]] = field(default_factory=dict)  # logged curves; None: wasn't finite
    suspicion: Tensor | None = None  # float32 [N], how suspicious the method finds each sample of S_tr, from 0 to 1
    probabilistic: bool = True  # whether that is meant as a probability of being manipulated

    def __post_init__(self) -> None:
        self._whole, self._judged = self.truth, self.model
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
        for name in ("identified", "identified_before", "suspicion"):
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
        return classes_of(self.affected_logits)

    @property
    def retain_predictions(self) -> Tensor:
        """Predicted classes on ``truth.retain``, int64 ``[n]``."""
        return classes_of(self.retain_logits)

    @property
    def manipulated_predictions(self) -> Tensor:
        """Predicted classes on S_m as it lies in S_tr, trigger included, int64 ``[n]``."""
        return classes_of(self.manipulated_logits)

    @property
    def identified_predictions(self) -> Tensor | None:
        """Predicted classes on S_f as it lies in S_tr, int64 ``[n]``."""
        outputs = self.identified_logits
        return None if outputs is None else classes_of(outputs)


@dataclass(frozen=True)
class Curve:
    """One unlearner's results against α, averaged over seeds: what a summary is computed from."""

    values: Mapping[str, Mapping[float, float]]  # for each metric, its mean at each α, in ascending order of α
    gold: Mapping[str, float]  # each metric's mean for A(S_tr without S_m)
    original: Mapping[str, float]  # each metric's mean for M_o
    seeds: tuple[Curve, ...] = ()  # the same for each seed alone; empty in these themselves
