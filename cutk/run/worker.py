"""How a cell is computed: one cell in, one run out."""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Corruption, Manipulation, Surrogate
from cutk.cost import Cost, measured
from cutk.data.batches import TrainSet
from cutk.data.samples import Samples, Splits
from cutk.errors import Caught, CellError, UsageError
from cutk.guard import watched
from cutk.learning.network import operations
from cutk.learning.recipe import Recipe
from cutk.machine import choose_device, choose_precision, choose_threads, describe_machine, repeatable
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log
from cutk.problem.truth import Evaluation
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.files import Damaged
from cutk.run.isolation import Isolated
from cutk.run.keys import key_of
from cutk.run.measuring import Measurement, measure, unmeasured
from cutk.run.method import Logged, Method
from cutk.run.observer import Observer, PutBack, tell_put_back
from cutk.run.parcels import Parcels
from cutk.run.plan import Chosen, Composed, Setup
from cutk.run.records import Attempt, Attempts, Environment, Labels, Run, Scalars, Trained, Unlearned
from cutk.run.search import Search, Working, within
from cutk.run.store import Parcel, Store

__all__ = ["Done", "Worker"]

_log = logging.getLogger(__name__)
# Surrogates of so many scenarios are kept: one of large models, made anew for each of many seeds, wouldn't fit.
_SURROGATES = 32
# Kinds that are called for every cell; built-in ones are quick, and needn't be watched for what takes longer.
_QUICK = ("manipulation", "identification")
Computed = tuple[
    list[Attempt], int, nn.Module, dict[str, Scalars]
]  # as ``Run`` calls them; the model is the selected one


class Done(NamedTuple):
    """A cell's run, whether it was there before, and what is to be put into the runs folder if a worker couldn't."""

    run: Run
    read: bool
    parcels: tuple[Parcel, ...] = ()


