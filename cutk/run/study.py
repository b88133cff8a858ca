"""Which cells a plan has, when each can start, and what came of all of them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from cutk.components import Sizes
from cutk.errors import Caught, CellError, CutkError, UsageError, one_line, traceback_of
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.executor import Executor, Pool
from cutk.run.files import Damaged
from cutk.run.jobs import Failed, Job, Lacking, adopt, leave, work
from cutk.run.keys import Kind, key_but_for_code
from cutk.run.logs import LOG, level, relog
from cutk.run.observer import TOLD, Observer, Observers
from cutk.run.ready import Ready
from cutk.run.records import SCHEMA, Environment, Failure, Record, Run, Trained
from cutk.run.setup import Setup
from cutk.run.store import Parcel, Store
from cutk.run.summary import Summarised, best_on_test, summarise
from cutk.run.worker import Done, Worker

__all__ = ["Results", "Study"]

_log = logging.getLogger(__name__)


# Seconds after which a wait begins anew: an interrupt that comes just before one without a limit isn't heard until it
# ends, and on Windows none is.
_WAIT = 1.0


def _next(ended: SimpleQueue[Future[Done | Failed | Lacking]]) -> Future[Done | Failed | Lacking]:
    """Return what has ended, once something has."""
    while True:
        with suppress(Empty):
            return ended.get(timeout=_WAIT)


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
    """A plan being carried out: its cells are computed where its executor says, or read from ``store``.

    ``observer`` is told before the plan's own observers. ``inline`` are the files of plugins that aren't installed, for
    other processes. With ``blank``, which is as for ``Worker``, it can't be run.

    Raises:
        UsageError: if data, manipulation, model, α, device and precision don't fit each other, or an observer can't
            observe.
    """

    setup: Setup
    store: Store
    observer: Observer = field(default_factory=Observer)
    inline: Sequence[Path] = ()
    blank: InitVar[bool] = field(default=False, kw_only=True)

    def __post_init__(self, blank: bool) -> None:
        self._over = False
        self.observer = Observers(self.observer, [chosen.make() for chosen in self.setup.observers])
        self.observer.ready()
        self.worker = Worker(self.setup, self.store, self.observer, inline=self.inline, blank=blank)

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells of the plan, in the order in which one worker starts them."""
        cells: list[Cell] = []
        unlearners, alphas = self.setup.unlearners, dict.fromkeys(self.setup.plan.alphas)
        for manipulation in self.setup.manipulations:
            for seed in self.setup.plan.seed_list:
                about = manipulation.name, seed
                cells += [Training(*about, "original"), Training(*about, "gold")]
                cells += [Unlearning(*about, each.name, alpha) for alpha in alphas for each in unlearners]
        return cells

    def sizes(self, cell: Cell) -> Sizes:
        """Return what a cell's cost depends on."""
        scenario, options = self.worker.scenario(cell.manipulation, cell.seed), self.worker.recipe.options
        identified = len(self.worker.identified(cell)) if isinstance(cell, Unlearning) else 0
        return Sizes(len(scenario.train), identified, options.batch_size, options.steps)

    def stored(self) -> set[Cell]:
        """Return the cells that would be read instead of computed.

        To know a cell's name takes its data, so those of seeds that no run in the folder has aren't looked for.
        """
        seeds = self.store.seeds()
        return {cell for cell in self.cells if cell.seed in seeds and self.worker.is_stored(cell)}

    def run(self) -> Results:
        """Compute what isn't there yet, read what is, and return all of it.

        A cell that fails is reported and the others go on; one whose original failed isn't tried. ``KeyboardInterrupt``
        passes through; every finished cell is kept.

        Raises:
            UsageError: if the executor can't open, or can't be given cells.
        """
        came_of: dict[Cell, Done | Failure] = {}
        self._over = False
        executor: Executor = self.setup.executor.make()
        with self._pool(executor) as pool:  # first, since nothing is written where there are no workers
            self.store.open()
            self.observer.started(len(self.cells))
            began = time.monotonic()
            _log.info("%d cells; runs are kept in '%s'", len(self.cells), self.store.root)
            _log.debug("The plan as it is run: %s", json.dumps(self.setup.as_run(), ensure_ascii=False, default=str))
            try:
                for cell, outcome in self._outcomes(executor, pool):
                    if isinstance(outcome, Done):
                        came_of[cell] = outcome
                        if not executor.here and outcome.run.environment.machine == self.worker.environment.machine:
                            self.worker.memo.note(cell, outcome.run.key)  # which its worker kept to itself
                        self.observer.cell_finished(cell, outcome.run, outcome.read)
                        self._forget_failure(cell, outcome, elsewhere=not executor.here)
                        continue
                    labels = {"dataset": self.setup.dataset.name, "model": self.setup.model.name, **cell.labels}
                    failure = Failure(what="cell", **labels, reason=outcome.reason, traceback=outcome.traceback)
                    came_of[cell] = failure
                    _log.info("%s: failed: %s", cell, outcome.reason)
                    _log.debug("%s: %s", cell, outcome.traceback)
                    with Caught():  # a scenario that can't be built has no key; that is what is being reported
                        about = key_but_for_code(self.worker.decided_by(cell))
                        self.store.note_failure(self.worker.key(cell), failure.model_copy(update={"cell": about}))
                    self.observer.cell_failed(cell, outcome.reason)
            finally:
                self._over = True
                self.observer.finished()
                self.worker.memo.keep()
                leave()
                _log.info("%d of %d cells ended after %.1f s", len(came_of), len(self.cells), time.monotonic() - began)
        return self._results(came_of)

    @contextmanager
    def _pool(self, executor: Executor) -> Iterator[Pool]:
        """Open the executor for the length of the block."""
        with ExitStack() as stack:
            with self._blaming("open()"):
                opened: object = executor.open(self._hear)
                if not isinstance(opened, AbstractContextManager):
                    raise CutkError(f"expected a context manager (@contextmanager), got {type(opened).__name__}")
                pool: Any = stack.enter_context(opened)
                slots = getattr(pool, "slots", None)
                if not isinstance(slots, int) or slots < 1:
                    raise CutkError(f"expected a pool with slots, how many jobs it does at once, got slots = {slots!r}")
            yield pool

    @contextmanager
    def _blaming(self, method: str) -> Iterator[None]:
        """Name the executor if a method of its own fails."""
        with Caught() as caught:
            yield
        if isinstance(caught.error, UsageError):
            raise caught.error
        if caught.error is not None:
            chosen = self.setup.executor
            who = f"The executor '{chosen.name}' of {chosen.entry.provider.requirement}"
            said = f"{method} failed: {caught.reason.rstrip('.')}. Mend it, or choose another one with --executor."
            raise UsageError(f"{who}: {said}") from caught.error

    def _forget_failure(self, cell: Cell, outcome: Done, *, elsewhere: bool) -> None:
        if not self.store.notes_failures():
            return
        about = "" if outcome.read else key_but_for_code(outcome.run.decided_by)
        self.store.forget_failure(outcome.run.key, about)
        # It was noted under the name that the cell has here; a worker on another machine may have another one for it.
        if elsewhere and not outcome.read:
            with Caught():  # what has no name here was never noted
                self.store.forget_failure(self.worker.key(cell))

    def _outcomes(self, executor: Executor, pool: Pool) -> Iterator[tuple[Cell, Done | Failed]]:
        """Start each cell as soon as what it needs is there, and yield what came of each."""
        # Workers elsewhere use as many threads as this process would, for the same last bits.
        plan = self.setup.plan.model_copy(update={"threads": self.worker.environment.threads})
        runs = self.store.root if executor.sees_runs else None
        job = Job(plan, tuple(self.inline), runs, self.setup.providers(), self.cells[0], log_level=level())
        adopt(self.worker, job)
        ready = Ready(self.cells, by_duration=pool.slots > 1)
        dependents: dict[Cell, list[int]] = {}
        for position, cell in enumerate(self.cells):
            if cell.needs is None:
                ready.add(position)
            else:
                dependents.setdefault(cell.needs, []).append(position)
        originals: dict[Cell | None, Trained] = {}  # as they came out
        running: dict[Future[Done | Failed | Lacking], tuple[Job, float]] = {}  # and since when
        # Waiting for any of many futures takes time for each of them, whichever it is that ends.
        ended: SimpleQueue[Future[Done | Failed | Lacking]] = SimpleQueue()

        def submit(given: Job, since: float) -> None:
            with self._blaming("submit()"):
                future = pool.submit(work, given)
                if not isinstance(future, Future):
                    raise CutkError(f"expected a concurrent.futures.Future, got {type(future).__name__}")
            running[future] = given, since
            future.add_done_callback(ended.put)

        while ready or running:
            while ready and len(running) < pool.slots:
                cell = self.cells[ready.pop()]
                _log.debug("%s: given to the executor '%s'", cell, self.setup.executor.name)
                submit(job._replace(cell=cell, original=originals.get(cell.needs)), time.monotonic())
            future = _next(ended)
            given, since = running.pop(future)
            lost = CellError("Its job was cancelled.") if future.cancelled() else future.exception()
            cell = given.cell
            outcome: Done | Failed | Lacking
            outcome = future.result() if lost is None else Failed(one_line(lost), traceback_of(lost))
            if isinstance(outcome, Lacking):
                with Caught() as caught:
                    asked = (*given.asked, *outcome.runs)
                    again = given._replace(asked=asked, parcels=self._parcels(asked))
                if caught.error is None:
                    submit(again, since)
                    continue
                outcome = Failed(caught.reason, caught.traceback)
            if not (executor.here and isinstance(outcome, Done) and outcome.read):  # which was there a moment ago
                outcome = self._kept(outcome)
            if isinstance(outcome, Done) and not outcome.read:
                ready.took(cell, time.monotonic() - since)
            yield cell, outcome
            for position in dependents.pop(cell, ()):
                if isinstance(outcome, Done):
                    if not executor.here:  # this process can't have another one
                        originals[cell] = outcome.run.trained
                    ready.add(position)
                else:
                    yield self.cells[position], Failed(f"There is no original model: {outcome.reason}")

    def _parcels(self, asked: tuple[tuple[Kind, str], ...]) -> tuple[Parcel, ...]:
        """Return what there is of the runs that a worker elsewhere would read."""
        found: list[Parcel] = []
        for kind, key in asked:
            try:
                parcel = self.store.parcel(kind, key)
            except Damaged as damage:
                self.observer.warning(f"Damaged run: {damage}; it is computed again.")
            else:
                found += [parcel] if parcel else []
        return tuple(found)

    def _kept(self, outcome: Done | Failed) -> Done | Failed:
        """Return what came of a cell, its run being in the runs folder."""
        if isinstance(outcome, Failed):
            return outcome
        with Caught() as caught:
            for run, weights in outcome.parcels:
                self.store.write(run, weights, replace=True)
            if not self.store.has(outcome.run):
                raise CellError(
                    f"The run isn't in the folder '{self.store.root}': its worker writes to another one of this name. "
                    "Choose one with --runs that workers share, or an executor's option that sends runs back."
                )
        return Done(outcome.run, outcome.read) if caught.error is None else Failed(caught.reason, caught.traceback)

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Tell the observers what a worker elsewhere has to tell, and log what it logged."""
        if name == LOG:
            relog(*arguments)
        elif name in TOLD and not self._over:  # a worker may not have ended yet where the study was interrupted
            getattr(self.observer, name)(*arguments)

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
        cells = (failure for failure in results.failures if failure.what == "cell")
        failed = {(f.manipulation, f.unlearner, f.alpha) for f in cells if f.unlearner and f.alpha is not None}
        results.summaries, failures = summarise(summaries, results.records, measured.values(), self.observer, failed)
        results.failures += failures
        if len(results.environments) > 1:
            how = sorted({f"{each.precision} on {each.device}" for each in results.environments})
            differ = "may differ in their last digits."
            if len(how) > 1:
                differ = f"compute otherwise ({', '.join(how)}). To compare them, give --device and --precision."
            where = f"The runs in '{self.store.root}' were computed in {len(results.environments)} environments"
            self.observer.warning(f"{where}, which {differ}")
        return results

    def _records(self, run: Run, names: dict[str, str]) -> Iterator[Record]:
        plan = self.setup.plan
        oracle = best_on_test(run, names) if plan.oracle and run.unlearner else None
        every = plan.evaluate == "all"  # an oracle is told only then
        for position in range(len(run.attempts)) if every else (run.selected,):
            if not run.attempts[position].error:
                yield run.record_of(position, names, oracle=position == oracle)
