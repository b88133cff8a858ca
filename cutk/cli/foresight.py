"""What is said of a run of hours when its first cell starts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cutk.errors import Caught
from cutk.run.cells import Cell, Training
from cutk.run.observer import Observer

if TYPE_CHECKING:
    from cutk.report.estimate import CellCost
    from cutk.run.records import Run
    from cutk.run.study import Study

__all__ = ["Foresight", "remark_if_long"]

# Seconds from which on a run is long.
LIMIT = 3600.0
# Seconds of a training elsewhere that tell how long a pass takes there.
WATCHED = 5.0
# Of so many seeds and manipulations it is looked up what is there already: to know a cell's name takes its data.
LOOKED_UP = 20


def _costs(study: Study) -> dict[Cell, CellCost]:
    """Return what each cell of the first seed costs; other seeds' cost the same, nearly.

    A cell whose data can't be made is left out, and says so itself when its turn comes.
    """
    from cutk.report.estimate import cost_of

    first = study.setup.plan.seed_list[0]
    costs: dict[Cell, CellCost] = {}
    broken: set[str] = set()
    for cell in study.cells:
        if cell.seed == first and cell.manipulation not in broken:
            with Caught() as caught:
                costs[cell] = cost_of(study, cell, study.sizes(cell))
            if caught.error is not None:
                broken.add(cell.manipulation)
    return costs


def _stored(study: Study, costs: dict[Cell, CellCost]) -> list[CellCost]:
    """Return the costs of cells that are there already, as far as that is quickly told."""
    first = study.setup.plan.seed_list[0]
    several = dict.fromkeys((cell.manipulation, cell.seed) for cell in study.cells)
    looked_up = set(list(several)[:LOOKED_UP])
    found = []
    for cell in study.cells:
        cost = costs.get(replace(cell, seed=first))
        if cost and (cell.manipulation, cell.seed) in looked_up:
            with Caught():
                found += [cost] if study.worker.is_stored(cell) else []
    return found


def remark_if_long(study: Study, seconds: Callable[[Cell], float] | None = None, workers: int = 1) -> str:
    """Say that a study takes more than an hour, and what would make it short; nothing if it doesn't.

    Quick where it doesn't: some training steps on a few samples show it.

    Args:
        study: what is to be run.
        seconds: how long a pass over a cell's training data takes, where workers elsewhere have shown it.
        workers: how many share the cells.
    """
    from cutk.report.estimate import seconds_per_pass, total
    from cutk.report.naming import duration

    costs, seeds = _costs(study), len(study.setup.plan.seed_list)
    each_seed, untold = total(list(costs.values()))
    passes, each = each_seed * seeds, 0.0
    with Caught():
        if passes:
            cell = next(iter(costs))
            each = seconds(cell) / workers if seconds else seconds_per_pass(study, cell, enough=LIMIT / passes)
    if each * passes <= LIMIT:
        return ""
    there = _stored(study, costs)
    passes -= total(there)[0]
    if each * passes <= LIMIT:
        return ""
    to_do = len(costs) * seeds - len(there)
    how_long = f"{'more than' if untold else 'about'} {duration(each * passes)}"
    where = "here, as far as a quick measurement tells"
    if seconds:
        where = f"on {workers} worker{'s' * (workers > 1)}, as far as a training tells"
    return (
        f"This takes {how_long} {where}: {to_do} cell{'s' * (to_do > 1)}, "
        f"{passes:.0f} passes over the training data. Shorter: {', '.join(_shorter(study))}. --dry-run lists the "
        "cells; Ctrl-C stops, and what is finished is kept."
    )


class Foresight(Observer):
    """Warns of a run of hours once there is something to compute: a study whose cells are all there isn't timed.

    Where others compute, this machine's pace says nothing, and to measure it would be in their way: there the first
    training is watched.
    """

    name = "foresight"
    study: Study | None = None

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer
        self._running: set[Cell] = set()
        self._workers = 0
        self._began: dict[Cell, tuple[float, int]] = {}

    def cell_started(self, cell: Cell) -> None:
        """Say so before the first one, and let garbage be collected, of which runs that are read leave none."""
        gc.enable()
        self._running.add(cell)
        self._workers = max(self._workers, len(self._running))
        study = self.study
        if study is not None and study.setup.computes_here:
            self._say(remark_if_long(study))

    def progress(self, cell: Cell, done: int, total: int) -> None:
        """Say so as soon as a training elsewhere has shown its pace."""
        study, now = self.study, time.monotonic()
        if study is None or not isinstance(cell, Training):
            return
        began, before = self._began.setdefault(cell, (now, done))  # the first step has to set things up
        if done == before or (now - began < WATCHED and done < total):
            return
        step = (now - began) / (done - before)
        # To say it well takes the data, which a study of minutes that others compute needn't open here.
        most = max(len(unlearner.points) for unlearner in study.setup.unlearners)
        if step * total * most * len(study.cells) / self._workers <= LIMIT:
            self.study = None
            return
        batch = study.worker.recipe.options.batch_size
        self._say(remark_if_long(study, lambda one: step * study.sizes(one).train / batch, self._workers))

    def _say(self, remark: str) -> None:
        self.study = None  # once
        if remark:
            self._observer.warning(remark)

    def cell_finished(self, cell: Cell, run: Run, read: bool) -> None:
        """Count who is at work."""
        self._running.discard(cell)

    def cell_failed(self, cell: Cell, reason: str) -> None:
        """Count who is at work."""
        self._running.discard(cell)


def _shorter(study: Study) -> list[str]:
    plan, steps = study.setup.plan, study.worker.recipe.options.steps
    found = [f"--recipe steps={steps // 10}"] if steps >= 100 else []
    if any(len(unlearner.points) > 1 for unlearner in study.setup.unlearners):
        found.append("--search default")
    lists = {"--seeds": plan.seed_list, "--alpha": plan.alphas}
    return [*found, *(f"fewer {flag}" for flag, several in lists.items() if len(several) > 1), "a smaller --model"]
