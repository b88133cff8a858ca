"""From a plan to records: which cells there are, how each is computed, and what is kept of it."""

from __future__ import annotations

import math
import traceback
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import nn

from cutk.components import Sizes, Unlearner
from cutk.data import Splits
from cutk.device import choose_device, choose_precision, describe_machine
from cutk.errors import CellError, one_line
from cutk.evaluation import Evaluation
from cutk.plan import Chosen, Setup
from cutk.recipe import Recipe
from cutk.records import GOLD, ORIGINAL, Results, failure, records_of, summarise
from cutk.scenario import Scenario, timed
from cutk.store import Damaged, Store, key_of
from cutk.task import Log
from cutk.unlearning import Attempt, attempt_all

__all__ = ["Benchmark", "Cell", "Observer"]


@dataclass(frozen=True)
class Cell:
    """One unit of work: a training (original or gold, α is None), or an unlearner at one α.

    Attributes:
        role: ``original``, ``gold`` or ``unlearn``.

    """

    role: str
    manipulation: Chosen
    seed: int
    unlearner: Chosen | None = None
    alpha: float | None = None

    @property
    def unlearner_name(self) -> str:
        """The name that the cell's record carries."""
        return self.unlearner.name if self.unlearner else GOLD if self.role == "gold" else ORIGINAL

    def __str__(self) -> str:
        what = self.role if self.unlearner is None else f"{self.unlearner.name} at α = {self.alpha:g}"
        return f"{self.manipulation.name}, seed {self.seed}: {what}"


