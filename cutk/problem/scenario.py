"""Corrupt, hold out, train, identify: a corrective unlearning problem and the truth behind it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from cutk.chance import derive_seed, isolated_rng, stream
from cutk.components import Affected, Corruption, Identification, Manipulation, Model, Surrogate
from cutk.data.batches import Overlay, ResidentTrainSet, Trigger, checksum
from cutk.data.samples import Normalisation, Samples, Shape, Splits
from cutk.errors import CellError, CutkError, UsageError, one_line
from cutk.learning.recipe import Recipe
from cutk.problem.identification import require_alpha, require_indices
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


@dataclass(frozen=True)
class _Builder:
    """Makes the architecture, and holds nothing else."""

    model: Model
    shape: Shape
    num_classes: int

    def __call__(self) -> nn.Module:
        return self.model.build(self.shape, self.num_classes)


class _Surrogate(Surrogate):
    """Trains what a manipulation wants trained, with a copy of the scenario's recipe and a stream of its own."""

    def __init__(self, builder: _Builder, recipe: Recipe, normalisation: Normalisation, seed: int) -> None:
        self._builder, self._recipe = copy.deepcopy((builder, recipe))
        self._normalisation, self._seed = normalisation, seed

    def set_of(self, samples: Samples) -> ResidentTrainSet:
        """Return ``samples`` as batches for the model: normalised, on the device."""
        recipe = self._recipe
        return ResidentTrainSet(samples, self._normalisation, recipe.options.augmentation, device=recipe.device)

    def train(self, samples: Samples, steps: int | None = None) -> nn.Module:
        """Return the architecture, newly initialised and trained on ``samples`` with the recipe, in eval mode."""
        with isolated_rng(self._seed):
            model = self._recipe.place(self._builder())
            generator = torch.Generator().manual_seed(self._seed)
            return self._recipe.train(model, self.set_of(samples), steps=steps, generator=generator)


@dataclass(frozen=True, eq=False)
class _Part:
    """One manipulation's doing, with its positions in the whole training set."""

    name: str
    done: Corruption
    manipulated: Tensor
    overlays: tuple[Overlay, ...]

    def moved(self, to: Tensor) -> _Part:
        """Return the same where the sample at ``i`` stands at ``to[i]`` now."""
        overlays = tuple(Overlay(trigger, to[indices].sort().values) for trigger, indices in self.overlays)
        return replace(self, manipulated=to[self.manipulated].sort().values, overlays=overlays)


def _require_corruption(done: object, clean: Samples, who: str) -> Corruption:
    """Refuse what a manipulation returned if the benchmark could not stand on it.

    Raises:
        CellError: says what was expected and what came.
    """
    if not isinstance(done, Corruption):
        raise CellError(f"{who}: expected corrupt() to return a cutk.Corruption, got {type(done).__name__}.")
    after, count, classes = done.train, len(clean), len(clean.classes)
    if (after.form, after.shape, after.classes) != (clean.form, clean.shape, clean.classes):
        raise CellError(f"{who}: expected a training set of the form, shape and classes of the clean one.")
    if len(after) < count or not torch.equal(after.ids[:count], clean.ids):
        raise CellError(f"{who}: expected the clean samples in their order, and behind them those that were added.")
    marked = torch.zeros(len(after), dtype=torch.bool)
    marked[require_indices(done.manipulated, len(after), f"{who}: manipulated")] = True
    if not marked[count:].all():
        raise CellError(f"{who}: expected all {len(after) - count} samples that were added among manipulated.")
    if ((after.labels[:count] != clean.labels) & ~marked[:count]).any():
        raise CellError(f"{who}: expected every sample with another label among manipulated.")
    for _, indices in done.overlays:
        if not marked[require_indices(indices, len(after), f"{who}: overlay")].all():
            raise CellError(f"{who}: expected every overlaid sample among manipulated.")
    if done.targets is not None and not (
        len(done.targets) == classes and all(-1 <= target < classes for target in done.targets)
    ):
        raise CellError(
            f"{who}: expected targets for {classes} classes, each from −1 to {classes - 1}, got {done.targets}."
        )
    known = done.clean_labels
    if known is not None and (known.dtype != torch.int64 or known.shape != after.labels.shape):
        raise CellError(f"{who}: expected clean_labels int64 [{len(after)}].")
    return done


