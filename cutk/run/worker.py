"""How a cell is computed: one cell in, one run out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cutk.components import Dataset, Score, Unlearner
from cutk.cost import Cost, measured
from cutk.data.samples import Splits
from cutk.errors import Caught, CellError, UsageError
from cutk.guard import watched
from cutk.learning.recipe import Recipe, require_finite
from cutk.machine import choose_device, choose_precision, describe_machine
from cutk.plugins.registry import load_registry
from cutk.problem.identification import all_but
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log, Task
from cutk.problem.truth import Evaluation, accuracy
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.measuring import Measurement, described, measure, unmeasured
from cutk.run.observer import Observer
from cutk.run.plan import Chosen, Plan, Setup, resolve
from cutk.run.records import Attempt, Environment, Labels, Run, Scalars, Trained, Unlearned
from cutk.run.search import Search
from cutk.run.store import Damaged, Store, key_of

__all__ = ["Done", "Job", "Spoilt", "Worker", "admitted", "adopt", "work"]

# Outputs are compared on so many training samples to see that a returned model is its weights and nothing more.
_PROBED = 64


class Spoilt(CellError):  # noqa: N818  # it says what happened
    """A method has written to what others share: whatever is computed from it now would be wrong."""


class Job(NamedTuple):
    """One cell and all that another process needs to compute it: plain data.

    Attributes:
        plan: the plan that the cell is of.
        inline: the files of plugins that aren't installed.
        runs: the runs folder, absolute.
        cell: the cell.
    """

    plan: Plan
    inline: tuple[Path, ...]
    runs: Path
    cell: Cell


class Done(NamedTuple):
    """A cell's run, and whether it was there before."""

    run: Run
    read: bool


