"""From a plan to records: which cells there are, how each is computed, and what is kept of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from cutk.components import Sizes, Unlearner
from cutk.cost import Cost, measured
from cutk.data.samples import Splits
from cutk.errors import CellError, CutkError, one_line
from cutk.learning.recipe import Recipe
from cutk.machine import choose_device, choose_precision, describe_machine
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log
from cutk.problem.truth import Evaluation
from cutk.run.cells import Cell, Observer
from cutk.run.measuring import described, measure, unmeasured
from cutk.run.plan import Chosen, Setup
from cutk.run.records import Reading, Results, failure, records_of, summarise
from cutk.run.store import Damaged, Store, key_of
from cutk.run.unlearning import Attempt, Outcome, Scalars, SpoiltError, attempt_all

__all__ = ["Benchmark"]


class Benchmark:
    """Runs a plan.

    Everything that the user could have got wrong is checked on construction, before anything is written.

    Args:
        setup: the plan, resolved.
        store: where runs are kept.
        observer: told how it goes.

    Raises:
        UsageError: if data, manipulation, model, α, device and precision don't fit each other.
    """

    def __init__(self, setup: Setup, store: Store, observer: Observer | None = None) -> None:
        self.setup = setup
        self.store = store
        self.observer = observer or Observer()
        device = choose_device(setup.plan.device)
        self.recipe = Recipe(setup.recipe, device, choose_precision(setup.plan.precision, device))
        with _blaming(setup.dataset):
            self.splits: Splits = setup.dataset.make().load()
        self._scenarios: dict[tuple[str, int], Scenario] = {}
        self._failed: dict[str, str] = {}
        for manipulation in setup.manipulations:
            with _blaming(manipulation):
                scenario = self._scenario(manipulation, 0)
            for alpha in setup.plan.alphas:
                scenario.identified(alpha)
            with _blaming(setup.model):
                scenario.check_model(setup.model.name)

    @property
    def cells(self) -> list[Cell]:
        """All cells of the plan, in the order in which they are computed."""
        plan = self.setup.plan
        return [
            cell
            for manipulation in self.setup.manipulations
            for seed in range(plan.seeds)
            for cell in (
                Cell("original", manipulation, seed),
                Cell("gold", manipulation, seed),
                *(
                    Cell("unlearn", manipulation, seed, unlearner, alpha)
                    for alpha in dict.fromkeys(plan.alphas)
                    for unlearner in self.setup.unlearners
                ),
            )
        ]

    def is_stored(self, cell: Cell) -> bool:
        """Say whether a cell would be read instead of computed."""
        record = self.store.peek(cell.kind, self._key(cell))
        return record is not None and not self._lacks_points(record)

    def scenario(self, cell: Cell) -> Scenario:
        """Return the problem behind a cell."""
        return self._scenario(cell.manipulation, cell.seed)

    def sizes(self, cell: Cell) -> Sizes:
        """Return what a cell's cost depends on."""
        scenario = self.scenario(cell)
        identified = len(scenario.identified(cell.alpha)) if cell.alpha is not None else 0
        options = self.recipe.options
        return Sizes(len(scenario.clean_labels), identified, options.batch_size, options.steps)

    def run(self) -> Results:
        """Compute what isn't there yet, read what is, and return all of it.

        A cell that fails is reported and the others go on. ``KeyboardInterrupt`` passes through; every finished cell
        is kept.
        """
        self.store.open()
        results = Results(self._plan_as_run(), self._environment())
        cells = self.cells
        self.observer.started(len(cells))
        environments = []
        for cell in cells:
            try:
                record, read = self._obtain(cell)
                environments.append(record["environment"])
                self.store.forget_failure(self._key(cell))
                self._report(cell, record, results)
                results.computed += not read
                self.observer.cell_finished(cell, read)
            except (Exception, SystemExit) as error:
                if isinstance(error, SpoiltError):
                    self._start_over()
                self._failed[self._key(cell)] = one_line(error)
                results.failures.append(failure("cell", self._labels(cell), one_line(error), traceback.format_exc()))
                self.store.note_failure(self._key(cell), f"{cell} failed: {one_line(error)}")
                self.observer.cell_failed(cell, one_line(error))
        results.environment = _where(environments, results.environment)
        results.summaries, failures = summarise(self.setup.summaries, results.records)
        results.failures += failures
        return results

    # What a run is called.

    @cached_property
    def _fingerprint(self) -> str:
        return self.splits.fingerprint()

    def _training(self, cell: Cell, role: str) -> dict[str, Any]:
        """Return everything that decides what a training gives."""
        return {
            "role": role,
            "data": self._fingerprint,
            "manipulation": cell.manipulation.identity(),
            "model": self.setup.model.identity(),
            "recipe": self.setup.recipe.model_dump(mode="json"),
            "validation_fraction": self.setup.plan.validation_fraction,
            "seed": cell.seed,
            "precision": self.recipe.precision,
            "device": self.recipe.device.type,
        }

    def _decided_by(self, cell: Cell) -> dict[str, Any]:
        if cell.unlearner is None:
            return self._training(cell, cell.role)
        return {
            "original": self._training(cell, "original"),
            "unlearner": cell.unlearner.identity(),
            "alpha": cell.alpha,
        }

    def _key(self, cell: Cell) -> str:
        return key_of(self._decided_by(cell))

    # How a cell is computed.

    def _start_over(self) -> None:
        """Read the data again: what is in memory isn't what it was."""
        self._scenarios.clear()
        self.splits = self.setup.dataset.make().load()

    def _scenario(self, manipulation: Chosen, seed: int) -> Scenario:
        if (manipulation.name, seed) not in self._scenarios:
            # One scenario at a time: each holds the whole training set.
            self._scenarios.clear()
            self._scenarios[manipulation.name, seed] = Scenario(
                self.splits,
                manipulation.make(),
                self.setup.model.make(),
                self.recipe,
                seed,
                self.setup.plan.validation_fraction,
            )
        return self._scenarios[manipulation.name, seed]

    def _log(self) -> Log:
        return Log(self.observer.progress)

    def _obtain(self, cell: Cell) -> tuple[dict[str, Any], bool]:
        """Return a cell's stored record, computing it if it isn't there, and whether it was."""
        record = self._read(cell)
        if record is not None and self._measure_stored(cell, record):
            return record, True
        self.observer.cell_started(cell)
        outcome = (self._train if cell.unlearner is None else self._unlearn)(cell)
        content = {
            "labels": self._labels(cell),
            "decided_by": self._decided_by(cell),
            "provider": self._provider(cell),
            "attempts": [asdict(attempt) for attempt in outcome.attempts],
            "selected": outcome.selected,
            "prepared": outcome.prepared,
            "measured": described(self.setup.metrics),
            "environment": self._environment(),
        }
        self.store.write(cell.kind, self._key(cell), content, outcome.model.state_dict(), replace=record is not None)
        return content, False

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        try:
            return self.store.read(cell.kind, self._key(cell))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None

    def _train(self, cell: Cell) -> Outcome:
        scenario = self.scenario(cell)
        train = scenario.train_original if cell.role == "original" else scenario.train_gold
        log = self._log()
        model, cost = measured(self.recipe.device, lambda: train(log))
        attempt = Attempt(options={})
        attempt.cost_was(cost)
        measure(self.setup.metrics, self._evaluation(cell, model), attempt)
        return Outcome([attempt], 0, model)

    def _original(self, cell: Cell) -> nn.Module:
        """Return M_o for a cell, trained now if its own cell didn't leave it in the store."""
        twin = Cell("original", cell.manipulation, cell.seed)
        if reason := self._failed.get(self._key(twin)):
            raise CellError(f"There is no original model: {reason}")
        for _ in range(2):
            self._obtain(twin)
            if (model := self._load(twin)) is not None:
                return model
        raise CellError(f"The original model cannot be kept in '{self.store.root}'.")

    def _load(self, cell: Cell) -> nn.Module | None:
        """Return a stored cell's model, or None if it is damaged and out of the way now."""
        model = self.scenario(cell).build()
        try:
            model.load_state_dict(self.store.weights(cell.kind, self._key(cell)))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        return self.recipe.place(model).eval()

    def _unlearn(self, cell: Cell) -> Outcome:
        if cell.unlearner is None or cell.alpha is None:
            raise TypeError(f"Expected an unlearner and an alpha, got {cell}.")
        scenario = self.scenario(cell)
        original = self._original(cell)
        task = scenario.task(original, cell.alpha, self._log())
        before = self.recipe.predict(original, scenario.train, task.identified)

        def judge(model: nn.Module, attempt: Attempt, scalars: Scalars) -> None:
            measure(self.setup.metrics, self._evaluation(cell, model, before, attempt.cost, scalars), attempt)

        component: type[Unlearner] = cell.unlearner.entry.component  # type: ignore[assignment]
        return attempt_all(
            component,
            cell.unlearner.points,
            task,
            original,
            before,
            seed=scenario.unlearning_seed(),
            progress=self.observer.progress,
            judge=judge,
            judge_all=self.setup.plan.evaluate == "all",
        )

    # What a model is worth.

    def _evaluation(
        self,
        cell: Cell,
        model: nn.Module,
        before: Tensor | None = None,
        cost: Cost | None = None,
        scalars: Scalars | None = None,
    ) -> Evaluation:
        scenario = self.scenario(cell)
        identified = None if cell.alpha is None else scenario.identified(cell.alpha)
        return Evaluation(
            scenario.truth,
            model,
            self.recipe,
            identified=identified,
            identified_before=before,
            cost=cost,
            scalars=scalars,
        )

    def _measure_stored(self, cell: Cell, record: dict[str, Any]) -> bool:
        """Add what this plan measures and an earlier one didn't. False if that takes computing the cell again."""
        metrics = self.setup.metrics
        if self._lacks_points(record):
            return False
        attempts = [Attempt(**attempt) for attempt in record["attempts"]]
        chosen = attempts[record["selected"]]
        if not unmeasured(metrics, chosen):
            return True
        model = self._load(cell)
        if model is None:
            return False
        before = cost = None
        if cell.alpha is not None:
            scenario = self.scenario(cell)
            before = self.recipe.predict(self._original(cell), scenario.train, scenario.identified(cell.alpha))
            cost = chosen.cost
        scalars = record["prepared"].get(chosen.state, {}) | chosen.scalars
        measure(metrics, self._evaluation(cell, model, before, cost, scalars), chosen)
        record["attempts"] = [asdict(attempt) for attempt in attempts]
        record["measured"] |= described(metrics)
        changes = {name: record[name] for name in ("attempts", "measured")}
        self.store.update(cell.kind, self._key(cell), changes)
        return True

    def _lacks_points(self, record: dict[str, Any]) -> bool:
        """Say whether grid points are to be measured whose weights weren't kept, as only the selected one's are."""
        if self.setup.plan.evaluate != "all":
            return False
        attempts = [Attempt(**attempt) for attempt in record["attempts"]]
        others = [a for i, a in enumerate(attempts) if i != record["selected"] and not a.error]
        return any(unmeasured(self.setup.metrics, attempt, retry=False) for attempt in others)

    # What is reported.

    def _plan_as_run(self) -> dict[str, Any]:
        plan = self.setup.plan.model_dump(mode="json")
        return {
            **plan,
            "model": self.setup.model.name,
            "recipe": self.setup.recipe.model_dump(mode="json"),
            "unlearners": [unlearner.name for unlearner in self.setup.unlearners],
            "options": {chosen.name: _settled(chosen) for chosen in self.setup.chosen},
        }

    def _environment(self) -> dict[str, Any]:
        return {
            **describe_machine(self.recipe.device),
            "precision": self.recipe.precision,
            "providers": self.setup.providers(),
        }

    def _labels(self, cell: Cell) -> dict[str, Any]:
        scenario = self.scenario(cell)
        return {
            "dataset": self.setup.dataset.name,
            "manipulation": cell.manipulation.name,
            "model": self.setup.model.name,
            "unlearner": cell.unlearner_name,
            "alpha": cell.alpha,
            "seed": cell.seed,
            "manipulated": len(scenario.corruption.manipulated),
            "identified": None if cell.alpha is None else len(scenario.identified(cell.alpha)),
        }

    def _provider(self, cell: Cell) -> str:
        return (cell.unlearner or self.setup.model).entry.provider.requirement

    def _report(self, cell: Cell, stored: dict[str, Any], results: Results) -> None:
        plan = self.setup.plan
        reading = Reading(described(self.setup.metrics), every=plan.evaluate == "all", oracle=plan.oracle)
        here = {"labels": self._labels(cell), "provider": self._provider(cell), "key": self._key(cell)}
        records, failures = records_of({**stored, **here}, reading)
        results.records += records
        results.failures += failures


def _where(environments: list[dict[str, Any]], here: dict[str, Any]) -> dict[str, Any]:
    """Return where results were computed, which for those that were read needn't be here.

    If that was in several environments, ``here`` is returned with the ``others``.
    """
    distinct = list({key_of(found): found for environment in environments if (found := _machine(environment))}.values())
    if len(distinct) == 1:
        return {**distinct[0], "providers": here["providers"]}
    others = [found for found in distinct if found != _machine(here)]
    return {**here, "others": others} if others else here


def _machine(environment: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name != "providers"}


def _settled(chosen: Chosen) -> Any:
    """Return a component's options as they are used: one point, or a list of those that are searched."""
    points = [point.model_dump(mode="json") for point in chosen.points]
    return points[0] if len(points) == 1 else points


@contextmanager
def _blaming(chosen: Chosen) -> Iterator[None]:
    """Turn an error of a component into one line that names it and its provider."""
    try:
        yield
    except CutkError:
        raise
    except (Exception, SystemExit) as error:
        what = f"The {chosen.entry.kind} '{chosen.name}' of {chosen.entry.provider.requirement}"
        raise CutkError(f"{what} failed: {one_line(error)}") from error