def _mask_of(affected: Affected | None, samples: Samples, who: str) -> Tensor:
    """Return which samples lie in an affected domain, bool ``[n]``."""
    if affected is None:
        return torch.ones(len(samples), dtype=torch.bool)
    if not callable(affected):
        return torch.isin(samples.labels, torch.tensor(affected, dtype=torch.int64))
    mask = affected(samples)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != samples.labels.shape:
        raise CellError(f"{who}: expected affected() to return bool [{len(samples)}].")
    return mask


class _Pot:
    """A training set to which one manipulation after another does its work, each to what the others left alone."""

    def __init__(self, clean: Samples) -> None:
        self.samples = clean
        self.clean_labels = clean.labels
        self.same_x = True
        self.parts: list[_Part] = []

    def add(self, name: str, corrupt: Manipulation, generator: torch.Generator, *surrogate: Surrogate) -> None:
        """Let a manipulation work on the samples that are still as they were."""
        free = torch.ones(len(self.samples), dtype=torch.bool)
        for part in self.parts:
            free[part.manipulated] = False
        rest = free.nonzero().flatten()
        given = self.samples.select(rest) if self.parts else self.samples
        before = checksum(given.x), checksum(given.labels)
        done = _require_corruption(corrupt.corrupt(given, generator, *surrogate), given, f"'{name}'")
        if (checksum(given.x), checksum(given.labels)) != before:
            raise CellError(f"'{name}' wrote to the clean samples. Work on copies: train.x.clone().")
        count, added = len(given), len(done.train) - len(given)
        where = torch.cat([rest, torch.arange(len(self.samples), len(self.samples) + added)])
        overlays = tuple(Overlay(trigger, where[indices]) for trigger, indices in done.overlays)
        self.parts.append(_Part(name, done, where[done.manipulated], overlays))
        unknown = torch.full((added,), -1) if done.clean_labels is None else done.clean_labels[count:]
        self.clean_labels = torch.cat([self.clean_labels, unknown])
        self.same_x = self.same_x and done.train.x is given.x
        if given is self.samples:
            self.samples = done.train
            return
        labels, x = self.samples.labels.clone(), self.samples.x
        labels[rest] = done.train.labels[:count]
        if done.train.x is not given.x:
            x = x.clone()
            x[rest] = done.train.x[:count]
        self.samples = self.samples.changed(x=x, labels=labels)
        if added:
            self.samples = self.samples.extended(done.train.x[count:], done.train.labels[count:])

    def rearrange(self, order: Tensor) -> None:
        """Put the sample at ``order[i]`` in place ``i``."""
        self.samples, self.clean_labels = self.samples.select(order), self.clean_labels[order]
        self.parts = [part.moved(order.argsort()) for part in self.parts]


def _shown(shape: Shape, form: str) -> str:
    return f"{form} of {'×'.join(map(str, shape))}" if form == "images" else f"{shape[0]} {form}"


