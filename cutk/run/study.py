"""Which cells a plan has, when each can start, and what came of all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from cutk.components import Sizes
from cutk.errors import Caught, reason, traceback_of
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.observer import Observer
from cutk.run.plan import Setup
from cutk.run.records import SCHEMA, Environment, Failure, Record, Run
from cutk.run.store import Store
from cutk.run.summary import Summarised, best_on_test, summarise
from cutk.run.worker import Done, Job, Worker, adopt, work

__all__ = ["Executor", "Results", "Serial", "Study"]


class Executor(Protocol):
    """Where jobs are done: whatever has the ``submit`` of ``concurrent.futures``; ``slots`` it does at once."""

    slots: int

    def submit(self, function: Callable[[Job], Done], job: Job, /) -> Future[Done]:
        """Take a job and return what will hold its result."""


class Serial:
    """Does each job at once, in this process."""

    slots = 1

    def submit(self, function: Callable[[Job], Done], job: Job, /) -> Future[Done]:
        """Do the job; what it raises is kept for whoever asks, but for a keyboard interrupt."""
        future: Future[Done] = Future()
        with Caught() as caught:
            future.set_result(function(job))
        if caught.error is not None:
            future.set_exception(caught.error)
        return future


@dataclass
class Results:
    """What a study found.

    ``runs`` are those that are there, in the plan's order. Of each the selected attempt is a record, or every one.

    Attributes:
        plan: the plan as it was run.
        environment: of this process.
        failures: what gave no number.
        summaries: one for each manipulation and unlearner.
        computed: how many cells were computed, the others having been read.
    """

    plan: dict[str, Any]
    environment: Environment
    runs: list[Run] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    summaries: list[Summarised] = field(default_factory=list)
    computed: int = 0

    @property
    def environments(self) -> list[Environment]:
        """Each environment that a run was computed in, once; this process's if there is no run."""
        return list({run.environment.machine: run.environment for run in self.runs}.values()) or [self.environment]

    def document(self) -> dict[str, Any]:
        """Return everything as one document: what ``cutk bench --json`` prints."""
        where, *others = (environment.model_dump(mode="json") for environment in self.environments)
        return {
            "cutk": version("cutk"),
            "schema": SCHEMA,
            "plan": self.plan,
            "environment": {**where, "others": others} if others else where,
            "records": [record.model_dump(mode="json") for record in self.records],
            "failures": [failed.model_dump(mode="json") for failed in self.failures],
            "summaries": [row.model_dump(mode="json") for row in self.summaries],
        }


