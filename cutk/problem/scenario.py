"""Corrupt, hold out, train, identify: a corrective unlearning problem and the truth behind it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from cutk.chance import derive_seed, isolated_rng, stream
from cutk.components import Corruption, Identification, Manipulation, Model, Surrogate
from cutk.data.batches import ResidentTrainSet, TrainSet
from cutk.data.samples import Samples, Splits, raw, told
from cutk.data.triggers import Overlay
from cutk.errors import CutkError, UsageError, one_line
from cutk.learning.network import initialised
from cutk.learning.recipe import Recipe
from cutk.problem.composition import affected_by, compose
from cutk.problem.identification import require_indices
from cutk.problem.task import Log, Task
from cutk.problem.truth import Domain, Truth

__all__ = ["Scenario", "hold_out"]


def hold_out(train: Samples, fraction: float, generator: torch.Generator) -> tuple[Samples, Samples | None]:
    """Split a clean training pool into what is trained on and ``round(fraction · N)`` samples for validation."""
    count = round(fraction * len(train))
    if count == 0:
        return train, None
    order = torch.randperm(len(train), generator=generator)
    return train.select(order[count:].sort().values), train.select(order[:count].sort().values)


class _Surrogate(Surrogate):
    """Trains what a manipulation wants trained, with a copy of the scenario's recipe and a stream of its own."""

    def __init__(
        self, build: Callable[[], nn.Module], recipe: Recipe, resident: Callable[[Samples], TrainSet], seed: int
    ) -> None:
        self._build, self._recipe = copy.deepcopy((build, recipe))
        self._resident, self._seed = resident, seed

    def set_of(self, samples: Samples) -> TrainSet:
        """Return ``samples`` as batches for the model."""
        return self._resident(samples)

    def train(self, samples: Samples, steps: int | None = None) -> nn.Module:
        """Return the architecture, newly initialised and trained on ``samples`` with the recipe, in eval mode."""
        with isolated_rng(self._seed):
            train = self.set_of(samples)
            model = initialised(self._recipe.place(self._build()), train)
            generator = torch.Generator().manual_seed(self._seed)
            return self._recipe.train(model, train, steps=steps, generator=generator)


