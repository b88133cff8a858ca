"""Tables on the terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cutk.components import Breakdown
from cutk.report.console import make_console
from cutk.run.records import GOLD, ORIGINAL, Record, Results

if TYPE_CHECKING:
    from cutk.run.plan import Chosen, Setup

__all__ = ["best_row", "mean_and_spread", "print_failures", "print_results"]

# Characters of a cell such as `0.832 ±0.061*`.
_CELL = 13


def mean_and_spread(values: Sequence[float]) -> str:
    """Return ``mean ± sample standard deviation``, the mean alone for one value, a dash for none.

    >>> mean_and_spread([0.8, 0.9, 1.0])
    '0.900 ±0.100'
    >>> mean_and_spread([])
    '–'
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ±{statistics.stdev(values):.3f}" if len(values) > 1 else mean


def best_row(values: Sequence[float | None], higher_is_better: bool) -> set[int]:
    """Return the positions of the best among the values that are there; all of them where they tie.

    >>> sorted(best_row([0.5, None, 0.9, 0.9], higher_is_better=True))
    [2, 3]
    """
    there = [value for value in values if value is not None]
    if not there:
        return set()
    best = max(there) if higher_is_better else min(there)
    return {i for i, value in enumerate(values) if value is not None and math.isclose(value, best, abs_tol=5e-4)}


class Row(NamedTuple):
    """One line of a table: an unlearner at one α, or a reference, with the records of all seeds.

    What the test set chose (the oracle) competes with nobody, and neither does a reference.
    """

    name: str
    alpha: float | None
    records: list[Record]
    competes: bool = True


def _rows(records: Iterable[Record], setup: Setup) -> list[Row]:
    """Group records into rows: original, each unlearner at each α and its oracle if asked for, gold."""
    records = list(records)

    def at(unlearner: str, alpha: float | None, why: str = "selected") -> list[Record]:
        return [r for r in records if r[why] and (r["unlearner"], r["alpha"]) == (unlearner, alpha)]

    rows = [Row("original", None, at(ORIGINAL, None), competes=False)]
    for alpha in dict.fromkeys(setup.plan.alphas):
        for unlearner in setup.unlearners:
            rows.append(Row(unlearner.name, alpha, at(unlearner.name, alpha)))
            if setup.plan.oracle and len(unlearner.points) > 1:
                name = f"{unlearner.name} (oracle)"
                rows.append(Row(name, alpha, at(unlearner.name, alpha, "oracle"), competes=False))
    return [*rows, Row("gold", None, at(GOLD, None), competes=False)]


def _fitting(metrics: Sequence[Chosen], names: Iterable[str], width: int) -> list[Sequence[Chosen]]:
    """Deal the metrics out to as many tables as it takes for each to fit ``width``, about equally many to each."""
    left = width - max(map(len, names)) - 10
    tables = math.ceil(len(metrics) / max(1, left // (_CELL + 2)))
    each = math.ceil(len(metrics) / tables)
    return [metrics[start : start + each] for start in range(0, len(metrics), each)]


def _column(metric: Chosen, rows: Sequence[Row]) -> list[str]:
    """Return a metric's cells, the best of the unlearners marked."""
    component: Any = metric.entry.component
    values = [[r["metrics"][metric.name] for r in row.records if metric.name in r["metrics"]] for row in rows]
    means = [
        statistics.fmean(of_row) if of_row and row.competes else None for of_row, row in zip(values, rows, strict=True)
    ]
    best = best_row(means, component.higher_is_better)
    # The blank keeps the digits of marked and unmarked cells in line.
    return [
        f"[bold]{mean_and_spread(of_row)}[/bold]*" if i in best else mean_and_spread(of_row) + " "
        for i, of_row in enumerate(values)
    ]


def _table(metrics: Sequence[Chosen], rows: Sequence[Row], seeds: int, several: bool) -> Table:
    """Build one table; ``several`` unlearners are set apart by a rule between one α and the next."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("α", justify="right", no_wrap=True)
    table.add_column("Unlearner", no_wrap=True)
    for metric in metrics:
        component: Any = metric.entry.component
        arrow = "↑" if component.higher_is_better else "↓"
        table.add_column(f"{metric.name.replace('_', ' ')} {arrow}", justify="right", min_width=_CELL)
    columns = [_column(metric, rows) for metric in metrics]
    for i, row in enumerate(rows):
        reference = row.alpha is None
        following = rows[i + 1].alpha if i + 1 < len(rows) else None
        table.add_row(
            "" if reference else f"{row.alpha:g}",
            escape(row.name) + (f" ({len(row.records)} of {seeds} seeds)" if 0 < len(row.records) < seeds else ""),
            *(column[i] for column in columns),
            style=None if row.competes else "dim",
            end_section=reference or following is None or (several and row.alpha != following),
        )
    return table


def print_results(results: Results, setup: Setup) -> None:
    """Print a table for each manipulation, the summaries, and what failed."""
    console = make_console()
    plan, environment = results.plan, results.environment
    for manipulation in setup.manipulations:
        mine = [r for r in results.records if r["manipulation"] == manipulation.name]
        console.print(
            f"[bold]{escape(setup.dataset.name)}, {escape(manipulation.name)}, {escape(setup.model.name)}[/bold]: "
            f"mean ± sd over {plan['seeds']} seed{'s' if plan['seeds'] > 1 else ''}; * best of the unlearners",
            highlight=False,
        )
        rows = _rows(mine, setup)
        single = [m for m in setup.metrics if not issubclass(m.entry.component, Breakdown)]
        for metrics in _fitting(single, [row.name for row in rows], console.width):
            console.print(_table(metrics, rows, plan["seeds"], several=len(setup.unlearners) > 1))
        for summary in results.summaries:
            if summary["manipulation"] == manipulation.name:
                for name, value in summary["metrics"].items():
                    shown = f"{value:g}" if value is not None else "not reached on this grid"
                    console.print(f"{escape(summary['unlearner'])}: {name} = {shown}", highlight=False)
    if setup.plan.oracle:
        console.print("oracle: the grid point that is best on the test set; no method could have chosen it.")
    for there in (environment, *environment.get("others", ())):
        console.print(
            f"cutk {environment['providers'].get('cutk', '')}, torch {there['torch']}, Python {there['python']}; "
            f"{there['device']} ({there['hardware']}, {there['threads']} threads), {there['precision']}",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )


def print_failures(failures: Sequence[Record], tracebacks: bool = False) -> None:
    """Print what gave no number to stderr, a line each, and where it happened if asked to."""
    if not failures:
        return
    console = Console(stderr=True)
    console.print(f"{len(failures)} failed:", highlight=False)
    for failed in failures:
        alpha = "" if failed["alpha"] is None else f" at α = {failed['alpha']:g}"
        seed = "all seeds" if failed["seed"] is None else f"seed {failed['seed']}"
        what = f"{failed['manipulation']}, {seed}: {failed['unlearner']}{alpha}"
        if failed.get("options"):
            what += " with " + ", ".join(f"{name}={value}" for name, value in failed["options"].items())
        if "metric" in failed:
            what += f", metric {failed['metric']}"
        console.print(escape(f"  {what}: {failed['reason']}"), highlight=False, soft_wrap=True)
        if tracebacks and failed["traceback"]:
            console.print(escape(failed["traceback"]), highlight=False, soft_wrap=True)