@dataclass
class Study:
    """A plan being carried out: its cells are computed by ``executor``, or read from ``store``.

    ``inline`` are the files of plugins that aren't installed, for other processes. With ``blank``, which is as for
    ``Worker``, it can't be run.

    Raises:
        UsageError: if data, manipulation, model, α, device and precision don't fit each other.
    """

    setup: Setup
    store: Store
    observer: Observer = field(default_factory=Observer)
    executor: Executor = field(default_factory=Serial)
    inline: Sequence[Path] = ()
    blank: InitVar[bool] = field(default=False, kw_only=True)

    def __post_init__(self, blank: bool) -> None:
        self.worker = Worker(self.setup, self.store, self.observer, blank=blank)

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells of the plan, in the order in which they are started."""
        cells: list[Cell] = []
        for manipulation in self.setup.manipulations:
            for seed in self.setup.plan.seed_list:
                about = manipulation.name, seed
                cells += [Training(*about, "original"), Training(*about, "gold")]
                for alpha in dict.fromkeys(self.setup.plan.alphas):
                    cells += [Unlearning(*about, unlearner.name, alpha) for unlearner in self.setup.unlearners]
        return cells

    def sizes(self, cell: Cell) -> Sizes:
        """Return what a cell's cost depends on."""
        scenario, options = self.worker.scenario(cell.manipulation, cell.seed), self.worker.recipe.options
        identified = len(self.worker.identified(cell)) if isinstance(cell, Unlearning) else 0
        return Sizes(len(scenario.train), identified, options.batch_size, options.steps)

    def run(self) -> Results:
        """Compute what isn't there yet, read what is, and return all of it.

        A cell that fails is reported and the others go on; one whose original failed isn't tried. ``KeyboardInterrupt``
        passes through; every finished cell is kept.
        """
        self.store.open()
        self.observer.started(len(self.cells))
        came_of: dict[Cell, Done | Failure] = {}
        for cell, outcome in self._outcomes():
            came_of[cell] = outcome
            if isinstance(outcome, Done):
                self.observer.cell_finished(cell, outcome.read)
                self.store.forget_failure(self.worker.key(cell))
                continue
            with Caught():  # a scenario that can't be built has no key; that is what is being reported
                self.store.note_failure(self.worker.key(cell), outcome)
            self.observer.cell_failed(cell, outcome.reason)
        return self._results(came_of)

    def _outcomes(self) -> Iterator[tuple[Cell, Done | Failure]]:
        """Start each cell as soon as what it needs is there, in their order, and yield what came of each."""
        job = Job(self.setup.plan, tuple(self.inline), self.store.root, self.cells[0])
        adopt(self.worker, job)
        ready = [position for position, cell in enumerate(self.cells) if cell.needs is None]
        dependents: dict[Cell, list[int]] = {}
        for position, cell in enumerate(self.cells):
            if cell.needs is not None:
                dependents.setdefault(cell.needs, []).append(position)
        running: dict[Future[Done], Cell] = {}
        while ready or running:
            while ready and len(running) < self.executor.slots:
                cell = self.cells[heapq.heappop(ready)]
                running[self.executor.submit(work, job._replace(cell=cell))] = cell
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                cell, error = running.pop(future), future.exception()
                if error is None:
                    yield cell, future.result()
                else:
                    self.observer.error(error)
                    yield cell, self._failure(cell, reason(error), traceback_of(error))
                for position in dependents.pop(cell, ()):
                    if error is None:
                        heapq.heappush(ready, position)
                    else:
                        waiting = self.cells[position]
                        yield waiting, self._failure(waiting, f"There is no original model: {reason(error)}")

    def _failure(self, cell: Cell, why: str, trace: str = "") -> Failure:
        labels = {"dataset": self.setup.dataset.name, "model": self.setup.model.name, **cell.labels}
        return Failure(what="cell", **labels, reason=why, traceback=trace)

    def names(self, manipulation: str) -> dict[str, str]:
        """Return the metrics that the plan asks for of a manipulation, by their identity."""
        return {measurement.identity: measurement.name for measurement in self.worker.measurements[manipulation]}

    def _results(self, came_of: dict[Cell, Done | Failure]) -> Results:
        results = Results(self.setup.as_run(), self.worker.environment)
        for cell in self.cells:
            outcome = came_of[cell]
            if isinstance(outcome, Failure):
                results.failures.append(outcome)
                continue
            names = self.names(cell.manipulation)
            results.runs.append(outcome.run)
            results.computed += not outcome.read
            results.failures += outcome.run.failures(names)
            results.records += self._records(outcome.run, names)
        summaries = {summary.name: summary.make for summary in self.setup.summaries}
        measured = {identity: metric for run in results.runs for identity, metric in run.measured.items()}
        results.summaries, failures = summarise(summaries, results.records, measured.values(), self.observer)
        results.failures += failures
        if len(results.environments) > 1:
            self.observer.warning(
                f"The runs in '{self.store.root}' were computed in {len(results.environments)} environments, which may "
                "differ in their last digits."
            )
        return results

    def _records(self, run: Run, names: dict[str, str]) -> Iterator[Record]:
        plan = self.setup.plan
        oracle = best_on_test(run, names) if plan.oracle and run.unlearner else None
        for position, attempt in enumerate(run.attempts):
            if not attempt.error and (position in (run.selected, oracle) or plan.evaluate == "all"):
                yield run.record_of(position, names, oracle=position == oracle)