class Scenario:
    """One dataset, what went wrong with it, a model, a recipe and a seed: the evaluator's side of the benchmark.

    Manipulations that are composed work one after the other, each on the samples that those before it left alone, so
    its fractions are of those. S_m is the union of what they did. Where the dataset brings no validation set,
    ``validation_fraction`` of the training pool is held out.

    Hold-out, manipulation, identification, initialisation and batch order have streams of their own, all salted with
    the data, test samples included, so that a method can't compute one. An identification that is ``trusted``, being
    tested to write to nothing and to draw from its own stream alone, is handed the truth itself.
    """

    def __init__(
        self,
        splits: Splits,
        manipulations: Manipulation | Sequence[tuple[str, Manipulation]],
        model: Model,
        recipe: Recipe,
        seed: int,
        validation_fraction: float = 0.05,
        *,
        identification: Identification,
        trusted: bool = False,
    ) -> None:
        self.splits, self.recipe, self.seed = splits, recipe, seed
        self.identification, self._trusted = identification, trusted
        self._salt = splits.fingerprint()
        self._identified: dict[float, Tensor] = {}
        clean, self._held_out = splits.train, splits.validation
        if splits.validation is None:
            clean, self._held_out = hold_out(splits.train, validation_fraction, self._stream("hold-out"))
        self._build = partial(model.build, clean.shape, len(clean.classes))
        self._resident = partial(
            ResidentTrainSet,
            normalisation=splits.scale,
            augmentation=recipe.options.augmentation,
            device=recipe.device,
        )
        if isinstance(manipulations, Manipulation):
            manipulations = [(manipulations.name, manipulations)]
        corrupting = {
            # The first one does in company what it does alone.
            name: partial(self._corrupted, manipulation, f"manipulation/{position}" if position else "manipulation")
            for position, (name, manipulation) in enumerate(manipulations)
        }
        if not 0 < len(corrupting) == len(manipulations):
            names = "+".join(name for name, _ in manipulations)
            raise UsageError(f"Expected one or more manipulations, each once, got '{names}'.")
        self._composition = compose(clean, corrupting, self._stream("arrangement"))
        self.corruption = self._composition.union

    def _seed(self, purpose: str) -> int:
        return derive_seed(self.seed, purpose, self._salt)

    def _stream(self, purpose: str) -> torch.Generator:
        return stream(self.seed, purpose, self._salt)

    def _corrupted(self, manipulation: Manipulation, purpose: str, train: Samples) -> Corruption:
        surrogate: list[Surrogate] = []
        if manipulation.trains:
            seed = self._seed(f"{purpose}/surrogate")
            surrogate.append(_Surrogate(self._build, self.recipe, self._resident, seed))
        with isolated_rng(self._seed(purpose)):
            return manipulation.corrupt(train, self._stream(purpose), *surrogate)

    @cached_property
    def train(self) -> ResidentTrainSet:
        """S_tr as the developer has it."""
        done = self.corruption
        return self._resident(done.train, overlays=done.overlays, clean_labels=self._composition.told_labels)

    @cached_property
    def validation(self) -> ResidentTrainSet | None:
        """Held-out samples, clean."""
        return None if self._held_out is None else self._resident(self._held_out)

    @cached_property
    def truth(self) -> Truth:
        """What only the evaluator knows; the only place where the test set is looked at."""
        test = self.splits.test
        outside = torch.ones(len(test), dtype=torch.bool)
        domains: list[Domain] = []
        affected: list[ResidentTrainSet] = []
        for name, done in self._composition.parts.items():
            inside = affected_by(name, done, test)
            if done.trigger is None:
                # Without its trigger a sample is outside an affected domain, whatever its class.
                outside &= ~inside
            samples = test.select(inside)
            overlays = [Overlay(done.trigger, torch.arange(len(samples)))] if done.trigger else []
            targets = torch.tensor(done.targets or (-1,) * len(test.classes))[samples.labels]
            start = sum(len(before) for before in affected)
            affected.append(self._resident(samples, overlays=overlays))
            domains.append(Domain(name, done.manipulated, affected[-1], targets, start))
        return Truth(
            train=self.train,
            samples=self.corruption.train,
            manipulated=self.corruption.manipulated,
            clean_labels=self._composition.clean_labels,
            affected=ResidentTrainSet.joined(affected),
            targets=torch.cat([domain.targets for domain in domains]),
            retain=self._resident(test.select(outside)),
            classes=test.classes,
            domains=tuple(domains),
            held_out=self._held_out if self.splits.validation is None else None,
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 over the clean data and all that was done to them, by whatever options."""
        made, test, labels = self._composition, self.splits.test, self._composition.told_labels
        digest = hashlib.sha256(self._salt.encode())

        def add(*tensors: Tensor) -> None:
            for tensor in tensors:
                digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(raw(tensor))

        # Contents that nobody changed are told by the clean data and the ids.
        samples = made.union.train
        add(samples.ids, samples.labels, made.clean_labels, *(() if made.same_x else (samples.x,)))
        for name, done in made.parts.items():
            digest.update(f"{name} {done.targets}".encode())
            inside = affected_by(name, done, test)
            add(done.manipulated, inside)
            for trigger, indices in done.overlays:
                add(indices, trigger.apply(samples.x[indices], labels[indices], samples.ids[indices]))
            if done.trigger is not None:
                add(done.trigger.apply(test.x[inside], test.labels[inside], test.ids[inside]))
        return digest.hexdigest()

    def build(self) -> nn.Module:
        """Return the architecture with arbitrary weights, to load others into."""
        with isolated_rng(0):
            return self._build()

    def check_model(self, name: str) -> None:
        """Raise a ``UsageError`` unless the model, which the user calls ``name``, fits the samples and the classes."""
        train = self.splits.train
        form, shape, classes = train.form, train.shape, len(train.classes)
        taken = f"images of {'×'.join(map(str, shape))}" if form == "images" else f"{shape[0]} {form}"
        dtype = torch.int64 if form == "tokens" else torch.float32
        try:
            model = self.recipe.place(self.build()).eval()
            with isolated_rng(0), torch.inference_mode():
                logits = model(torch.zeros(2, *shape, dtype=dtype, device=self.recipe.device))
        except CutkError:
            raise
        except Exception as error:
            larger = ", or larger images" if form == "images" else ""
            raise UsageError(
                f"The model '{name}' can't take {taken}: {one_line(error).rstrip('.')}. "
                f"Choose another with --model{larger}."
            ) from error
        came = told(logits) if isinstance(logits, Tensor) else type(logits).__name__
        if not isinstance(logits, Tensor) or logits.shape != (2, classes) or not logits.is_floating_point():
            raise UsageError(
                f"The model '{name}' doesn't fit {taken} in {classes} classes: expected logits "
                f"float32 [2, {classes}] for two of them, got {came}. Choose another with --model."
            )

    def _problem(self, original: nn.Module, identified: Tensor, log: Log | None) -> Task:
        initialisation, order = self.sealed_seeds()
        return Task(
            original,
            self.train,
            identified,
            self.recipe,
            build=self._build,
            validation=self.validation,
            log=log,
            initialisation_seed=initialisation,
            order_seed=order,
        )

    def _task(self, original: nn.Module, identified: Tensor, log: Log | None) -> Task:
        task = self._problem(original, identified, log)
        return task.private(self.unlearning_seed(), task.log)

    def train_original(self, log: Log | None = None) -> nn.Module:
        """Return M_o = A(S_tr)."""
        return self._task(nn.Identity(), self.corruption.manipulated, log).retrain(torch.arange(len(self.train)))

    def train_gold(self, log: Log | None = None) -> nn.Module:
        """Return A(S_tr without S_m), with the seeds of the original run."""
        task = self._task(nn.Identity(), self.corruption.manipulated, log)
        if len(task.retained) == 0:
            raise UsageError(f"All {len(self.train)} training samples are manipulated: expected some that aren't.")
        return task.retrain(task.retained)

    def identified(self, alpha: float) -> Tensor:
        """Return S_f for ``alpha`` in (0, 1]: int64 ``[n]``, sorted, n ≥ 1."""
        if not 0 < alpha <= 1:
            raise UsageError(f"Alpha: expected a fraction above 0 and at most 1, got {alpha!r}.")
        if alpha not in self._identified:
            chance = self._stream("identification")
            if self._trusted:
                found = self.identification.identify(self.truth, alpha, chance)
            else:
                with isolated_rng(self._seed("identification")):
                    found = self.identification.identify(self.truth.private(), alpha, chance)
            self._identified[alpha] = require_indices(found, len(self.train), f"'{self.identification.name}'").clone()
        return self._identified[alpha].clone()

    def labels_look_right(self, identified: Tensor) -> float:
        """Return the part of S_f (int64 ``[n]``) whose given label is the clean one."""
        clean = self._composition.clean_labels[identified]
        return float((self.corruption.train.labels[identified] == clean).double().mean())

    def task(self, original: nn.Module, alpha: float, log: Log | None = None) -> Task:
        """Return the problem that a method is given: private copies, and S_f."""
        return self._task(original, self.identified(alpha), log)

    def problem(self, original: nn.Module, alpha: float, log: Log | None = None) -> Task:
        """Return what private copies for methods are made of: it shares the original and the recipe with others."""
        return self._problem(original, self.identified(alpha), log)

    def sealed_seeds(self) -> tuple[int, int]:
        """Return what a ``Task`` is given and doesn't show: the seeds of initialisation and order."""
        return self._seed("initialisation"), self._seed("order")

    def unlearning_seed(self) -> int:
        """Return what a method's own chance is seeded with."""
        return self._seed("unlearning")
