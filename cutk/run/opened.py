"""A plan's data, opened: the problem behind each cell, and what its run is called."""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Corruption, Manipulation, Surrogate
from cutk.data.batches import TrainSet
from cutk.data.samples import Samples, Splits
from cutk.errors import Caught, CellError, UsageError
from cutk.guard import watched
from cutk.learning.network import operations
from cutk.learning.recipe import Recipe
from cutk.machine import choose_device, choose_precision, choose_threads, describe_machine, repeatable
from cutk.problem.scenario import Scenario
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.chosen import Chosen
from cutk.run.keys import key_of
from cutk.run.observer import Observer, tell_put_back
from cutk.run.records import Environment, Trained, Unlearned
from cutk.run.setup import Setup

__all__ = ["Opened", "Prepare"]

_log = logging.getLogger(__name__)
# Surrogates of so many scenarios are kept: one of large models, made anew for each of many seeds, wouldn't fit.
_SURROGATES = 32
# Kinds that are called for every cell; built-in ones are quick, and needn't be watched for what takes longer.
_QUICK = ("manipulation", "identification")

Prepare = Callable[[Splits], Splits]


class Opened:
    """The data of a plan in this process, opened once, and what is made of them for each manipulation and seed.

    With ``blank``, it goes without the data where they aren't there and their sizes are known. ``prepare`` makes of the
    data what this plan is about, where that isn't what the dataset loads.

    Raises:
        UsageError: if data, device and precision can't be had.
    """

    def __init__(
        self, setup: Setup, observer: Observer, *, blank: bool = False, prepare: Prepare | None = None
    ) -> None:
        self.setup, self.observer = setup, observer
        device = choose_device(setup.plan.device)
        self.recipe: Recipe = setup.recipe.make().on(device, choose_precision(setup.plan.precision, device))
        self._parts = {composed.name: composed.parts for composed in setup.manipulations}
        self._scenario: tuple[tuple[str, int], Scenario] | None = None
        self._content = ""
        self._asked: set[float] = set()
        self._surrogates: dict[tuple[str, int, str], dict[Any, nn.Module]] = {}
        self._trained: dict[Training, Trained] = {}
        self._found: dict[Unlearning, str] = {}
        self.blank = False
        self._prepare = prepare
        began = time.monotonic()
        self.splits = self._load_data(or_blank=blank)
        self._fingerprint = self.splits.fingerprint()
        _log.info(
            "Opened the dataset '%s' in %.1f s: %d training and %d test samples, fingerprint %s",
            *(setup.dataset.name, time.monotonic() - began),
            *(len(self.splits.train), len(self.splits.test), self._fingerprint),
        )
        asked = setup.plan.threads  # a number, in every worker process of a study: then no network is built for it
        work = self._step() if asked == "auto" else 0.0
        torch.set_num_threads(choose_threads(asked, work, setup.executor.make().sharing))
        repeatable(device)
        self.environment = Environment(
            **describe_machine(device), precision=self.recipe.precision, providers=setup.providers()
        )
        _log.info(
            "Computing on %s (%s) in %s; threads: %d%s",
            *(self.environment.device, self.environment.hardware, self.environment.precision),
            *(self.environment.threads, f", since a step takes {work:.2g} operations" if asked == "auto" else ""),
        )

    def _load_data(self, *, or_blank: bool = False) -> Splits:
        splits = self._loaded(or_blank=or_blank)
        return splits if self._prepare is None else self._prepare(splits)

    def _loaded(self, *, or_blank: bool) -> Splits:
        dataset = self.setup.dataset.make()
        try:
            with self._calling(self.setup.dataset):
                splits = dataset.load()
        except UsageError as error:
            sizes = dataset.sizes() if or_blank else None
            if sizes is None:
                raise
            self.observer.warning(f"Costs are told from the published sizes alone: {error}")
            self.blank = True
            return Splits.blank(sizes)
        if not isinstance(splits, Splits):
            chosen = self.setup.dataset
            raise UsageError(
                f"The dataset '{chosen.name}' of {chosen.entry.provider.requirement}: load() returned "
                f"{type(splits).__name__}; expected a cutk.Splits. Return cutk.Splits(train, test)."
            )
        return splits

    def _step(self) -> float:
        """Return the floating-point operations of a training step, forward and backward; 0 if they can't be told."""
        samples = self.splits.train
        dtype = torch.int64 if samples.form == "tokens" else torch.float32
        forward = 0.0
        with Caught(), watched(draws=False), isolated_rng(0):  # a model that fails is named where it is needed
            network = self.setup.model.make().build(samples.shape, len(samples.classes))
            forward = operations(network, torch.zeros(2, *samples.shape, dtype=dtype))
        return 3 * forward * float(self.recipe.options.batch_size)

    @contextmanager
    def _calling(self, *chosen: Chosen) -> Iterator[None]:
        """Let components work: put back what they change in the process, and name them in one line if they fail."""
        kind, names = chosen[0].entry.kind, " or ".join(f"'{c.name}'" for c in chosen)
        with Caught() as caught, watched(draws=False, trusted=kind in _QUICK and _ours(chosen)) as changed:
            yield
        tell_put_back(self.observer, f"The {kind} {names}", changed)
        if isinstance(caught.error, UsageError):
            raise caught.error
        if caught.error is not None:
            those = " or ".join(f"'{c.name}' of {c.entry.provider.requirement}" for c in chosen)
            raise CellError(f"The {kind} {those} failed: {caught.reason}") from caught.error

    # What a cell is about.

    def scenario(self, manipulation: str, seed: int) -> Scenario:
        """Return the problem behind a cell; one is held at a time, since each holds the whole training set."""
        if self._scenario is None or self._scenario[0] != (manipulation, seed):
            self._scenario = None
            self._asked.clear()
            parts, began = self._parts[manipulation], time.monotonic()
            with self._calling(*parts):
                scenario = Scenario(
                    self.splits,
                    [(part.name, self._manipulation(part, manipulation, seed)) for part in parts],
                    self.setup.model.make(),
                    self.recipe,
                    seed,
                    validation_fraction=self.setup.plan.validation_fraction,
                    identification=self.setup.identification.make(),
                    trusted=self.setup.identification.ours,
                )
                self._scenario, self._content = ((manipulation, seed), scenario), ""
                if not _ours([*parts, self.setup.identification]):
                    self._note_content()
            _log.debug("%s, seed %d: samples manipulated in %.1f s", manipulation, seed, time.monotonic() - began)
        return self._scenario[1]

    def _manipulation(self, part: Chosen, composed: str, seed: int) -> Manipulation:
        """Return a manipulation that trains each of its surrogates once, however often its scenario is made anew."""
        manipulation: Manipulation = part.make()
        if manipulation.trains:
            while len(self._surrogates) > _SURROGATES:
                del self._surrogates[next(iter(self._surrogates))]
            known = self._surrogates.setdefault((composed, seed, part.name), {})
            corrupt: Any = manipulation.corrupt

            def remembering(train: Samples, generator: Any, surrogate: Any = None) -> Corruption:
                result: Corruption = corrupt(train, generator, _Remembered(surrogate, known))
                return result

            manipulation.corrupt = remembering  # type: ignore[method-assign]
        return manipulation

    def identified(self, cell: Unlearning) -> Tensor:
        """Return S_f, int64 ``[n]``, sorted."""
        scenario = self.scenario(cell.manipulation, cell.seed)
        if cell.alpha not in self._asked:
            chosen = self.setup.identification
            with self._calling(chosen):
                scenario.identified(cell.alpha)
            if not chosen.ours:
                self._require_intact(f"The identification '{chosen.name}'")
            self._asked.add(cell.alpha)
        return scenario.identified(cell.alpha)

    def require_fitting(self, manipulation: str, seed: int, *, model: bool = True) -> None:
        """Raise a ``UsageError`` unless data, manipulation, α and, if it matters, the model fit each other."""
        scenario = self.scenario(manipulation, seed)
        for alpha in self.setup.plan.alphas:
            self.identified(Unlearning(manipulation, seed, "", alpha))
        if model:
            with self._calling(self.setup.model):
                scenario.check_model(self.setup.model.name)

    def _note_content(self, cell: Cell | None = None) -> None:
        """Note what the samples hold, of ``cell`` or as they are, before somebody is called who may write to them."""
        if cell is not None:
            self.scenario(cell.manipulation, cell.seed)
        if self._scenario is not None and not self._content:
            # This asks a manipulation, too: of test samples, whether they are affected.
            self._content = _content(self._scenario[1])

    def _restored(self) -> bool:
        """Read the data again if somebody has written to what is shared; say whether that was so."""
        if self._scenario is None or not self._content or _content(self._scenario[1]) == self._content:
            return False
        self._scenario = None
        self.splits = self._load_data()
        return True

    def _require_intact(self, who: str) -> None:
        if self._restored():
            raise CellError(f"{who} wrote to the samples, which every method shares. Work on a copy.")

    def _unlearner(self, cell: Unlearning) -> Chosen:
        return next(chosen for chosen in self.setup.unlearners if chosen.name == cell.unlearner)

    # What a run is called.

    def decided_by(self, cell: Cell) -> Trained | Unlearned:
        """Return everything that decides what a cell gives."""
        if isinstance(cell, Training):
            return self._decides_training(cell)
        found = replace(cell, unlearner="")
        if found not in self._found:
            self._found[found] = hashlib.sha256(self.identified(cell).numpy().tobytes()).hexdigest()[:16]
        return Unlearned(
            original=self._decides_training(cell.needs),
            unlearner=self._unlearner(cell).identity,
            identification=self.setup.identification.identity,
            identified=self._found[found],
            selector=self.setup.selector.identity,
            alpha=cell.alpha,
        )

    def _decides_training(self, cell: Training) -> Trained:
        if cell not in self._trained:
            self._trained[cell] = Trained(
                role=cell.role,
                data=self._fingerprint,
                corruption=self.scenario(cell.manipulation, cell.seed).fingerprint(),
                manipulation=[part.identity for part in self._parts[cell.manipulation]],
                model=self.setup.model.identity,
                recipe=self.setup.recipe.identity,
                validation_fraction=self.setup.plan.validation_fraction,
                seed=cell.seed,
                precision=self.recipe.precision,
                device=self.recipe.device.type,
                threads=self.environment.threads,
            )
        return self._trained[cell]

    def key(self, cell: Cell) -> str:
        """Return the name that a cell's run has in the store."""
        return key_of(self.decided_by(cell))


