"""How long a repair will take, said before it begins."""

from __future__ import annotations

import copy
import math

from cutk.chance import isolated_rng
from cutk.components import Sizes
from cutk.errors import Caught
from cutk.repair.problem import Methods, Problem
from cutk.report.estimate import FORWARD, timed_pass, work_of
from cutk.report.naming import duration

__all__ = ["per_pass_of", "told_duration"]

# Seconds from which on it is worth a line.
_LONG = 20.0
# A training step of so many seconds is worth its while: eight samples scaled up tell large networks to be far slower.
_STEP = 10.0


def per_pass_of(problem: Problem, passes: float = math.inf) -> float:
    """Measure the seconds of a pass over the training samples, forward and backward, and more closely if it matters.

    It doesn't where so many ``passes`` are quick.
    """
    seconds, enough = [0.0], _LONG / passes if passes else math.inf
    with isolated_rng(0), Caught():  # what fails here fails again where it is needed, and is named there
        seconds.append(
            timed_pass(problem.recipe, copy.deepcopy(problem.task.original), problem.task.train, enough, _STEP)
        )
    return seconds[-1]


def passes_of(problem: Problem, methods: Methods) -> tuple[float, list[str]]:
    """Return what all methods cost together, in passes over the training samples, and who of them doesn't tell."""
    task, recipe = problem.task, problem.recipe.options
    sizes = Sizes(len(task.train), len(task.identified), recipe.batch_size, recipe.steps)
    works = {one.name: work_of(one, sizes) for one in methods.unlearners}
    points = sum(len(one.points) for one in methods.unlearners)
    asked = points * (len(task.validation or ()) + len(task.identified)) + len(works) * len(task.train)
    untold = [name for name, work in works.items() if work is None]
    return sum(filter(None, works.values())) + FORWARD * asked / len(task.train), untold


def told_duration(problem: Problem, methods: Methods, per_pass: float | None = None) -> str:
    """Say how long the methods will take, if that is long; nothing if it isn't.

    ``per_pass`` are the seconds of a pass, measured if not given.
    """
    passes, untold = passes_of(problem, methods)
    seconds = passes * (per_pass_of(problem, passes) if per_pass is None else per_pass)
    if seconds < _LONG:
        return ""
    points = ", ".join(f"{one.name} ({len(one.points)})" for one in methods.unlearners)
    budget = methods.limits.budget_seconds
    if budget is None:
        several = any(len(one.points) > 1 for one in methods.unlearners)
        after = "--budget bounds it" + (", --search default tries one point of each" if several else "")
    else:
        after = f"the budget ends it after {duration(budget)}"
    how_long = f"{'more than' if untold else 'about'} {duration(seconds)}"
    return f"Points to try: {points}. That takes {how_long} here, as far as a quick measurement tells; {after}."