class Worker:
    """Opens a plan's data once and computes its cells.

    Everything that the user could have got wrong is checked on construction, before anything is written.

    Args:
        setup: the plan, resolved.
        store: where runs are kept.
        observer: told how it goes.
        blank: go without the data where they aren't there and their sizes are known, which is enough to tell a cost.

    Raises:
        UsageError: if data, manipulation, model, α, device and precision don't fit each other.
    """

    def __init__(self, setup: Setup, store: Store, observer: Observer | None = None, *, blank: bool = False) -> None:
        self.setup = setup
        self.store = store
        self.observer = observer or Observer()
        device = choose_device(setup.plan.device)
        self.recipe: Recipe = setup.recipe.make().on(device, choose_precision(setup.plan.precision, device))
        self.environment = Environment(
            **describe_machine(device), precision=self.recipe.precision, providers=setup.providers()
        )
        self.blank = False
        self.splits: Splits = self._load_data(or_blank=blank)
        self._fingerprint = self.splits.fingerprint()
        self._scenario: tuple[tuple[str, int], Scenario] | None = None
        self._trained: dict[Training, Trained] = {}
        self._identified: dict[Unlearning, tuple[str, int]] = {}
        for composed in setup.manipulations:
            with _deferred():
                scenario = self.scenario(composed.name, setup.plan.seed_list[0])
                with self._watching(f"The identification '{setup.identification.name}'"):
                    for alpha in setup.plan.alphas:
                        scenario.identified(alpha)
                with _blaming(setup.model), self._watching(f"The model '{setup.model.name}'"):
                    scenario.check_model(setup.model.name)

    def _load_data(self, *, or_blank: bool = False) -> Splits:
        dataset: Dataset = self.setup.dataset.make()
        try:
            with _blaming(self.setup.dataset), self._watching(f"The dataset '{self.setup.dataset.name}'"):
                return dataset.load()
        except UsageError as error:
            sizes = dataset.sizes() if or_blank else None
            if sizes is None:
                raise
            self.observer.warning(f"Costs are told from the published sizes alone: {error}")
            self.blank = True
            return Splits.blank(sizes)

    def scenario(self, manipulation: str, seed: int) -> Scenario:
        """Return the problem behind a cell; one is held at a time, since each holds the whole training set."""
        if self._scenario is None or self._scenario[0] != (manipulation, seed):
            self._scenario = None
            parts = self._parts(manipulation)
            with _blaming(*parts), self._watching(f"The manipulation '{manipulation}'"):
                scenario = Scenario(
                    self.splits,
                    [(part.name, part.make()) for part in parts],
                    self.setup.model.make(),
                    self.recipe,
                    seed,
                    validation_fraction=self.setup.plan.validation_fraction,
                    identification=self.setup.identification.make(),
                )
                scenario.truth  # noqa: B018  # a manipulation may say of test samples whether they are affected
            self._scenario = (manipulation, seed), scenario
        return self._scenario[1]

    def _parts(self, manipulation: str) -> tuple[Chosen, ...]:
        return next(composed.parts for composed in self.setup.manipulations if composed.name == manipulation)

    # What a run is called.

    def _decides_training(self, cell: Training) -> Trained:
        if cell not in self._trained:
            scenario = self.scenario(cell.manipulation, cell.seed)
            self._trained[cell] = Trained(
                role=cell.role,
                data=self._fingerprint,
                corruption=scenario.fingerprint(),
                manipulation=[part.identity for part in self._parts(cell.manipulation)],
                model=self.setup.model.identity,
                recipe=self.setup.recipe.identity,
                validation_fraction=self.setup.plan.validation_fraction,
                seed=cell.seed,
                precision=self.recipe.precision,
                device=self.recipe.device.type,
                threads=self.environment.threads,
            )
        return self._trained[cell]

    def decided_by(self, cell: Cell) -> Trained | Unlearned:
        """Return everything that decides what a cell gives."""
        if isinstance(cell, Training):
            return self._decides_training(cell)
        return Unlearned(
            original=self._decides_training(cell.needs),
            unlearner=self._unlearner(cell).identity,
            identification=self.setup.identification.identity,
            identified=self._found(cell)[0],
            selector=self.setup.selector.identity,
            alpha=cell.alpha,
        )

    def key(self, cell: Cell) -> str:
        """Return the name that a cell's run has in the store."""
        return key_of(self.decided_by(cell).model_dump(mode="json"))

    def _found(self, cell: Unlearning) -> tuple[str, int]:
        """Return a hash of S_f, and its size."""
        about = Unlearning(cell.manipulation, cell.seed, "", cell.alpha)
        if about not in self._identified:
            scenario = self.scenario(cell.manipulation, cell.seed)
            with self._watching(f"The identification '{self.setup.identification.name}'"):
                identified = scenario.identified(cell.alpha)
            self._identified[about] = hashlib.sha256(identified.numpy().tobytes()).hexdigest()[:16], len(identified)
        return self._identified[about]

    def _unlearner(self, cell: Unlearning) -> Chosen:
        return next(chosen for chosen in self.setup.unlearners if chosen.name == cell.unlearner)

    def labels(self, cell: Cell) -> Labels:
        """Return what a cell's run is called."""
        scenario = self.scenario(cell.manipulation, cell.seed)
        return Labels(
            **cell.labels,
            dataset=self.setup.dataset.name,
            model=self.setup.model.name,
            recipe=self.setup.recipe.name,
            manipulated=len(scenario.corruption.manipulated),
            identified=self._found(cell)[1] if isinstance(cell, Unlearning) else None,
        )

    # How a cell is computed.

    def is_stored(self, cell: Cell) -> bool:
        """Say whether a cell would be read instead of computed."""
        run = None if self.blank else self.store.peek(cell.kind, self.key(cell))
        return run is not None and not self._lacks_points(cell, run)

    def work(self, cell: Cell) -> Done:
        """Return a cell's run: as stored, with what this plan measures besides, or computed now.

        Raises:
            CellError: if it gives none. Any other error is a component's, or the machine's.
        """
        try:
            return self._obtain(cell)
        except Spoilt:
            # What is in memory isn't what it was: the data are read again.
            self._scenario = None
            self.splits = self._load_data()
            raise

    def _obtain(self, cell: Cell) -> Done:
        run = self._read(cell)
        if run is not None and (complete := self._with_all_metrics(cell, run)) is not None:
            return Done(complete, True)
        self.observer.cell_started(cell)
        attempts, selected, model, prepared = self._train(cell) if isinstance(cell, Training) else self._unlearn(cell)
        computed = Run(
            key=self.key(cell),
            labels=self.labels(cell),
            decided_by=self.decided_by(cell),
            provider=self._provider(cell),
            attempts=attempts,
            selected=selected,
            prepared=prepared,
            measured={m.identity: described(m) for m in self.measurements(cell)},
            environment=self.environment,
        )
        return Done(self.store.write(computed, model.state_dict(), replace=run is not None), False)

    def _provider(self, cell: Cell) -> str:
        chosen = self._unlearner(cell) if isinstance(cell, Unlearning) else self.setup.model
        return chosen.entry.provider.requirement

    def _read(self, cell: Cell) -> Run | None:
        try:
            run = self.store.read(cell.kind, self.key(cell))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        # Names and options of components decide it; how this plan calls them, it may have been called otherwise.
        return run.model_copy(update={"labels": self.labels(cell), "provider": self._provider(cell)}) if run else None

    def _train(self, cell: Training) -> tuple[list[Attempt], int, nn.Module, dict[str, Scalars]]:
        scenario = self.scenario(cell.manipulation, cell.seed)
        train = scenario.train_original if cell.role == "original" else scenario.train_gold
        with watched() as changed:
            model, cost = measured(self.recipe.device, lambda: train(Log(self.observer.progress)))
        self._note(changed, f"The model '{self.setup.model.name}'")
        attempt = Attempt(seconds=cost.seconds, passes=cost.passes, peak_bytes=cost.peak_bytes)
        measure(self.measurements(cell), self._evaluation(cell, model), attempt, self._note)
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
        model = self.scenario(cell.manipulation, cell.seed).build()
        try:
            model.load_state_dict(self.store.weights(cell.kind, self.key(cell)))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        return self.recipe.place(model).eval()

    def _unlearn(self, cell: Unlearning) -> tuple[list[Attempt], int, nn.Module, dict[str, Scalars]]:
        scenario = self.scenario(cell.manipulation, cell.seed)
        original = self._original(cell)
        before = self.recipe.predict(original, scenario.train, scenario.identified(cell.alpha))
        selector = self.setup.selector.make()
        if selector.assumes_wrong_labels and scenario.labels_look_right(scenario.identified(cell.alpha)) > 0.5:
            self.observer.warning(
                f"{cell.manipulation}: most identified samples have their correct label, and the selector "
                f"'{self.setup.selector.name}' rewards predicting them otherwise. Consider another: --select NAME."
            )
        problem = _Problem(self, scenario, cell, original, before)
        chosen = self._unlearner(cell)
        component: type[Unlearner] = chosen.entry.component  # type: ignore[assignment]
        search = Search(
            component,
            chosen.points,
            selector,
            problem,
            seed=scenario.unlearning_seed(),
            device=self.recipe.device,
        )

        def judge(model: nn.Module, attempt: Attempt, scalars: Scalars) -> None:
            evaluation = self._evaluation(cell, model, before, _cost_of(attempt), scalars)
            measure(self.measurements(cell), evaluation, attempt, self._note)

        every = self.setup.plan.evaluate == "all"
        attempts, selected, model = search.run(judge, judge_all=every, progress=self.observer.progress)
        problem.require_intact()
        return attempts, selected, model, search.prepared

    # What a model is worth.

    def measurements(self, cell: Cell) -> list[Measurement]:
        """Return what is measured of a cell's models: each metric, and on each part of a composition by itself."""
        parts = self._parts(cell.manipulation)
        whole = [Measurement(metric) for metric in self.setup.metrics]
        if len(parts) == 1:
            return whole
        divided = [m for m in self.setup.metrics if getattr(m.entry.component, "by_domain", False)]
        return whole + [Measurement(metric, part.name) for part in parts for metric in divided]

    def _evaluation(
        self,
        cell: Cell,
        model: nn.Module,
        before: Tensor | None = None,
        cost: Cost | None = None,
        scalars: Scalars | None = None,
    ) -> Evaluation:
        scenario = self.scenario(cell.manipulation, cell.seed)
        return Evaluation(
            scenario.truth,
            model,
            self.recipe,
            identified=scenario.identified(cell.alpha) if isinstance(cell, Unlearning) else None,
            identified_before=before,
            cost=cost,
            scalars=scalars or {},
        )

    def _with_all_metrics(self, cell: Cell, run: Run) -> Run | None:
        """Return a stored run with what this plan measures and an earlier one didn't; None if it has to be computed."""
        measurements = self.measurements(cell)
        if self._lacks_points(cell, run):
            return None
        if not unmeasured(measurements, run.chosen):
            return run
        model = self._weights(cell)
        if model is None:
            return None
        before = cost = None
        if isinstance(cell, Unlearning):
            scenario = self.scenario(cell.manipulation, cell.seed)
            before = self.recipe.predict(self._original(cell), scenario.train, scenario.identified(cell.alpha))
            cost = _cost_of(run.chosen)
        attempts = [attempt.model_copy(deep=True) for attempt in run.attempts]
        chosen = attempts[run.selected]
        scalars = run.prepared.get(chosen.state, {}) | chosen.scalars
        measure(measurements, self._evaluation(cell, model, before, cost, scalars), chosen, self._note)
        described_now = {m.identity: described(m) for m in measurements}
        complete = run.model_copy(update={"attempts": attempts, "measured": run.measured | described_now})
        self.store.update(complete)
        return complete

    def _lacks_points(self, cell: Cell, run: Run) -> bool:
        """Say whether grid points are to be measured whose weights weren't kept, as only the selected one's are."""
        if self.setup.plan.evaluate != "all":
            return False
        measurements = self.measurements(cell)
        others = [a for position, a in enumerate(run.attempts) if position != run.selected and not a.error]
        return any(unmeasured(measurements, attempt, retry=False) for attempt in others)

    @contextmanager
    def _watching(self, who: str) -> Iterator[None]:
        """Put back what a component changes outside what it was given, and say so."""
        with watched(draws=False) as changed:
            yield
        self._note(changed, who)

    def _note(self, changed: Sequence[str], who: str) -> None:
        if changed:
            self.observer.warning(f"{who} changed {', '.join(changed)}; that was put back.")


