"""What a plan would cost, before anything of it is computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cutk.components import Sizes
from cutk.data.batches import TrainSet
from cutk.learning.recipe import Recipe
from cutk.machine import synchronise
from cutk.run.cells import Cell
from cutk.run.chosen import Chosen
from cutk.run.study import Study

__all__ = ["CellCost", "cell_costs", "cost_of", "seconds_per_pass", "timed_pass", "total", "work_of"]

# A forward pass alone, in passes: half of what a backward pass takes.
FORWARD = 1 / 3


@dataclass(frozen=True)
class CellCost:
    """What a cell costs that is the same for several seeds, in passes over S_tr (forward and backward).

    Attributes:
        cell: the first of them.
        points: how many options it tries.
        work: passes of its trainings or of its unlearner; none if the unlearner doesn't tell.
        evaluation: passes of scoring each point and measuring what is to be measured.
        stored: whether it is there already, so that it costs nothing.
        seeds: of the cells.
    """

    cell: Cell
    points: int
    work: float | None
    evaluation: float
    stored: bool
    seeds: tuple[int, ...]


def work_of(unlearner: Chosen | None, sizes: Sizes) -> float | None:
    """Return the passes over S_tr of an unlearner's grid, or of a training; None if the unlearner doesn't tell."""
    if unlearner is None:
        return sizes.steps * sizes.batch_size / sizes.train
    component: Any = unlearner.entry.component
    prepare: dict[tuple[Any, ...], float] = {}  # points that agree on what it reads share its result
    work = 0.0
    for options in unlearner.points:
        cost = component.passes(options, sizes)
        if cost is None:
            return None
        prepare[tuple(getattr(options, name) for name in component.prepared_by)] = cost[0]
        work += cost[1]
    return float(sum(prepare.values()) + work)


def cost_of(study: Study, cell: Cell, sizes: Sizes) -> CellCost:
    """Return what a cell costs, were it not there yet."""
    splits, plan = study.worker.splits, study.setup.plan
    validation = (
        round(plan.validation_fraction * len(splits.train)) if splits.validation is None else len(splits.validation)
    )
    unlearner = next((u for u in study.setup.unlearners if u.name == cell.labels.get("unlearner")), None)
    points = len(unlearner.points) if unlearner else 1
    scored = points * (validation + sizes.identified) if unlearner else 0
    # The affected domain and the rest, S_m and S_f.
    measured = (points if plan.evaluate == "all" else 1) * (2 * len(splits.test) + 2 * sizes.identified)
    return CellCost(
        cell, points, work_of(unlearner, sizes), FORWARD * (scored + measured) / sizes.train, False, (cell.seed,)
    )


def cell_costs(study: Study) -> list[CellCost]:
    """Return the cost of every cell of a plan, in the order in which those of the first seed would be started.

    Another seed's cost the same, nearly: they have as many samples, except where chance decides how many are found.
    """
    stored = study.stored()
    seeds: dict[Cell, tuple[list[int], list[int]]] = {}
    first = study.setup.plan.seed_list[0]
    for cell in study.cells:
        seeds.setdefault(replace(cell, seed=first), ([], []))[cell in stored].append(cell.seed)
    found = []
    for cell, parts in seeds.items():
        cost = cost_of(study, cell, study.sizes(cell))
        found += [
            replace(cost, cell=replace(cell, seed=those[0]), stored=there, seeds=tuple(those))
            for there, those in zip((False, True), parts, strict=True)
            if those
        ]
    return found


def seconds_per_pass(study: Study, cell: Cell, enough: float = 0.0) -> float:
    """Measure on this machine how long a pass over S_tr of ``cell`` takes: see ``timed_pass``."""
    scenario = study.worker.scenario(cell.manipulation, cell.seed)
    return timed_pass(study.worker.recipe, study.worker.recipe.place(scenario.build()), scenario.train, enough)


def timed_pass(recipe: Recipe, model: nn.Module, samples: TrainSet, enough: float = 0.0, step: float = 2.0) -> float:
    """Measure how many seconds a pass over ``samples`` takes, forward and backward: some seconds' work.

    A few training steps are timed, the first of them (which sets things up) apart. Where a whole step takes less than
    ``step`` seconds, as eight samples show, the recipe's own batch size is used, which takes less for each sample;
    otherwise eight are scaled up. What they show to be below ``enough`` isn't measured better. ``model`` is trained a
    little.
    """
    train = samples.drawing_from(torch.Generator().manual_seed(0))

    def per_sample(size: int, steps: int) -> float:
        batches = train.batches(None, size, shuffle=True, augment=True, steps=steps)
        synchronise(recipe.device)
        start = time.perf_counter()
        recipe.fit(model, batches, steps=steps, lr=1e-6)
        synchronise(recipe.device)
        return (time.perf_counter() - start) / (steps * min(size, len(train)))

    per_sample(8, 1)
    estimate = per_sample(8, 1)
    size = min(recipe.options.batch_size, len(train))
    if estimate * len(train) > enough and estimate * size < step:
        per_sample(size, 1)
        estimate = per_sample(size, max(1, min(20, int(1 / (estimate * size)))))
    return estimate * len(train)


def total(costs: Sequence[CellCost]) -> tuple[float, int]:
    """Return the passes of all cells that aren't stored, and how many of these don't tell theirs."""
    to_do = [(cost, len(cost.seeds)) for cost in costs if not cost.stored]
    passes = sum(((cost.work or 0.0) + cost.evaluation) * count for cost, count in to_do)
    return passes, sum(count for cost, count in to_do if cost.work is None)
