"""``seal`` without parts of it that no option takes out: a plugin for ``ablation.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

from torch import Tensor, nn

import cutk
from cutk_builtin import looking, seeded
from cutk_builtin.doubt import BatchSuspicion, Suspicion, correcting
from cutk_builtin.looking import Outputs
from cutk_builtin.unlearners import seal
from cutk_builtin.unlearners.seal import Seal


class _Changed(Seal):
    """``seal`` with other values in the mathematics of its probe, or in what it looks at."""

    module: ClassVar[ModuleType] = seeded
    changed: ClassVar[Mapping[str, Any]] = {}

    def prepare(self, task: cutk.Task) -> list[Outputs]:
        with mock.patch.multiple(self.module, **self.changed):
            return super().prepare(task)

    def unlearn(self, task: cutk.Task, state: list[Outputs] | None = None) -> nn.Module:
        with mock.patch.multiple(self.module, **self.changed):
            return super().unlearn(task, state)


class WithoutNegatives(_Changed):
    """What is bad under other labels is no example of what is clean under this one: the rest of the label is."""

    name = "seal-without-negatives"
    changed: ClassVar[Mapping[str, Any]] = {"ENOUGH": math.inf}


class NeverBelieved(_Changed):
    """Such examples are never taken for representative."""

    name = "seal-never-believed"
    changed: ClassVar[Mapping[str, Any]] = {"_representative": lambda *_: False}


class WithoutCommonPart(_Changed):
    """Labels say by themselves how much of them is bad (ν = 1): no α is the same for all."""

    name = "seal-without-common-part"
    changed: ClassVar[Mapping[str, Any]] = {"OWN": 1e12}


class LabelsAtTheirWord(_Changed):
    """How many of S_f have a label says how much of it is bad, whatever the labels say by themselves."""

    name = "seal-labels-at-their-word"
    changed: ClassVar[Mapping[str, Any]] = {"OWN": 0.0}


class _RoundedSuspicion(Suspicion):
    """A guess that is never in doubt."""

    def beside(self, own: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        return super().beside(own, at).round()


class Rounded(Seal):
    """Who is likelier bad than not counts as bad, all others as clean: q is rounded to 0 and 1."""

    name = "seal-rounded"

    def _suspicion(self, *arguments: Any) -> Suspicion:
        found = super()._suspicion(*arguments)
        return _RoundedSuspicion(found.q.round(), found.probed, found.heard)


class ModelAlone(Seal):
    """After the round the probe isn't heard beside the model, where the transition is settled."""

    name = "seal-model-alone"

    def unlearn(self, task: cutk.Task, state: list[Outputs] | None = None) -> nn.Module:
        """Say nothing of whom the probe was told of."""

        def untold(*arguments: Any) -> seeded.Posterior:
            return seeded.suspected(*arguments)._replace(trusted=())

        with mock.patch.object(seal, "suspected", untold):
            return super().unlearn(task, state)


class LastLayer(_Changed):
    """Features are what the last layer is given."""

    name = "seal-last-layer"
    module = looking
    changed: ClassVar[Mapping[str, Any]] = {"LAYERS": 1}


class MeansAlone(_Changed):
    """Features are means over places, without the largest values there."""

    name = "seal-means-alone"
    module = looking
    changed: ClassVar[Mapping[str, Any]] = {"pooled": looking.averaged}


class FullRate(Seal):
    """A restart is always at the recipe's full rate."""

    name = "seal-full-rate"

    def _fit(
        self, task: cutk.Task, model: nn.Module, loss: cutk.Loss, steps: int, lr: float | None, progress: cutk.Progress
    ) -> nn.Module:
        return super()._fit(task, model, loss, steps, None if steps == self._after(task) else lr, progress)


class ByTheComplement(Seal):
    """In a restart suspects learn what they are by the second term of step 4."""

    name = "seal-complement"

    def unlearn(self, task: cutk.Task, state: list[Outputs] | None = None) -> nn.Module:
        """Teach them so."""

        def forgetting(task: cutk.Task, q: BatchSuspicion, weights: Tensor) -> cutk.Loss:
            return correcting(task, q, weights, open_too=False)

        with mock.patch.object(seal, "teaching", forgetting):
            return super().unlearn(task, state)


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide them."""
    probes = [WithoutNegatives, NeverBelieved, WithoutCommonPart, LabelsAtTheirWord]
    return [*probes, LastLayer, MeansAlone, Rounded, ModelAlone, FullRate, ByTheComplement]
