"""What a plan would compute, and what that would cost."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from cutk.machine import describe_machine
from cutk.report.console import make_console
from cutk.run.benchmark import Benchmark
from cutk.run.estimate import cell_costs, seconds_per_pass, total

__all__ = ["duration", "print_dry_run"]


def print_dry_run(benchmark: Benchmark) -> None:
    """Print the cells of a plan, and what they cost in trainings, passes over the training data and hours."""
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Manipulation", "Seed", "Cell", "α", "Points", "Passes", "Evaluation", "State"):
        table.add_column(heading, justify="left" if heading in ("Manipulation", "Cell", "State") else "right")
    costs = cell_costs(benchmark)
    for cost in costs:
        cell = cost.cell
        table.add_row(
            escape(cell.manipulation.name),
            str(cell.seed),
            escape(cell.unlearner.name if cell.unlearner else cell.role),
            "" if cell.alpha is None else f"{cell.alpha:g}",
            str(cost.points),
            "unknown" if cost.work is None else f"{cost.work:.1f}",
            f"{cost.evaluation:.1f}",
            "stored" if cost.stored else "to do",
        )
    console.print(table)
    to_do = [cost for cost in costs if not cost.stored]
    passes, unknown = total(costs)
    lines = [
        f"{len(to_do)} of {len(costs)} cells to compute, {sum(cost.cell.unlearner is None for cost in to_do)} of them "
        "trainings of an original or gold model.",
        f"About {passes:.0f} passes, forward and backward, over {benchmark.sizes(costs[0].cell).train} training "
        "samples, evaluation included" + (f", and {unknown} cells whose unlearner does not tell." if unknown else "."),
    ]
    if to_do:
        each = seconds_per_pass(benchmark)
        machine = describe_machine(benchmark.recipe.device)
        lines.append(
            f"A pass takes about {duration(each)} here ({machine['hardware']}, {machine['threads']} threads, "
            f"{benchmark.recipe.precision}; measured just now), so all of it about {duration(each * passes)}."
        )
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a length of time as people say it.

    >>> duration(0.04), duration(90), duration(5000), duration(400000)
    ('0.04 s', '1.5 min', '1.4 h', '4.6 days')
    """
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"
