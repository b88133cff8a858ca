"""What a corrective method holds in its hands: all that a developer who found S_f could know."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.data.batches import TrainSet
from cutk.data.sealed import Sealed, unseal
from cutk.errors import CellError
from cutk.learning.network import copy_own_state, initialised
from cutk.learning.network import last_layers as last_layers_of
from cutk.learning.recipe import Loss, Progress, Recipe
from cutk.problem.identification import all_but, require_indices

__all__ = ["Log", "Suspicion", "Task"]


class Suspicion(NamedTuple):
    """How suspicious the samples of S_tr are."""

    values: Tensor  # float32 [N], on the CPU, from 0 to 1; suspected is what is above one half
    probabilistic: bool = True  # whether they are meant as probabilities of being manipulated


class Log:
    """Where a method says how it is doing.

    Args:
        on_progress: called as ``on_progress(done, total)``, and sealed: whoever watches knows more than a method may.
        on_scalar: called as ``on_scalar(name, step, value)``, and sealed likewise.

    Attributes:
        scalars: what was logged under each name, in order.
        suspected: how suspicious the samples of S_tr are as the method last said.
    """

    def __init__(
        self, on_progress: Progress | None = None, on_scalar: Callable[[str, int, float], None] | None = None
    ) -> None:
        self._watcher = None if on_progress is None else Sealed(on_progress)
        self._listener = None if on_scalar is None else Sealed(on_scalar)
        self.scalars: dict[str, list[float]] = {}
        self.suspected: Suspicion | None = None

    def progress(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps are done."""
        if self._watcher is not None:
            unseal(self._watcher)(done, total)

    def anew(self, *, silent: bool = False) -> Log:
        """Return an empty log with the same watchers, or with none."""
        log = Log()
        if not silent:
            log._watcher, log._listener = self._watcher, self._listener
        return log

    def scalar(self, name: str, value: float | Tensor) -> None:
        """Keep one value of a named curve; a tensor of one element will do."""
        number = float(value.item() if isinstance(value, Tensor) else value)
        curve = self.scalars.setdefault(name, [])
        curve.append(number)
        if self._listener is not None:
            unseal(self._listener)(name, len(curve) - 1, number)

    def curve(self, name: str, values: Tensor) -> None:
        """Keep a whole curve at once (``[n]``), say the counts of a histogram."""
        self.scalars[name] = [float(value) for value in values.tolist()]

    def suspicion(self, found: Tensor, *, probabilistic: bool = True) -> None:
        """Say how likely each sample of S_tr is manipulated, float32 ``[N]`` from 0 to 1; the last time counts.

        What isn't ``probabilistic`` says an order, and by one half who is suspected.
        """
        self.suspected = Suspicion(found.detach().to("cpu", torch.float32, copy=True), probabilistic)