class Observer:
    """Is told how a benchmark is getting on. This one keeps it to itself."""

    def started(self, cells: int) -> None:
        """``cells`` of them are about to be computed or read."""

    def cell_started(self, cell: Cell) -> None:
        """A cell is about to be computed."""

    def progress(self, done: int, total: int) -> None:
        """So much of the current cell is done."""

    def cell_finished(self, cell: Cell, read: bool) -> None:
        """A cell is there; ``read`` says that it was there before."""

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """A cell gave no result."""

    def warning(self, text: str) -> None:
        """Something went wrong that the benchmark could mend."""


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
        self.splits: Splits = setup.dataset.make().load()
        self._scenarios: dict[tuple[str, int], Scenario] = {}
        self._failed: dict[str, str] = {}
        for manipulation in setup.manipulations:
            scenario = self._scenario(manipulation, 0)
            for alpha in setup.plan.alphas:
                scenario.identified(alpha)
            scenario.build()

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
        return self.store.has(_kind(cell), self._key(cell))

    def sizes(self, cell: Cell) -> Sizes:
        """Return what a cell's cost depends on."""
        scenario = self._scenario(cell.manipulation, cell.seed)
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
        for cell in cells:
            try:
                record, read = self._obtain(cell)
                self._report(cell, record, results)
                results.computed += not read
                self.observer.cell_finished(cell, read)
            except (Exception, SystemExit) as error:
                self._failed[self._key(cell)] = one_line(error)
                results.failures.append(failure(self._labels(cell), one_line(error), traceback.format_exc()))
                self.observer.cell_failed(cell, one_line(error))
        results.summaries = summarise(self.setup, results.records)
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

    def _key(self, cell: Cell) -> str:
        if cell.unlearner is None:
            return key_of(self._training(cell, cell.role))
        return key_of(
            {
                "original": self._training(cell, "original"),
                "unlearner": cell.unlearner.identity(),
                "alpha": cell.alpha,
            }
        )

    # How a cell is computed.

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
        # A plain function around the observer, so that a method holding the log holds nothing of the benchmark.
        tell = self.observer.progress
        return Log(on_progress=lambda done, total: tell(done, total))

    def _obtain(self, cell: Cell) -> tuple[dict[str, Any], bool]:
        """Return a cell's stored record, computing it if it isn't there, and whether it was."""
        kind, key = _kind(cell), self._key(cell)
        record = self._read(kind, key)
        read = record is not None
        if record is not None and self._measure_stored(cell, key, record):
            return record, read
        self.observer.cell_started(cell)
        (self._unlearn if cell.role == "unlearn" else self._train)(cell, key)
        record = self.store.read(kind, key)
        if record is None:
            raise CellError(f"The run {key[:16]} is gone from '{self.store.root}' right after it was written.")
        return record, False

    def _read(self, kind: str, key: str) -> dict[str, Any] | None:
        try:
            return self.store.read(kind, key)
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None

    def _train(self, cell: Cell, key: str) -> None:
        scenario = self._scenario(cell.manipulation, cell.seed)
        train = scenario.train_original if cell.role == "original" else scenario.train_gold
        log = self._log()
        model, seconds = timed(self.recipe.device, lambda: train(log))
        metrics, failed = self._measure(Evaluation(scenario.truth, model, self.recipe))
        attempt = Attempt(options={}, seconds=seconds, metrics=metrics, failed_metrics=failed)
        self._write(_kind(cell), key, [attempt], 0, model)

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
        model = self._scenario(cell.manipulation, cell.seed).build()
        try:
            model.load_state_dict(self.store.weights(_kind(cell), self._key(cell)))
        except Damaged as damage:
            self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            return None
        return self.recipe.place(model).eval()

    def _unlearn(self, cell: Cell, key: str) -> None:
        if cell.unlearner is None or cell.alpha is None:
            raise TypeError(f"Expected an unlearner and an alpha, got {cell}.")
        scenario = self._scenario(cell.manipulation, cell.seed)
        original = self._original(cell)
        evaluate_all = self.setup.plan.evaluate == "all"
        task = scenario.task(original, cell.alpha, self._log())
        before = self.recipe.predict(original, scenario.train, task.identified)

        def judge(model: nn.Module, attempt: Attempt) -> None:
            evaluation = Evaluation(
                scenario.truth,
                model,
                self.recipe,
                identified=task.identified,
                identified_before=before,
                seconds=attempt.seconds,
            )
            attempt.metrics, attempt.failed_metrics = self._measure(evaluation)

        component: type[Unlearner] = cell.unlearner.entry.component  # type: ignore[assignment]
        attempts, selected, model = attempt_all(
            component,
            cell.unlearner.points,
            task,
            original,
            before,
            seed=scenario.unlearning_seed(),
            progress=self.observer.progress,
            judge=judge if evaluate_all else None,
        )
        if not evaluate_all:
            judge(model, attempts[selected])
        self._write("unlearn", key, attempts, selected, model)

    def _write(self, kind: str, key: str, attempts: list[Attempt], selected: int, model: nn.Module) -> None:
        content = {
            "attempts": [asdict(attempt) for attempt in attempts],
            "selected": selected,
            "environment": self._environment(),
        }
        self.store.write(kind, key, content, model.state_dict())

    # What a model is worth.

    def _metric_id(self, metric: Chosen) -> str:
        return key_of(metric.identity())[:16]

    def _measure(
        self, evaluation: Evaluation, known: dict[str, Any] | None = None
    ) -> tuple[dict[str, float | None], dict[str, str]]:
        """Compute every metric that isn't ``known``; one that fails is named with its reason, not with a number."""
        values: dict[str, float | None] = dict(known or {})
        failed: dict[str, str] = {}
        for metric in self.setup.metrics:
            name = self._metric_id(metric)
            if name in values:
                continue
            try:
                value = metric.make().compute(evaluation)
                if value is not None and not math.isfinite(value):
                    raise CellError(f"the value is {value}")
                values[name] = None if value is None else float(value)
            except (Exception, SystemExit) as error:
                failed[metric.name] = one_line(error)
        return values, failed

    def _measure_stored(self, cell: Cell, key: str, record: dict[str, Any]) -> bool:
        """Add what this plan measures and an earlier one didn't. False if that takes computing the cell again."""
        attempts, selected = record["attempts"], record["selected"]
        wanted = {self._metric_id(metric) for metric in self.setup.metrics}
        evaluate_all = self.setup.plan.evaluate == "all"
        lacking = [
            position
            for position, attempt in enumerate(attempts)
            if (evaluate_all or position == selected) and not attempt["error"] and wanted - attempt["metrics"].keys()
        ]
        if not lacking:
            return True
        if lacking != [selected]:
            self.store.remove(_kind(cell), key)  # only the selected model's weights are kept
            return False
        model = self._load(cell)
        if model is None:
            return False
        scenario = self._scenario(cell.manipulation, cell.seed)
        identified = before = seconds = None
        if cell.alpha is not None:
            identified = scenario.identified(cell.alpha)
            before = self.recipe.predict(self._original(cell), scenario.train, identified)
            seconds = attempts[selected]["seconds"]
        evaluation = Evaluation(
            scenario.truth,
            model,
            self.recipe,
            identified=identified,
            identified_before=before,
            seconds=seconds,
        )
        chosen = attempts[selected]
        chosen["metrics"], chosen["failed_metrics"] = self._measure(evaluation, chosen["metrics"])
        self.store.update(_kind(cell), key, {"attempts": attempts})
        return True

    # What is reported.

    def _plan_as_run(self) -> dict[str, Any]:
        plan = self.setup.plan.model_dump(mode="json")
        return {
            **plan,
            "model": self.setup.model.name,
            "recipe": self.setup.recipe.model_dump(mode="json"),
            "unlearners": [unlearner.name for unlearner in self.setup.unlearners],
            "options": {
                chosen.name: chosen.points[0].model_dump(mode="json")
                for chosen in (self.setup.dataset, self.setup.model, *self.setup.manipulations)
            }
            | plan["options"],
        }

    def _environment(self) -> dict[str, Any]:
        return {
            **describe_machine(self.recipe.device),
            "precision": self.recipe.precision,
            "providers": self.setup.providers(),
        }

    def _labels(self, cell: Cell) -> dict[str, Any]:
        return {
            "dataset": self.setup.dataset.name,
            "manipulation": cell.manipulation.name,
            "model": self.setup.model.name,
            "unlearner": cell.unlearner_name,
            "alpha": cell.alpha,
            "seed": cell.seed,
        }

    def _report(self, cell: Cell, stored: dict[str, Any], results: Results) -> None:
        names = {self._metric_id(metric): metric.name for metric in self.setup.metrics}
        provider = (cell.unlearner or self.setup.model).entry.provider.requirement
        every = self.setup.plan.evaluate == "all"
        records, failures = records_of(stored, self._labels(cell), names, provider, every)
        results.records += records
        results.failures += failures


def _kind(cell: Cell) -> str:
    return "unlearn" if cell.role == "unlearn" else "train"
