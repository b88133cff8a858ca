"""What is said of a run of hours when its first cell starts."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

from cutk.errors import Caught
from cutk.run.cells import Cell
from cutk.run.observer import Observer

if TYPE_CHECKING:
    from cutk.report.estimate import CellCost
    from cutk.run.study import Study

__all__ = ["Foresight", "remark_if_long"]

# Seconds from which on a run is long.
LIMIT = 3600.0
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


def remark_if_long(study: Study) -> str:
    """Say that a study takes more than an hour, and what would make it short; nothing if it doesn't.

    Quick where it doesn't: some training steps on a few samples show it.
    """
    from cutk.report.dry_run import duration
    from cutk.report.estimate import seconds_per_pass, total

    costs, seeds = _costs(study), len(study.setup.plan.seed_list)
    each_seed, untold = total(list(costs.values()))
    passes, each = each_seed * seeds, 0.0
    with Caught():
        each = seconds_per_pass(study, next(iter(costs)), enough=LIMIT / passes) if passes else 0.0
    if each * passes <= LIMIT:
        return ""
    there = _stored(study, costs)
    passes -= total(there)[0]
    if each * passes <= LIMIT:
        return ""
    to_do = len(costs) * seeds - len(there)
    how_long = f"{'more than' if untold else 'about'} {duration(each * passes)}"
    return (
        f"This takes {how_long} here, as far as a quick measurement tells: {to_do} cell{'s' * (to_do > 1)}, "
        f"{passes:.0f} passes over the training data. Shorter: {', '.join(_shorter(study))}. --dry-run lists the "
        "cells; Ctrl-C stops, and what is finished is kept."
    )


class Foresight(Observer):
    """Warns of a run of hours once there is something to compute: a study whose cells are all there isn't timed."""

    name = "foresight"
    study: Study | None = None

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def cell_started(self, cell: Cell) -> None:
        """Say so before the first one, and let garbage be collected, of which runs that are read leave none."""
        gc.enable()
        study, self.study = self.study, None
        if study is not None and (remark := remark_if_long(study)):
            self._observer.warning(remark)


def _shorter(study: Study) -> list[str]:
    plan, steps = study.setup.plan, study.worker.recipe.options.steps
    found = [f"--recipe steps={steps // 10}"] if steps >= 100 else []
    if any(len(unlearner.points) > 1 for unlearner in study.setup.unlearners):
        found.append("--search default")
    lists = {"--seeds": plan.seed_list, "--alpha": plan.alphas}
    return [*found, *(f"fewer {flag}" for flag, several in lists.items() if len(several) > 1), "a smaller --model"]