class Worker:
    """Opens a plan's data once and computes its cells.

    Everything that the user could have got wrong is checked on construction, before anything is written. With
    ``blank``, it goes without the data where they aren't there and their sizes are known, which is enough to tell a
    cost. ``inline`` are the files of plugins that aren't installed, for processes of methods.

    Raises:
        UsageError: if data, manipulation, model, α, device and precision don't fit each other.
    """

    def __init__(
        self,
        setup: Setup,
        store: Store | Parcels,
        observer: Observer | None = None,
        *,
        inline: Sequence[Path] = (),
        blank: bool = False,
    ) -> None:
        self.setup, self.store, self.observer, self._inline = setup, store, observer or Observer(), inline
        device = choose_device(setup.plan.device)
        self.recipe: Recipe = setup.recipe.make().on(device, choose_precision(setup.plan.precision, device))
        # What is measured of a cell's models: each metric, and on each part of a composition by itself.
        self.measurements = {composed.name: _measurements(composed, setup.metrics) for composed in setup.manipulations}
        self._parts = {composed.name: composed.parts for composed in setup.manipulations}
        self._scenario: tuple[tuple[str, int], Scenario] | None = None
        self._content = ""
        self._asked: set[float] = set()
        self._surveys: dict[Training, dict[tuple[str, str], tuple[Any, Cost]]] = {}
        self._surrogates: dict[tuple[str, int, str], dict[Any, nn.Module]] = {}
        self._trained: dict[Training, Trained] = {}
        self._found: dict[Unlearning, str] = {}
        self.blank = False
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
        for composed in setup.manipulations:
            # A component's failure is left to the cells that need it; what the user got wrong is said at once.
            with suppress(CellError):
                seed = setup.plan.seed_list[0]
                scenario = self.scenario(composed.name, seed)
                for alpha in setup.plan.alphas:
                    self.identified(Unlearning(composed.name, seed, "", alpha))
                with self._calling(setup.model):
                    scenario.check_model(setup.model.name)

    def _load_data(self, *, or_blank: bool = False) -> Splits:
        dataset = self.setup.dataset.make()
        try:
            with self._calling(self.setup.dataset):
                splits: Splits = dataset.load()
                return splits
        except UsageError as error:
            sizes = dataset.sizes() if or_blank else None
            if sizes is None:
                raise
            self.observer.warning(f"Costs are told from the published sizes alone: {error}")
            self.blank = True
            return Splits.blank(sizes)

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

    def _called(self, cell: Cell) -> dict[str, Any]:
        """Return what of a run this plan decides by the names that it uses."""
        chosen = self._unlearner(cell) if isinstance(cell, Unlearning) else self.setup.model
        labels = Labels(
            **cell.labels,
            dataset=self.setup.dataset.name,
            model=self.setup.model.name,
            recipe=self.setup.recipe.name,
            manipulated=len(self.scenario(cell.manipulation, cell.seed).corruption.manipulated),
            identified=len(self.identified(cell)) if isinstance(cell, Unlearning) else None,
        )
        return {"labels": labels, "provider": chosen.entry.provider.requirement}

    # How a cell is computed.

    def is_stored(self, cell: Cell) -> bool:
        """Say whether a cell would be read instead of computed."""
        run = None if self.blank else self.store.peek(cell.kind, self.key(cell))
        return run is not None and not self._lacks_kept(cell, run)

    def work(self, cell: Cell) -> Done:
        """Return a cell's run: as stored, with what this plan measures besides, or computed now.

        Raises:
            CellError: if it gives none. Any other error is a component's, or the machine's.
        """
        try:
            return self._obtain(cell)
        except BaseException:
            self._restored()
            raise

    def _obtain(self, cell: Cell) -> Done:
        began = time.monotonic()
        run = self._read(cell)
        if run is not None and (complete := self._with_all_metrics(cell, run)) is not None:
            _log.info("%s: read in %.1f s, key %s", cell, time.monotonic() - began, run.key)
            return Done(complete, True)
        _log.info("%s: started, key %s", cell, self.key(cell))
        self.observer.cell_started(cell)
        self._note_content(cell)
        attempts, selected, model, prepared = self._train(cell) if isinstance(cell, Training) else self._unlearn(cell)
        computed = Run(
            key=self.key(cell),
            decided_by=self.decided_by(cell),
            attempts=Attempts(attempts),
            selected=selected,
            prepared=prepared,
            measured={m.identity: m.described() for m in self.measurements[cell.manipulation]},
            environment=self._environment(cell),
            **self._called(cell),
        )
        written = self.store.write(computed, model.state_dict(), replace=run is not None)
        _log.info("%s: computed in %.1f s, key %s", cell, time.monotonic() - began, written.key)
        return Done(written, False)

    def _environment(self, cell: Cell) -> Environment:
        alone = self.setup.plan.isolate and isinstance(cell, Unlearning)
        return self.environment.model_copy(update={"isolated": alone})

    def _read(self, cell: Cell) -> Run | None:
        try:
            run = self.store.read(cell.kind, self.key(cell))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        return run and run.model_copy(update=self._called(cell))

    def _train(self, cell: Training) -> Computed:
        scenario = self.scenario(cell.manipulation, cell.seed)
        train = scenario.train_original if cell.role == "original" else scenario.train_gold
        with watched() as changed:
            log = Log(partial(self.observer.progress, cell), partial(self.observer.scalar, cell))
            model, cost = measured(self.recipe.device, partial(train, log))
        tell_put_back(self.observer, f"The model '{self.setup.model.name}'", changed)
        attempt = Attempt(seconds=cost.seconds, passes=cost.passes, peak_bytes=cost.peak_bytes)
        self._measure(cell, model, attempt)
        self._require_intact("A metric")
        return [attempt], 0, model, {}

    def _original(self, cell: Unlearning) -> nn.Module:
        """Return M_o for a cell, trained now if its own cell didn't leave it in the store."""
        for _ in range(2):
            self._obtain(cell.needs)
            if (model := self._weights(cell.needs)) is not None:
                return model
        raise CellError(f"The original model cannot be kept in '{self.store.root}'.")

    def _weights(self, cell: Cell) -> nn.Module | None:
        """Return a stored cell's model, or None if it is damaged and out of the way now."""
        try:
            weights = self.store.weights(cell.kind, self.key(cell))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        scenario = self.scenario(cell.manipulation, cell.seed)
        with self._calling(self.setup.model):
            model = scenario.build()
            model.load_state_dict(weights)
            return self.recipe.place(model).eval()

    def _unlearn(self, cell: Unlearning) -> Computed:
        scenario, identified = self.scenario(cell.manipulation, cell.seed), self.identified(cell)
        selector = self.setup.selector.make()
        if selector.assumes_wrong_labels and scenario.labels_look_right(identified) > 0.5:
            self.observer.warning(
                f"{cell.manipulation}: most identified samples have their correct label, and the selector "
                f"'{self.setup.selector.name}' rewards predicting them otherwise. Consider another: --select NAME."
            )
        put_back, original = PutBack(self.observer), self._original(cell)
        every = self.setup.plan.evaluate == "all"
        with self._method(cell, original, put_back) as method:
            unlearner = self._unlearner(cell)
            problem, progress = scenario.problem(original, cell.alpha), partial(self.observer.progress, cell)
            limit = {}
            if self.setup.max_accuracy_loss is not None:
                limit = within(self.setup.max_accuracy_loss, selector, problem)
            search = Search(unlearner, selector, problem, str(cell), self.observer, progress, method, put_back, **limit)

            def judge(model: nn.Module, attempt: Attempt, logged: Logged) -> None:
                if not every:  # reading all samples takes a while: once for each point would be too often
                    self._require_intact("It")
                self._measure(cell, model, attempt, search.before, logged)

            attempts, selected, model = search.run(judge, judge_all=every)
        self._require_intact("It, or a metric," if every else "A metric")
        return attempts, selected, model, method.prepared

    def _method(self, cell: Unlearning, original: nn.Module, tell: PutBack) -> AbstractContextManager[Working]:
        """Return an unlearner at work on a cell, in this process or in one of its own."""
        scenario, chosen = self.scenario(cell.manipulation, cell.seed), self._unlearner(cell)
        if cell.needs not in self._surveys:
            self._surveys = {cell.needs: {}}
        # Only a single long computation tells its own progress; of many short ones the number done is told.
        progress = None if len(chosen.points) > 1 else partial(self.observer.progress, cell)
        scalar = partial(self.observer.scalar, cell)
        method = Method(
            chosen.name,
            chosen.entry.component,  # type: ignore[arg-type]
            scenario.problem(original, cell.alpha, Log(progress, scalar)),
            scenario.build,
            scenario.unlearning_seed(),
            tell,
            self._surveys[cell.needs],
        )
        if not self.setup.plan.isolate:
            return nullcontext(method)
        parts = (chosen, self.setup.model, self.setup.recipe)
        return Isolated(method, parts, self._inline, scenario.sealed_seeds(), progress, scalar)

    # What a model is worth.

    def _measure(
        self,
        cell: Cell,
        model: nn.Module,
        attempt: Attempt,
        before: Tensor | None = None,
        logged: Logged | None = None,
    ) -> None:
        """Measure what ``attempt`` lacks; ``before`` is what the original predicted of S_f."""
        known: dict[str, Any] = {}
        if isinstance(cell, Unlearning):
            cost = None
            if attempt.seconds is not None:
                cost = Cost(attempt.seconds, attempt.passes, attempt.peak_bytes)
            known = {"identified": self.identified(cell), "identified_before": before, "cost": cost}
        if logged is not None:
            known |= logged._asdict()
        truth = self.scenario(cell.manipulation, cell.seed).truth
        evaluation = Evaluation(truth, model, self.recipe, **known)
        measure(self.measurements[cell.manipulation], evaluation, attempt, self.observer)

    def _with_all_metrics(self, cell: Cell, run: Run) -> Run | None:
        """Return a stored run with what this plan measures and an earlier one didn't; None if it has to be computed."""
        measurements = self.measurements[cell.manipulation]
        if self._lacks_kept(cell, run):
            return None
        if not unmeasured(measurements, run.chosen):
            return run
        self._note_content(cell)
        model, before = self._weights(cell), None
        if model is None:
            return None
        if isinstance(cell, Unlearning):
            train = self.scenario(cell.manipulation, cell.seed).train
            before = self.recipe.predict(self._original(cell), train, self.identified(cell))
        attempts = [attempt.model_copy(deep=True) for attempt in run.attempts]
        chosen = attempts[run.selected]
        self._measure(cell, model, chosen, before, Logged(run.logged))
        self._require_intact("A metric")
        now = {m.identity: m.described() for m in measurements}
        complete = run.model_copy(update={"attempts": Attempts(attempts), "measured": run.measured | now})
        self.store.update(complete)
        return complete

    def _lacks_kept(self, cell: Cell, run: Run) -> bool:
        """Say whether something is to be measured that wasn't kept: what was suspected, or points not selected."""
        measurements = self.measurements[cell.manipulation]
        suspecting = (m for m in measurements if getattr(m.metric.entry.component, "of_suspicion", False))
        if isinstance(cell, Unlearning) and unmeasured(suspecting, run.chosen):
            return True
        if self.setup.plan.evaluate != "all":
            return False
        others = [a for position, a in enumerate(run.attempts) if position != run.selected and not a.error]
        return any(unmeasured(measurements, attempt, retry=False) for attempt in others)


def _measurements(composed: Composed, metrics: Iterable[Chosen]) -> list[Measurement]:
    whole = [Measurement(metric) for metric in metrics]
    divided = [m for m in metrics if len(composed.parts) > 1 and getattr(m.entry.component, "by_domain", False)]
    return whole + [Measurement(metric, part.name) for part in composed.parts for metric in divided]


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
