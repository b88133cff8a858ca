"""What a plan would compute, and what that would cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from cutk.report.console import make_console
from cutk.report.estimate import CellCost, total
from cutk.report.naming import duration
from cutk.report.terminal import safe


def print_dry_run(costs: Sequence[CellCost], samples: int, seconds_per_pass: float, machine: str) -> None:
    """Print the cells of a plan, and what they cost in trainings, passes over the training data and hours.

    A pass goes over so many ``samples``, as measured on ``machine``; its seconds matter where there is a cell to do.
    """
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Manipulation", "Seeds", "Cell", "α", "Points", "Passes", "Evaluation", "State"):
        table.add_column(heading, justify="left" if heading in ("Manipulation", "Cell", "State") else "right")
    for cost in costs:
        about = cost.cell.labels
        table.add_row(
            safe(about["manipulation"]),
            spans(cost.seeds),
            safe(about.get("unlearner", about["role"])),
            f"{about['alpha']:g}" if "alpha" in about else "",
            str(cost.points),
            "unknown" if cost.work is None else f"{cost.work:.1f}",
            f"{cost.evaluation:.1f}",
            "stored" if cost.stored else "to do",
        )
    console.print(table)
    to_do = [cost for cost in costs if not cost.stored]
    cells, missing = (sum(len(cost.seeds) for cost in those) for those in (costs, to_do))
    trainings = sum(len(cost.seeds) for cost in to_do if cost.cell.kind == "train")
    passes, unknown = total(costs)
    lines = [
        f"{missing} of {cells} cells to compute, {trainings} of them trainings of an original or gold model.",
        f"About {passes:.0f} passes, forward and backward, over {samples} training samples, evaluation included"
        + (f", and {unknown} cells whose unlearner does not tell." if unknown else "."),
    ]
    if to_do:
        here, whole = duration(seconds_per_pass), duration(seconds_per_pass * passes)
        lines.append(f"A pass takes about {here} here ({machine}; measured just now), so all of it about {whole}.")
    for line in lines:
        console.print(safe(line), highlight=False, soft_wrap=True)


def spans(numbers: Sequence[int]) -> str:
    """Return numbers as people write them, neighbours as a span.

    >>> spans([0, 1, 2, 5, 7, 8])
    '0–2, 5, 7–8'
    """
    ordered = sorted(numbers)
    starts = [n for i, n in enumerate(ordered) if not i or n != ordered[i - 1] + 1]
    ends = [n for i, n in enumerate(ordered) if i + 1 == len(ordered) or n + 1 != ordered[i + 1]]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))