class Task:
    """A corrective unlearning problem, U_corr(M_o, S_tr, S_f) of the paper's section 2.2.

    No manipulated set, no clean label, no trigger, no test set and no seed can be reached from here. Every call of
    ``prepare`` and ``unlearn`` gets a task of its own: whatever a method changes in it, no other sees.

    Args:
        original: M_o.
        train: S_tr as it lies there, with the labels as given.
        identified: int64 ``[n]``, sorted, without repeats, n ≥ 1: the indices of S_f.
        recipe: A.
        build: makes the architecture with arbitrary weights; only needed for ``fresh`` and ``retrain``.
        validation: held-out samples with clean labels, or none.
        generator: a CPU generator, the method's own chance; seeded with 0 if not given.
        log: for progress and curves.
        initialisation_seed: what ``fresh`` initialises with; sealed.
        order_seed: what ``retrain`` draws batches, augmentation and dropout with; sealed.

    Attributes:
        surveyed: what ``Unlearner.survey`` returned, a private copy; None if nobody asked.

    Raises:
        CellError: if ``identified`` is something else.

    Example::

        task = cutk.Task(model, train, torch.tensor([3, 17, 40]), recipe, build=lambda: Net())
        repaired = Mine().unlearn(task)
    """

    def __init__(
        self,
        original: nn.Module,
        train: TrainSet,
        identified: Tensor,
        recipe: Recipe,
        *,
        build: Callable[[], nn.Module] | None = None,
        validation: TrainSet | None = None,
        generator: torch.Generator | None = None,
        log: Log | None = None,
        initialisation_seed: int = 0,
        order_seed: int = 0,
    ) -> None:
        self.original, self.recipe, self._build = original, recipe, build
        self.train, self.validation = train, validation
        self.identified = require_indices(identified, len(train), "identified")
        self.generator = generator or torch.Generator().manual_seed(0)
        self.log = log or Log()
        self.surveyed: Any = None
        self._initialisation_seed, self._order_seed = Sealed(initialisation_seed), Sealed(order_seed)

    @property
    def retained(self) -> Tensor:
        """S_tr without S_f: int64 ``[m]``, sorted. At α < 1 it holds manipulated samples."""
        return all_but(self.identified, len(self.train))

    @property
    def device(self) -> torch.device:
        """Where models and batches live."""
        return self.recipe.device

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.train.num_classes

    @property
    def intact(self) -> bool:
        """Whether the samples, which private copies share, are what they were."""
        return self.train.intact and (self.validation is None or self.validation.intact)

    def knowing(self, indices: Tensor) -> Task:
        """Return the same problem, model and log included, with another S_f: int64 ``[n]``, sorted, without repeats."""
        other = copy.copy(self)
        other.identified = require_indices(indices, len(self.train), "knowing()")
        return other

    def knowing_nothing(self) -> Task:
        """Return the same problem with an empty S_f, as ``Unlearner.survey`` is given it."""
        other = copy.copy(self)
        other.identified = self.identified[:0]
        return other

    def private(self, seed: int, log: Log | None = None) -> Task:
        """Return a task for one call of a method: it shares the samples with this one and nothing else."""
        other = copy.copy(self)
        other.generator = torch.Generator().manual_seed(seed)
        other.log = log or self.log.anew()
        other.original, other.recipe, other._build = copy.deepcopy((self.original, self.recipe, self._build))
        other.identified = self.identified.clone()
        other.train = self.train.drawing_from(other.generator)
        if self.validation is not None:
            other.validation = self.validation.drawing_from(other.generator)
        return other

    def fresh(self, indices: Tensor | None = None, *, anew: bool = False) -> nn.Module:
        """Return the architecture on the device, initialised as the original once was, or ``anew`` by ``generator``.

        A network that is initialised with samples (see ``Model.build``) is so with those at ``indices``, int64 ``[n]``;
        with all of S_tr if not given.
        """
        if self._build is None:
            raise CellError("This task was made without its architecture: give Task(…, build=…).")
        seed = unseal(self._initialisation_seed)
        if anew:
            seed = int(torch.randint(2**62, (), generator=self.generator))
        with isolated_rng(seed):
            return initialised(self.recipe.place(self._build()), self.train, indices)

    def retrain(
        self,
        indices: Tensor,
        *,
        last_layers: int | None = None,
        loss: Loss | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Return A(S_tr[indices]), int64 ``[n]``: trained from scratch with the original run's seeds.

        With ``last_layers`` so many are initialised and trained alone, the others staying the original's. ``loss``
        takes the place of the recipe's, ``progress`` that of the log's.
        """
        model, modules = self.fresh(indices), None
        if last_layers is not None:
            anew = last_layers_of(model, last_layers)
            model, modules = self.original, last_layers_of(self.original, last_layers)
            for old, new in zip(modules, anew, strict=True):
                copy_own_state(new, old)
        seed = unseal(self._order_seed)
        chance = torch.Generator().manual_seed(seed)
        with isolated_rng(seed):  # dropout draws from the global state
            told = progress or self.log.progress
            return self.recipe.train(model, self.train, indices, loss, modules=modules, generator=chance, progress=told)
