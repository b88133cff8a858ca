"""How a cell is computed: one cell in, one run out."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from cutk.cost import Cost, measured
from cutk.errors import CellError
from cutk.guard import watched
from cutk.problem.task import Log
from cutk.problem.truth import Evaluation
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.chosen import Chosen
from cutk.run.files import Damaged, Unreadable
from cutk.run.isolation import Isolated
from cutk.run.keys import key_of
from cutk.run.measuring import Measurement, measure, unmeasured
from cutk.run.memo import Memo
from cutk.run.method import Logged, Method, Surveys
from cutk.run.observer import Observer, PutBack, tell_put_back
from cutk.run.opened import Opened, Prepare
from cutk.run.parcels import Parcels
from cutk.run.records import Attempt, Attempts, Environment, Labels, Run, Scalars, Trained
from cutk.run.search import Search, Working, within
from cutk.run.setup import Composed, Setup
from cutk.run.store import Parcel, Store

__all__ = ["Done", "Worker"]

_log = logging.getLogger(__name__)
Computed = tuple[
    list[Attempt], int, nn.Module, dict[str, Scalars]
]  # as ``Run`` calls them; the model is the selected one


# What of an original model another machine may decide otherwise.
_OF_MACHINES = ("device", "precision", "threads", "data", "corruption")


def _require_same(here: Trained, there: Trained | None) -> None:
    """Refuse to begin with another original model than the study has: the results would be set beside that one's.

    Raises:
        CellError: if what decides it isn't the same.
    """
    if there is None or key_of(here) == key_of(there):
        return
    found = ((name, getattr(here, name), getattr(there, name)) for name in _OF_MACHINES)
    differ = "; ".join(f"{name} {mine}, there {theirs}" for name, mine, theirs in found if mine != theirs)
    raise CellError(
        f"The worker on '{platform.node() or 'this machine'}' would begin with another original model than the study's "
        f"({differ or 'of other code'}). Give --device and --precision, and let all workers have the same data."
    )


class Done(NamedTuple):
    """A cell's run, whether it was there before, and what is to be put into the runs folder if a worker couldn't."""

    run: Run
    read: bool
    parcels: tuple[Parcel, ...] = ()


class Worker(Opened):
    """Opens a plan's data once and computes its cells.

    Everything that the user could have got wrong is checked on construction, before anything is written. With
    ``blank``, it goes without the data where they aren't there and their sizes are known, which is enough to tell a
    cost. ``inline`` are the files of plugins that aren't installed, for processes of methods. ``prepare`` makes of the
    data what the plan is about. Without ``trains`` the plan's model doesn't matter, and needn't fit the data.

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
        prepare: Prepare | None = None,
        trains: bool = True,
    ) -> None:
        super().__init__(setup, observer or Observer(), blank=blank, prepare=prepare)
        self.store, self._inline = store, inline
        # What is measured of a cell's models: each metric, and on each part of a composition by itself.
        self.measurements = {composed.name: _measurements(composed, setup.metrics) for composed in setup.manipulations}
        self._surveys: dict[Training, Surveys] = {}
        # A worker that sees no runs folder reads nothing from it.
        self.memo = Memo(store.root if isinstance(store, Store) else None, setup, self.splits, self.environment)
        for composed in setup.manipulations:
            # A component's failure is left to the cells that need it; what the user got wrong is said at once.
            with suppress(CellError):
                seed = self._first_seed(composed.name)
                self.require_fitting(composed.name, seed, model=trains)
                self._compare_memo(composed.name, seed)

    # What a run is called.

    def _called(self, cell: Cell, known: Labels | None = None) -> dict[str, Any]:
        """Return what of a run this plan decides by the names that it uses; a stored one's sizes are ``known``."""
        chosen = self._unlearner(cell) if isinstance(cell, Unlearning) else self.setup.model
        labels = Labels(
            **cell.labels,
            dataset=self.setup.dataset.name,
            model=self.setup.model.name,
            recipe=self.setup.recipe.name,
            **(self._sizes(cell) if known is None else known.model_dump(include={"manipulated", "identified"})),
        )
        return {"labels": labels, "provider": chosen.entry.provider.requirement}

    def _sizes(self, cell: Cell) -> dict[str, int | None]:
        return {
            "manipulated": len(self.scenario(cell.manipulation, cell.seed).corruption.manipulated),
            "identified": len(self.identified(cell)) if isinstance(cell, Unlearning) else None,
        }

    def _first_seed(self, manipulation: str) -> int:
        """Return the first seed of which something is noted, so that it can be compared; of none, the first of all."""
        seeds = self.setup.plan.seed_list
        noted = (seed for seed in seeds if self.memo.key(Training(manipulation, seed, "original")) is not None)
        return next(noted, seeds[0])

    def _compare_memo(self, manipulation: str, seed: int) -> None:
        """Compare what is noted of a seed whose data are there with what is so."""
        cells: list[Cell] = [Training(manipulation, seed, "original"), Training(manipulation, seed, "gold")]
        for each in self.setup.unlearners:
            cells += [Unlearning(manipulation, seed, each.name, alpha) for alpha in self.setup.plan.alphas]
        for cell in cells:
            if self.memo.key(cell) is not None:
                self.memo.note(cell, self.key(cell))

    def _noted(self, cell: Cell) -> Run | None:
        """Return a stored run whose key was noted, to which nothing is to be added: its data needn't be made."""
        key = None if self.blank else self.memo.key(cell)
        if key is None:
            return None
        try:
            run = self.store.peek(cell.kind, key)
        except Unreadable:  # which is told by who looks for it otherwise
            return None
        if run is None or self._lacks_kept(cell, run) or unmeasured(self.measurements[cell.manipulation], run.chosen):
            return None
        return run.model_copy(update=self._called(cell, run.labels))

    # How a cell is computed.

    def is_stored(self, cell: Cell) -> bool:
        """Say whether a cell would be read instead of computed."""
        if self.blank:
            return False
        if self._noted(cell) is not None:
            return True
        run = self.store.peek(cell.kind, self.key(cell))
        return run is not None and not self._lacks_kept(cell, run)

    def work(self, cell: Cell, original: Trained | None = None) -> Done:
        """Return a cell's run: as stored, with what this plan measures besides, or computed now.

        ``original`` is the M_o that an unlearner is to begin with, where another process trained it.

        Raises:
            CellError: if it gives none, or this process would begin with another M_o. Any other error is a component's,
                or the machine's.
        """
        try:
            return self._obtain(cell, original)
        except BaseException:
            self._restored()
            raise

    def _obtain(self, cell: Cell, original: Trained | None = None) -> Done:
        began = time.monotonic()
        if (noted := self._noted(cell)) is not None:
            _require_same(noted.trained, original)
            _log.info("%s: read in %.1f s, key %s", cell, time.monotonic() - began, noted.key)
            return Done(noted, True)
        if cell.needs is not None:
            _require_same(self._decides_training(cell.needs), original)
        run = self._read(cell)
        if run is not None and (complete := self._with_all_metrics(cell, run)) is not None:
            _log.info("%s: read in %.1f s, key %s", cell, time.monotonic() - began, run.key)
            self.memo.note(cell, run.key)
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
        self.memo.note(cell, written.key)
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
            # What it lacks, a metric that failed say, is its own cell's affair.
            if not self._is_there(cell.needs):
                self._obtain(cell.needs)
            if (model := self._weights(cell.needs)) is not None:
                return model
        raise CellError(f"The original model cannot be kept in '{self.store.root}'.")

    def _is_there(self, cell: Cell) -> bool:
        with suppress(Unreadable):  # which is told where it is obtained
            return self.store.peek(cell.kind, self.key(cell)) is not None
        return False

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
            known["scalars"] = logged.scalars
            if logged.suspicion is not None:
                known["suspicion"], known["probabilistic"] = logged.suspicion
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