class Scenario:
    """One dataset, what went wrong with it, a model, a recipe and a seed: the evaluator's side of the benchmark.

    Manipulations that are composed work one after the other, each on the samples that those before it left alone, so
    its fractions are of those. S_m is the union of what they did.

    Args:
        splits: the clean data.
        manipulations: what goes wrong with them: one, or several with their names.
        model: the architecture.
        recipe: A.
        seed: fixes hold-out, manipulation, identification, initialisation and batch order, each by its own stream. All
            streams are salted with the data, test samples included, so that a method can't compute one.
        validation_fraction: how much of the training pool is held out, if the dataset brings no validation set.
        identification: who is in S_f.

    Raises:
        UsageError: if manipulations or model don't fit the data.
        CellError: if a manipulation returned what no benchmark could stand on.
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
    ) -> None:
        self.splits, self.recipe, self.seed, self.identification = splits, recipe, seed, identification
        self._salt = splits.fingerprint()
        self._identified: dict[float, Tensor] = {}
        if splits.validation is None:
            clean, self._held_out = hold_out(splits.train, validation_fraction, self._stream("hold-out"))
        else:
            clean, self._held_out = splits.train, splits.validation
        self._builder = _Builder(model, clean.shape, len(clean.classes))
        if isinstance(manipulations, Manipulation):
            manipulations = [(manipulations.name, manipulations)]
        self._pot = self._corrupted(clean, manipulations)

    def _seed(self, purpose: str) -> int:
        return derive_seed(self.seed, purpose, self._salt)

    def _stream(self, purpose: str) -> torch.Generator:
        return stream(self.seed, purpose, self._salt)

    def _corrupted(self, clean: Samples, manipulations: Sequence[tuple[str, Manipulation]]) -> _Pot:
        names = [name for name, _ in manipulations]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"Expected one or more manipulations, each once, got '{'+'.join(names)}'.")
        pot = _Pot(clean)
        for position, (name, manipulation) in enumerate(manipulations):
            # The first one does in company what it does alone.
            purpose = f"manipulation/{position}" if position else "manipulation"
            surrogate = [self._surrogate(f"{purpose}/surrogate")] if manipulation.trains else []
            with isolated_rng(self._seed(purpose)):
                pot.add(name, manipulation, self._stream(purpose), *surrogate)
        if len(pot.samples) > len(clean):
            # What was added stands at the end, which would tell who was.
            pot.rearrange(torch.randperm(len(pot.samples), generator=self._stream("arrangement")))
        return pot

    def _surrogate(self, purpose: str) -> Surrogate:
        return _Surrogate(self._builder, self.recipe, self._normalisation, self._seed(purpose))

    @cached_property
    def corruption(self) -> Corruption:
        """What all manipulations did together; trigger, targets and affected domain only where there was but one."""
        pot, parts = self._pot, self._pot.parts
        alone = parts[0].done if len(parts) == 1 else None
        return Corruption(
            train=pot.samples,
            manipulated=torch.cat([part.manipulated for part in parts]).sort().values,
            overlays=tuple(overlay for part in parts for overlay in part.overlays),
            trigger=alone.trigger if alone else None,
            affected=alone.affected if alone else None,
            targets=alone.targets if alone else None,
            clean_labels=pot.clean_labels,
        )

    @cached_property
    def _normalisation(self) -> Normalisation:
        return self.splits.normalisation or Normalisation.of(self.splits.train)

    def _resident(self, samples: Samples, trigger: Trigger | None = None) -> ResidentTrainSet:
        overlays = () if trigger is None or not len(samples) else (Overlay(trigger, torch.arange(len(samples))),)
        return ResidentTrainSet(
            samples,
            self._normalisation,
            self.recipe.options.augmentation,
            device=self.recipe.device,
            overlays=overlays,
        )

    @cached_property
    def train(self) -> ResidentTrainSet:
        """S_tr as the developer has it."""
        corruption, clean = self.corruption, self._pot.clean_labels
        return ResidentTrainSet(
            corruption.train,
            self._normalisation,
            self.recipe.options.augmentation,
            device=self.recipe.device,
            overlays=corruption.overlays,
            clean_labels=torch.where(clean < 0, corruption.train.labels, clean),
        )

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
        for part in self._pot.parts:
            inside = _mask_of(part.done.affected, test, f"'{part.name}'")
            if part.done.trigger is None:
                # Without its trigger a sample is outside an affected domain, whatever its class.
                outside &= ~inside
            affected = test.select(inside.nonzero().flatten())
            targets = torch.tensor(part.done.targets or (-1,) * len(test.classes))[affected.labels]
            start = sum(len(domain.affected) for domain in domains)
            samples = self._resident(affected, part.done.trigger)
            domains.append(Domain(part.name, part.manipulated, samples, targets, start))
        return Truth(
            train=self.train,
            samples=self.corruption.train,
            manipulated=self.corruption.manipulated,
            clean_labels=self._pot.clean_labels,
            affected=ResidentTrainSet.joined([domain.affected for domain in domains]),  # type: ignore[misc]
            targets=torch.cat([domain.targets for domain in domains]),
            retain=self._resident(test.select(outside.nonzero().flatten())),
            classes=test.classes,
            domains=tuple(domains),
            held_out=self._held_out if self.splits.validation is None else None,
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 over the clean data and all that was done to them, to their test samples included.

        It is of what a manipulation made, not of its name and options, so it tells when a file changed that one reads.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        pot, test = self._pot, self.splits.test
        digest = hashlib.sha256(self._salt.encode())

        def add(*tensors: Tensor) -> None:
            for tensor in tensors:
                digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().cpu().numpy().data)

        # Contents that nobody changed are told by the clean data and the ids.
        add(pot.samples.ids, pot.samples.labels, pot.clean_labels, *(() if pot.same_x else (pot.samples.x,)))
        told = torch.where(pot.clean_labels < 0, pot.samples.labels, pot.clean_labels)
        for part in pot.parts:
            digest.update(f"{part.name} {part.done.targets}".encode())
            inside = _mask_of(part.done.affected, test, f"'{part.name}'")
            add(part.manipulated, inside)
            for trigger, indices in part.overlays:
                add(indices, trigger.apply(pot.samples.x[indices], told[indices], pot.samples.ids[indices]))
            if part.done.trigger is not None:
                add(part.done.trigger.apply(test.x[inside], test.labels[inside], test.ids[inside]))
        return digest.hexdigest()

    def build(self) -> nn.Module:
        """Return the architecture with arbitrary weights, to load others into."""
        with isolated_rng(0):
            return self._builder()

    def check_model(self, name: str) -> None:
        """Send two blank samples through the architecture, to see that it takes them before anything is trained.

        Args:
            name: how the user calls the model: the component itself doesn't know under which name it was asked for.

        Raises:
            UsageError: if it can't be built for these samples, can't take them, or returns no logits for the classes.
        """
        shape, num_classes = self._builder.shape, self._builder.num_classes
        form = self.splits.train.form
        taken = _shown(shape, form)
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
        if not isinstance(logits, Tensor):
            came = type(logits).__name__
        elif logits.shape != (2, num_classes) or not logits.is_floating_point():
            came = f"{logits.dtype} {list(logits.shape)}".removeprefix("torch.")
        else:
            return
        raise UsageError(
            f"The model '{name}' doesn't fit {taken} in {num_classes} classes: expected logits "
            f"float32 [2, {num_classes}] for two of them, got {came}. Choose another with --model."
        )

    def _task(self, original: nn.Module, identified: Tensor, log: Log | None) -> Task:
        task = Task(
            original,
            self.train,
            identified,
            self.recipe,
            build=self._builder,
            validation=self.validation,
            log=log,
            initialisation_seed=self._seed("initialisation"),
            order_seed=self._seed("order"),
        )
        return task.private(self.unlearning_seed(), task.log)

    def train_original(self, log: Log | None = None) -> nn.Module:
        """Return M_o = A(S_tr)."""
        task = self._task(nn.Identity(), self.corruption.manipulated, log)
        return task.retrain(torch.arange(len(self.train)))

    def train_gold(self, log: Log | None = None) -> nn.Module:
        """Return A(S_tr without S_m), with the seeds of the original run.

        Raises:
            UsageError: if S_m is all of S_tr, so that nothing is left to train on.
        """
        task = self._task(nn.Identity(), self.corruption.manipulated, log)
        if len(task.retained) == 0:
            raise UsageError(f"All {len(self.train)} training samples are manipulated: expected some that aren't.")
        return task.retrain(task.retained)

    def identified(self, alpha: float) -> Tensor:
        """Return S_f for ``alpha``, int64 ``[n]``, sorted.

        Raises:
            UsageError: if α is outside (0, 1], or nobody would be identified.
            CellError: if the identification returned something else.
        """
        require_alpha(alpha)
        if alpha not in self._identified:
            with isolated_rng(self._seed("identification")):
                found = self.identification.identify(self.truth, alpha, self._stream("identification"))
            self._identified[alpha] = require_indices(found, len(self.train), f"'{self.identification.name}'").clone()
        return self._identified[alpha].clone()

    def labels_look_right(self, identified: Tensor) -> float:
        """Return the part of S_f (int64 ``[n]``) whose given label equals the clean label.

        Near 1 it says that the labels weren't manipulated: to predict S_f as labelled is right then.
        """
        clean = self._pot.clean_labels[identified]
        return float((self.corruption.train.labels[identified] == clean).double().mean())

    def task(self, original: nn.Module, alpha: float, log: Log | None = None) -> Task:
        """Return the problem that a method is given: private copies, and S_f."""
        return self._task(original, self.identified(alpha), log)

    def unlearning_seed(self) -> int:
        """Return what a method's own chance is seeded with."""
        return self._seed("unlearning")
