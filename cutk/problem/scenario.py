"""Corrupt, hold out, train, identify: a corrective unlearning problem and the truth behind it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from cutk.chance import derive_seed, isolated_rng, stream
from cutk.components import Corruption, Manipulation, Model
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Images, Normalisation, Splits
from cutk.errors import CutkError, UsageError, one_line
from cutk.learning.recipe import Recipe
from cutk.problem.task import Log, Task
from cutk.problem.truth import Truth

__all__ = ["Scenario", "hold_out", "identify"]


def hold_out(train: Images, fraction: float, generator: torch.Generator) -> tuple[Images, Images | None]:
    """Split a clean training pool into what is trained on and ``round(fraction · N)`` samples for validation."""
    count = round(fraction * len(train))
    if count == 0:
        return train, None
    order = torch.randperm(len(train), generator=generator)
    return train.select(order[count:].sort().values), train.select(order[:count].sort().values)


def identify(manipulated: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw S_f: ``round(alpha · |S_m|)`` of the manipulated samples, uniformly (paper, section 2.2).

    With a generator in the same state, a smaller α gives a subset of what a larger one gives.

    Args:
        manipulated: int64 ``[n]``, the indices of S_m.
        alpha: the identified fraction, in (0, 1].
        generator: a CPU generator.

    Raises:
        UsageError: if α is outside (0, 1] or so small that no sample is identified.
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"Alpha: expected a fraction above 0 and at most 1, got {alpha:g}.")
    count = round(alpha * len(manipulated))
    if count == 0:
        raise UsageError(
            f"Alpha {alpha:g} identifies none of the {len(manipulated)} manipulated samples; "
            f"use at least {1 / max(len(manipulated), 1):.3g}, or manipulate more."
        )
    order = torch.randperm(len(manipulated), generator=generator)
    return manipulated[order[:count]].sort().values


@dataclass(frozen=True)
class _Builder:
    """Makes the architecture, and holds nothing else."""

    model: Model
    shape: tuple[int, int, int]
    num_classes: int

    def __call__(self) -> nn.Module:
        return self.model.build(self.shape, self.num_classes)


def _check(corruption: Corruption, clean: Images) -> None:
    """Refuse what a manipulation returned if the benchmark could not stand on it."""
    marked = corruption.manipulated
    if marked.dtype != torch.int64 or marked.ndim != 1 or len(marked) == 0:
        raise ValueError(f"expected manipulated int64 [n] with n ≥ 1, got {marked.dtype} {list(marked.shape)}")
    if not (marked[1:] > marked[:-1]).all() or not 0 <= int(marked[0]) <= int(marked[-1]) < len(clean):
        raise ValueError(f"expected manipulated to be sorted, without repeats, and within 0 … {len(clean) - 1}")
    if corruption.train.pixels.shape != clean.pixels.shape or corruption.train.classes != clean.classes:
        raise ValueError("expected the manipulated training set to have the size, shape and classes of the clean one")


class Scenario:
    """One dataset, manipulation, model, recipe and seed: the evaluator's side of the benchmark.

    Args:
        splits: the clean data.
        manipulation: what goes wrong with them.
        model: the architecture.
        recipe: A.
        seed: fixes hold-out, manipulation, identification, initialisation and batch order, each by its own stream.
        validation_fraction: how much of the training pool is held out, if the dataset brings no validation set.

    Raises:
        UsageError: if manipulation or model don't fit the data.
    """

    def __init__(
        self,
        splits: Splits,
        manipulation: Manipulation,
        model: Model,
        recipe: Recipe,
        seed: int,
        validation_fraction: float = 0.05,
    ) -> None:
        self.recipe = recipe
        self.seed = seed
        self.splits = splits
        if splits.validation is None:
            clean, self._held_out = hold_out(splits.train, validation_fraction, stream(seed, "validation"))
        else:
            clean, self._held_out = splits.train, splits.validation
        self.clean_labels = clean.labels
        self.corruption: Corruption = manipulation.corrupt(clean, stream(seed, "manipulation"))
        _check(self.corruption, clean)
        self._builder = _Builder(model, clean.shape, len(clean.classes))

    @cached_property
    def _normalisation(self) -> Normalisation:
        return self.splits.normalisation or Normalisation.of(self.splits.train)

    def _resident(self, images: Images) -> ResidentTrainSet:
        return ResidentTrainSet(
            images, self._normalisation, self.recipe.options.augmentation, device=self.recipe.device
        )

    @cached_property
    def train(self) -> ResidentTrainSet:
        """S_tr as the developer has it."""
        return ResidentTrainSet(
            self.corruption.train,
            self._normalisation,
            self.recipe.options.augmentation,
            device=self.recipe.device,
            stamp=self.corruption.stamp,
            stamped=self.corruption.manipulated,
        )

    @cached_property
    def validation(self) -> ResidentTrainSet | None:
        """Held-out samples, clean."""
        return None if self._held_out is None else self._resident(self._held_out)

    @cached_property
    def truth(self) -> Truth:
        """What only the evaluator knows; the only place where the test set is looked at."""
        corruption, test = self.corruption, self.splits.test
        inside = torch.ones(len(test), dtype=torch.bool)
        if corruption.affected_classes is not None:
            inside = torch.isin(test.labels, torch.tensor(corruption.affected_classes))
        affected = test.select(inside.nonzero().flatten())
        # Without the trigger a sample is outside the affected domain, whatever its class.
        outside = test if corruption.trigger is not None else test.select((~inside).nonzero().flatten())
        if corruption.trigger is not None:
            affected = Images(corruption.trigger.apply(affected.pixels), affected.labels, affected.classes)
        return Truth(
            train=self.train,
            manipulated=corruption.manipulated,
            clean_labels=self.clean_labels,
            affected=self._resident(affected),
            retain=self._resident(outside),
            target=corruption.target,
            classes=self.corruption.train.classes,
        )

    def build(self) -> nn.Module:
        """Return the architecture with arbitrary weights, to load others into."""
        with isolated_rng(0):
            return self._builder()

    def check_model(self, name: str) -> None:
        """Send two blank images through the architecture, to see that it takes them before anything is trained.

        Args:
            name: how the user calls the model: the component itself doesn't know under which name it was asked for.

        Raises:
            UsageError: if it can't be built for these images, can't take them, or returns no logits for the classes.
        """
        shape, num_classes = self._builder.shape, self._builder.num_classes
        images = "×".join(map(str, shape))
        try:
            model = self.recipe.place(self.build()).eval()
            with isolated_rng(0), torch.inference_mode():
                logits = model(torch.zeros(2, *shape, device=self.recipe.device))
        except CutkError:
            raise
        except Exception as error:
            raise UsageError(
                f"The model '{name}' can't take images of {images}: {one_line(error).rstrip('.')}. "
                "Choose another with --model, or larger images."
            ) from error
        if not isinstance(logits, Tensor):
            came = type(logits).__name__
        elif logits.shape != (2, num_classes) or not logits.is_floating_point():
            came = f"{logits.dtype} {list(logits.shape)}".removeprefix("torch.")
        else:
            return
        raise UsageError(
            f"The model '{name}' doesn't fit images of {images} in {num_classes} classes: expected logits "
            f"float32 [2, {num_classes}] for two of them, got {came}. Choose another with --model."
        )

    def _task(self, original: nn.Module, identified: Tensor, log: Log) -> Task:
        kept = torch.ones(len(self.train), dtype=torch.bool)
        kept[identified] = False
        generator = stream(self.seed, "unlearning")
        validation = None if self.validation is None else self.validation.drawing_from(generator)
        return Task(
            original=original,
            train=self.train.drawing_from(generator),
            identified=identified,
            retained=kept.nonzero().flatten(),
            validation=validation,
            recipe=self.recipe,
            generator=generator,
            build=self._builder,
            initialisation_seed=derive_seed(self.seed, "initialisation"),
            order_seed=derive_seed(self.seed, "order"),
            log=log,
        )

    def train_original(self, log: Log) -> nn.Module:
        """Return M_o = A(S_tr)."""
        return self._task(nn.Identity(), torch.empty(0, dtype=torch.int64), log).retrain(torch.arange(len(self.train)))

    def train_gold(self, log: Log) -> nn.Module:
        """Return A(S_tr without S_m), with the seeds of the original run."""
        task = self._task(nn.Identity(), self.corruption.manipulated, log)
        return task.retrain(task.retained)

    def identified(self, alpha: float) -> Tensor:
        """Return S_f for ``alpha``, int64 ``[n]``, sorted."""
        return identify(self.corruption.manipulated, alpha, stream(self.seed, "identification"))

    def task(self, original: nn.Module, alpha: float, log: Log | None = None) -> Task:
        """Return the problem that a method is given: a private copy of the original, and S_f."""
        return self._task(copy.deepcopy(original), self.identified(alpha), log or Log())

    def unlearning_seed(self) -> int:
        """Return what a method's own chance is seeded with."""
        return derive_seed(self.seed, "unlearning")
