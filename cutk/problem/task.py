"""What a corrective method holds in its hands: all that a developer who found S_f could know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.data.batches import TrainSet
from cutk.data.sealed import Sealed, unseal
from cutk.learning.network import copy_own_state
from cutk.learning.network import last_layers as last_layers_of
from cutk.learning.recipe import Progress, Recipe

__all__ = ["Log", "Task"]


class Log:
    """Where a method says how it is doing.

    Args:
        on_progress: called as ``on_progress(done, total)``. It can't be reached from the log: whoever watches knows
            more than a method may.

    Attributes:
        scalars: what was logged under each name, in order.
    """

    def __init__(self, on_progress: Progress | None = None) -> None:
        self._watcher = None if on_progress is None else Sealed(on_progress)
        self.scalars: dict[str, list[float]] = {}

    def progress(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps are done."""
        if self._watcher is not None:
            unseal(self._watcher)(done, total)

    def anew(self, *, silent: bool = False) -> Log:
        """Return an empty log with the same watcher, or with none."""
        log = Log()
        log._watcher = None if silent else self._watcher
        return log

    def scalar(self, name: str, value: float | Tensor) -> None:
        """Keep one value of a named curve; a tensor of one element will do."""
        number = value.item() if isinstance(value, Tensor) else float(value)
        self.scalars.setdefault(name, []).append(number)

    def curve(self, name: str, values: Tensor) -> None:
        """Keep a whole curve at once (``[n]``), say the counts of a histogram."""
        self.scalars[name] = [float(value) for value in values.tolist()]


@dataclass(eq=False)
class Task:
    """A corrective unlearning problem, U_corr(M_o, S_tr, S_f) of the paper's section 2.2.

    No manipulated set, no clean label, no trigger and no test set can be reached from here.

    Attributes:
        original: M_o in eval mode, a private copy: change it, return it.
        train: S_tr as it lies there, with the labels as given.
        identified: int64 ``[n]``, sorted: the indices of S_f.
        retained: int64 ``[m]``, sorted: the indices of S_tr without S_f. At α < 1 it holds manipulated samples.
        validation: held-out samples with clean labels, or none.
        recipe: A.
        generator: a CPU generator, seeded anew for every call of ``prepare`` and ``unlearn``.
        build: makes the architecture; use ``fresh``, which seeds it.
        initialisation_seed: what ``fresh`` seeds with.
        order_seed: what ``retrain`` draws batches and augmentation with. Both seeds are one-way derivations: the
            scenario's other random choices can't be computed from them, though a cheat may guess.
        log: for progress and curves.
    """

    original: nn.Module
    train: TrainSet
    identified: Tensor
    retained: Tensor
    validation: TrainSet | None
    recipe: Recipe
    generator: torch.Generator
    build: Callable[[], nn.Module]
    initialisation_seed: int
    order_seed: int
    log: Log = field(default_factory=Log)

    @property
    def device(self) -> torch.device:
        """Where models and batches live."""
        return self.recipe.device

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.train.num_classes

    def fresh(self, *, anew: bool = False) -> nn.Module:
        """Return the architecture, newly initialised as the original once was, on the device.

        Args:
            anew: draw another initialisation, from ``generator``.
        """
        seed = self.initialisation_seed
        if anew:
            seed = int(torch.randint(2**62, (), generator=self.generator))
        with isolated_rng(seed):
            return self.recipe.place(self.build())

    def retrain(self, indices: Tensor, *, last_layers: int | None = None) -> nn.Module:
        """Return A(S_tr[indices]): trained from scratch with the original run's seeds.

        Args:
            indices: int64 ``[n]``, what to train on.
            last_layers: initialise and train the last so many layers alone, the others staying the original's.

        Raises:
            CellError: if there aren't so many layers.
        """
        model, modules = self.fresh(), None
        if last_layers is not None:
            anew = last_layers_of(model, last_layers)
            model, modules = self.original, last_layers_of(self.original, last_layers)
            for old, new in zip(modules, anew, strict=True):
                copy_own_state(new, old)
        return self.recipe.train(
            model,
            self.train,
            indices,
            modules=modules,
            generator=torch.Generator().manual_seed(self.order_seed),
            progress=self.log.progress,
        )
