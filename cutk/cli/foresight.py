"""What is said of a run of hours before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cutk.errors import Caught, CellError

if TYPE_CHECKING:
    from cutk.components import Sizes
    from cutk.run.cells import Cell
    from cutk.run.study import Study

__all__ = ["remark_if_long"]

# Seconds from which on a run is long.
LIMIT = 3600.0


def _sizes(study: Study) -> dict[Cell, Sizes]:
    """Return what each cell's cost depends on, as the first seed has it: others' differ little, and take long."""
    first = study.setup.plan.seed_list[0]
    known: dict[Cell, Sizes] = {}
    broken: set[str] = set()
    for cell in study.cells:
        if cell.manipulation in broken:
            continue
        twin = replace(cell, seed=first)
        try:
            known[cell] = known[twin] if twin in known else study.sizes(twin)
        except CellError:
            broken.add(cell.manipulation)
    return known


def remark_if_long(study: Study) -> str:
    """Say that a study takes more than an hour, and what would make it short; nothing if it doesn't.

    Quick where it doesn't: some training steps on a few samples show it.
    """
    from cutk.report.dry_run import duration
    from cutk.run.estimate import cost_of, seconds_per_pass, total

    sizes = _sizes(study)
    passes, _ = total([cost_of(study, cell, its, stored=False) for cell, its in sizes.items()])
    with Caught() as caught:  # whatever is wrong with a model or a manipulation, its cells will say so
        each = seconds_per_pass(study, next(iter(sizes)), enough=LIMIT / passes) if passes else 0.0
    if caught.error is not None:
        return ""
    if each * passes <= LIMIT:
        return ""
    # Only now is it worth its while to see what is there already.
    costs = [cost_of(study, cell, its, stored=study.worker.is_stored(cell)) for cell, its in sizes.items()]
    passes, untold = total(costs)
    if each * passes <= LIMIT:
        return ""
    to_do = sum(not cost.stored for cost in costs)
    how_long = f"{'more than' if untold else 'about'} {duration(each * passes)}"
    return (
        f"This takes {how_long} here, as far as a quick measurement tells: {to_do} cells, {passes:.0f} passes over the "
        f"training data. Shorter: {', '.join(_shorter(study))}. --dry-run lists the cells; Ctrl-C stops, and what is "
        "finished is kept."
    )


def _shorter(study: Study) -> list[str]:
    plan, steps = study.setup.plan, study.worker.recipe.options.steps
    found = [f"--recipe steps={steps // 10}"] if steps >= 100 else []
    if any(len(unlearner.points) > 1 for unlearner in study.setup.unlearners):
        found.append("--search default")
    lists = {"--seeds": plan.seed_list, "--alpha": plan.alphas}
    return [*found, *(f"fewer {flag}" for flag, several in lists.items() if len(several) > 1), "a smaller --model"]