def admitted(model: object, scenario: Scenario, probe: Tensor) -> nn.Module:
    """Return the architecture with a returned model's weights: what is measured is what is kept.

    Args:
        model: what a method returned.
        scenario: the problem that it was given.
        probe: int64 ``[n]``: the training samples on which outputs are compared.

    Raises:
        CellError: if the returned model is something else than its architecture with other weights.
    """
    if not isinstance(model, nn.Module):
        raise CellError(f"unlearn() returned {type(model).__name__}; expected a torch.nn.Module.")
    require_finite(model.eval(), "after unlearning")
    recipe, built = scenario.recipe, scenario.build()
    advice = "Return task.original, changed in place, or a task.fresh() that was trained"
    try:
        built.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise CellError(
            "unlearn() returned a model whose weights don't fit the architecture "
            f"({' '.join(str(error).split())[:160]}). {advice}; what was added to it has to be taken off."
        ) from None
    built = recipe.place(built).eval()
    ours, theirs = (recipe.logits(m, scenario.train, probe) for m in (built, model))
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise CellError(
            "unlearn() returned a model that computes something else than the architecture with its weights "
            f"(a hook, a wrapper, a replaced forward?). {advice}, without them: weights are all that is kept."
        )
    return built


class _Problem:
    """A cell's problem as a search sees it."""

    def __init__(
        self, worker: Worker, scenario: Scenario, cell: Unlearning, original: nn.Module, before: Tensor
    ) -> None:
        self._worker = worker
        self._scenario = scenario
        self._cell = cell
        self._original = original
        self._before = before
        identified = scenario.identified(cell.alpha)
        self._retained = all_but(identified, len(scenario.train))
        self._probe = torch.cat([identified[: _PROBED // 2], self._retained[: _PROBED // 2]])
        self._told: set[str] = set()

    def task(self, *, silent: bool) -> Task:
        return self._scenario.task(
            self._original, self._cell.alpha, Log(None if silent else self._worker.observer.progress)
        )

    def admit(self, model: object) -> nn.Module:
        return admitted(model, self._scenario, self._probe)

    def score(self, model: nn.Module, measures: Sequence[str]) -> Score:
        recipe, train, validation = self._worker.recipe, self._scenario.train, self._scenario.validation
        identified = self._scenario.identified(self._cell.alpha)
        now = recipe.predict(model, train, identified)
        known: Mapping[str, Callable[[], float | None]] = {
            "validation_accuracy": lambda: (
                None if validation is None else accuracy(recipe.predict(model, validation), validation.labels)
            ),
            "changed_fraction": lambda: float((now != self._before).double().mean()),
            "identified_accuracy": lambda: accuracy(now, train.labels[identified]),
            "retained_accuracy": lambda: accuracy(
                recipe.predict(model, train, self._retained), train.labels[self._retained]
            ),
        }
        return Score(**{name: known[name]() for name in measures})

    def changed(self, what: Sequence[str], who: str = "") -> None:
        """Say once of each thing that a method, or ``who``, changed it."""
        new = [name for name in what if name not in self._told]
        self._told.update(new)
        self._worker._note(new, who or f"The unlearner '{self._cell.unlearner}'")

    def failed(self, error: BaseException) -> None:
        self._worker.observer.error(error)

    def require_intact(self) -> None:
        """Refuse what was computed if the method wrote to the samples.

        Raises:
            Spoilt: if so.
        """
        sets = [each for each in (self._scenario.train, self._scenario.validation) if each is not None]
        if not all(each.intact for each in sets):
            raise Spoilt("It wrote to the samples, which every method shares. Work on a copy.")


def _cost_of(attempt: Attempt) -> Cost | None:
    return None if attempt.seconds is None else Cost(attempt.seconds, attempt.passes, attempt.peak_bytes)


@contextmanager
def _blaming(*chosen: Chosen) -> Iterator[None]:
    """Turn an error of a component into one line that names it, its provider and where it happened."""
    with Caught() as caught:
        yield
    if isinstance(caught.error, UsageError):
        raise caught.error
    if caught.error is not None:
        those = " or ".join(f"'{c.name}' of {c.entry.provider.requirement}" for c in chosen)
        raise CellError(f"The {chosen[0].entry.kind} {those} failed: {caught.reason}") from caught.error


@contextmanager
def _deferred() -> Iterator[None]:
    """Leave a component's failure to the cells that need it; what the user got wrong is said at once."""
    try:
        yield
    except CellError:
        return


_OPEN: dict[str, Worker] = {}


def _name_of(job: Job) -> str:
    return key_of(
        {"plan": job.plan.model_dump(mode="json"), "inline": list(map(str, job.inline)), "runs": str(job.runs)}
    )


def adopt(worker: Worker, job: Job) -> None:
    """Let ``work`` compute cells of the job's plan with ``worker`` in this process."""
    _OPEN.clear()  # a worker holds a dataset; one at a time
    _OPEN[_name_of(job)] = worker


def work(job: Job) -> Done:
    """Compute a job's cell, in whatever process this is; its plan is opened once."""
    name = _name_of(job)
    if name not in _OPEN:
        setup = resolve(job.plan, load_registry(inline=job.inline))
        adopt(Worker(setup, Store(job.runs)), job)
    return _OPEN[name].work(job.cell)