def _ours(chosen: Iterable[Chosen]) -> bool:
    return all(each.ours for each in chosen)


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _content(scenario: Scenario) -> str:
    """Return a hash of all samples that methods, metrics and identifications are handed and share."""
    truth = scenario.truth
    sets: list[TrainSet | None] = [scenario.train, scenario.validation, truth.affected, truth.retain]
    sets += [domain.affected for domain in truth.domains]
    intact = all(each.intact for each in sets if each is not None)
    samples: list[Samples] = [each for each in (truth.samples, truth.held_out) if each is not None]
    return f"{intact} {_digest(tensor for each in samples for tensor in (each.x, each.labels, each.ids))}"


class _Remembered(Surrogate):
    """A surrogate that trains the same on the same samples once, and gives a copy whenever it is asked again."""

    def __init__(self, surrogate: Surrogate, known: dict[Any, nn.Module]) -> None:
        self._surrogate, self._known = surrogate, known

    def train(self, samples: Samples, steps: int | None = None) -> nn.Module:
        about = steps, _digest((samples.x, samples.labels))
        if about not in self._known:
            self._known[about] = self._surrogate.train(samples, steps)
        return copy.deepcopy(self._known[about])

    def set_of(self, samples: Samples) -> TrainSet:
        return self._surrogate.set_of(samples)
