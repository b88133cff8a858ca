"""The tables of a report, before anything is known of how they are written down."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cutk.components import Summary
from cutk.errors import UsageError
from cutk.options import parse_options
from cutk.plugins.registry import Registry
from cutk.report.experiments import SHOWN, Experiment, Point, Setting, Stat, stat
from cutk.report.runs import Measured
from cutk.report.tables import best_row
from cutk.run.plan import Chosen
from cutk.run.records import GOLD, ORIGINAL, summarise

__all__ = ["Cell", "Column", "Line", "Sheet", "sheets_of", "tidy"]

MINUS = "−"


class Cell(NamedTuple):
    """What stands in one place of a table.

    Attributes:
        text: a name, or a mean.
        spread: ``±`` and the standard deviation, if there is one.
        number: what to sort by, if it isn't the text.
        best: whether no other method is better in this column.
    """

    text: str
    spread: str = ""
    number: float | None = None
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.spread}".rstrip()


class Column(NamedTuple):
    """A column's heading, what it means, and whether its cells are numbers."""

    heading: str
    meaning: str = ""
    numeric: bool = True


class Line(NamedTuple):
    """One line; a reference competes with nobody, and a rule may follow a section."""

    cells: tuple[Cell, ...]
    reference: bool = False
    ends_section: bool = False


class Sheet(NamedTuple):
    """One table.

    Attributes:
        title: what it is, in a line.
        note: how to read it.
        columns: from left to right; the first ``heads`` of them say what a line is about.
        lines: from top to bottom.
        heads: see there.
        setting: the setting that it is about, None if it is about a whole experiment.
    """

    title: str
    note: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    heads: int
    setting: Setting | None = None


NOTHING = Cell("–")


def _decimals(value: float, fraction: bool) -> int:
    size = abs(value)
    return 3 if fraction or size < 1 else 2 if size < 10 else 1 if size < 100 else 0


def number_cell(value: Stat | None, fraction: bool = False, signed: bool = False, decimals: int | None = None) -> Cell:
    """Return the cell for a mean.

    >>> number_cell(Stat(-1.5, 0.25, 3), signed=True, decimals=2)
    Cell(text='−1.50', spread='±0.25', number=-1.5, best=False)
    """
    if value is None:
        return NOTHING
    places = _decimals(value.mean, fraction) if decimals is None else decimals
    text = f"{value.mean:{'+' if signed else ''}.{places}f}".replace("-", MINUS)
    return Cell(text, "" if value.sd is None else f"±{value.sd:.{places}f}", value.mean)


def _arrow(higher_is_better: bool) -> str:
    return "↑" if higher_is_better else "↓"


def _metric_column(metric: Measured) -> Column:
    return Column(f"{metric.name.replace('_', ' ')} {_arrow(metric.higher_is_better)}", metric.summary)


def _marked(columns: Sequence[list[Cell]], better: Sequence[bool | None], competes: Sequence[bool]) -> list[list[Cell]]:
    """Mark the best cells of each column whose direction is known."""
    result = []
    for cells, higher in zip(columns, better, strict=True):
        numbers = [cell.number if in_it else None for cell, in_it in zip(cells, competes, strict=True)]
        best = set() if higher is None else best_row(numbers, higher)
        result.append([cell._replace(best=i in best) for i, cell in enumerate(cells)])
    return result


def setting_sheet(experiment: Experiment, setting: Setting) -> Sheet:
    """Return every metric of one setting: original, each method at each α, gold."""
    rows: list[tuple[str, float | None]] = [(SHOWN[ORIGINAL], None)]
    rows += [(method, a) for a in setting.alphas for method in setting.methods if setting.selected(method, a)]
    rows += [(SHOWN[GOLD], None)]
    metrics = {
        name: metric
        for name, metric in experiment.metrics.items()
        if any(setting.measured(name, *row) is not None for row in rows)
    }
    columns = _marked(
        [
            [number_cell(setting.measured(name, *row), metric.is_fraction) for row in rows]
            for name, metric in metrics.items()
        ],
        [metric.higher_is_better for metric in metrics.values()],
        [alpha is not None for _, alpha in rows],
    )
    lines = []
    for i, (name, alpha) in enumerate(rows):
        heads = (
            Cell("" if alpha is None else f"{alpha:g}", number=alpha),
            NOTHING._replace(text="")
            if alpha is None
            else Cell(f"{setting.identified(alpha):g}", number=setting.identified(alpha)),
            Cell(name),
            Cell(str(len(setting.selected(name, alpha))), number=len(setting.selected(name, alpha))),
        )
        last = i + 1 == len(rows) or rows[i + 1][1] != alpha
        lines.append(Line((*heads, *(column[i] for column in columns)), alpha is None, last))
    return Sheet(
        f"{experiment.name}: {setting.title}",
        "Mean ± sample standard deviation over n seeds; the best of the methods is marked.",
        (
            Column("α", "identified fraction of the manipulated samples"),
            Column("|S_f|", "number of identified samples"),
            Column("Unlearner", numeric=False),
            Column("n", "number of seeds"),
            *(_metric_column(metric) for metric in metrics.values()),
        ),
        tuple(lines),
        heads=4,
        setting=setting,
    )


def _by_setting(
    experiment: Experiment,
    title: str,
    note: str,
    cell_of: Callable[[Setting, str], Cell],
    higher_is_better: bool,
    references: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Sheet:
    """Return a table with a line a method and a column a setting."""
    names = [*references[0], *experiment.methods, *references[1]]
    competes = [name in experiment.methods for name in names]
    cells = [[cell_of(setting, name) for name in names] for setting in experiment.settings]
    columns = _marked(cells, [higher_is_better] * len(cells), competes)
    lines = tuple(
        Line(
            (Cell(name), *(column[i] for column in columns)),
            not competes[i],
            i + 1 < len(names) and competes[i] != competes[i + 1],
        )
        for i, name in enumerate(names)
    )
    headings = (Column(f"{setting.title} {_arrow(higher_is_better)}") for setting in experiment.settings)
    return Sheet(title, note, (Column("Unlearner", numeric=False), *headings), lines, heads=1)


def changes(setting: Setting, metric: str, method: str) -> dict[float | None, float]:
    """Return by how much a metric changed against the original of the same seed, averaged over seeds, for each α.

    For a reference the one α is None.
    """
    before = {point.seed: point.value(metric) for point in setting.selected(SHOWN[ORIGINAL])}
    result: dict[float | None, float] = {}
    for alpha in (None, *setting.alphas):
        pairs = [(point.value(metric), before.get(point.seed)) for point in setting.selected(method, alpha)]
        there = [after - start for after, start in pairs if after is not None and start is not None]
        if there:
            result[alpha] = statistics.fmean(there)
    return result


def utility_sheet(experiment: Experiment, metric: Measured) -> Sheet:
    """Return what each method costs in utility (the paper's table 1)."""
    scale, unit = (100, "points") if metric.is_fraction else (1, "its own unit")

    def cell_of(setting: Setting, name: str) -> Cell:
        if name == SHOWN[ORIGINAL]:
            value = setting.measured(metric.name, name)
            return number_cell(value and stat([scale * value.mean]), decimals=2)
        differences = changes(setting, metric.name, name)
        return number_cell(stat([scale * change for change in differences.values()]), signed=True, decimals=2)

    return _by_setting(
        experiment,
        f"{experiment.name}: change of {metric.name.replace('_', ' ')}",
        f"Change against the original in {unit}, mean ± sample standard deviation over α of the means over seeds; "
        f"the original's line is absolute{', in percent' if metric.is_fraction else ''}.",
        cell_of,
        metric.higher_is_better,
        ([SHOWN[ORIGINAL]], [SHOWN[GOLD]]),
    )


def cost_sheet(experiment: Experiment) -> Sheet:
    """Return what each method costs in time, data and memory (the paper's table 3)."""
    parts: dict[str, Callable[[Point], float | None]] = {
        "Seconds": lambda point: point.attempt.seconds,
        "Passes": lambda point: point.attempt.passes,
        "Peak memory, MiB": lambda point: None if (b := point.attempt.peak_bytes) is None else b / 2**20,
    }
    names = [SHOWN[ORIGINAL], *experiment.methods]
    points = {
        name: [p for setting in experiment.settings for p in setting.points if p.selected and p.method == name]
        for name in names
    }
    columns = {
        heading: [stat([v for point in points[name] if (v := part(point)) is not None]) for name in names]
        for heading, part in parts.items()
    }
    columns = {heading: values for heading, values in columns.items() if any(values)}
    marked = _marked(
        [[number_cell(value) for value in values] for values in columns.values()],
        [False] * len(columns),
        [name in experiment.methods for name in names],
    )
    tried = {
        name: max(
            (len(run.attempts) for s in experiment.settings for method, run in s.runs if method == name), default=0
        )
        for name in names
    }
    lines = tuple(
        Line(
            (
                Cell(name),
                Cell(str(len(points[name])), number=len(points[name])),
                Cell(str(tried[name]), number=tried[name]),
                *(column[i] for column in marked),
            ),
            reference=i == 0,
            ends_section=i == 0,
        )
        for i, name in enumerate(names)
    )
    meanings = {
        "Seconds": "wall-clock time of one model, preparation included, evaluation excluded",
        "Passes": "samples drawn, divided by the size of the training set",
        "Peak memory, MiB": "the most in use at once, beyond what was in use before",
    }
    return Sheet(
        f"{experiment.name}: cost",
        "Of one model: mean ± sample standard deviation over n of them, all settings, α and seeds together; "
        "the original's line is its training. A search costs as much for each point of the grid, less what is shared.",
        (
            Column("Unlearner", numeric=False),
            Column("n", "number of models"),
            Column("Grid", "points of the grid"),
            *(Column(f"{heading} ↓", meanings[heading]) for heading in columns),
        ),
        lines,
        heads=3,
    )


class Summarised(NamedTuple):
    """One summary over α: its component, and its value for each setting's title and method.

    Where a summary can't be computed from what was measured it has no entry; None says that it isn't reached.
    """

    metric: type[Summary]
    values: dict[tuple[str, str], float | None]


def summarised(experiment: Experiment, registry: Registry, warn: Callable[[str], None]) -> list[Summarised]:
    """Compute every installed summary for every method of an experiment."""
    result = []
    for entry in registry.of_kind("metric"):
        component: Any = entry.component
        if not issubclass(component, Summary):
            continue
        try:
            chosen = Chosen(entry, (parse_options(component.Options, {}, entry.name),))
        except UsageError as error:
            warn(f"summary left out: {error}")
            continue
        values: dict[tuple[str, str], float | None] = {}
        for setting in experiment.settings:
            ready = all(setting.measured(name, SHOWN[GOLD]) for name in component.of)
            found, failures = (
                summarise([chosen], [_as_benched(point) for point in setting.points]) if ready else ([], [])
            )
            failed = {failure["unlearner"] for failure in failures}
            for failure in failures:
                warn(f"{entry.name} of {failure['unlearner']} in {setting.title}: {failure['reason']}")
            for summary in found:
                method = summary["unlearner"]
                measured = all(any(setting.measured(n, method, a) for a in setting.alphas) for n in component.of)
                if measured and method not in failed:
                    values[setting.title, method] = summary["metrics"][chosen.name]
        if values:
            result.append(Summarised(component, values))
    return result


def _as_benched(point: Point) -> dict[str, Any]:
    """Return a point's record with the names that a benchmark gives the references."""
    names = {shown: name for name, shown in SHOWN.items()}
    return {**point.record, "unlearner": names.get(point.method, point.method)} if point.alpha is None else point.record


def summary_sheet(experiment: Experiment, found: Summarised) -> Sheet:
    """Return one summary of all methods."""
    component = found.metric

    def cell_of(setting: Setting, method: str) -> Cell:
        if (setting.title, method) not in found.values:
            return NOTHING
        value = found.values[setting.title, method]
        return Cell("not reached") if value is None else Cell(f"{value:.4g}", number=value)

    name = component.name.replace("_", " ")
    return _by_setting(
        experiment, f"{experiment.name}: {name}", component.summary(), cell_of, component.higher_is_better
    )


def sheets_of(experiment: Experiment, summaries: Sequence[Summarised]) -> list[Sheet]:
    """Return all tables of an experiment."""
    sheets = [setting_sheet(experiment, setting) for setting in experiment.settings]
    if experiment.methods:
        sheets += [summary_sheet(experiment, found) for found in summaries]
        sheets += [utility_sheet(experiment, experiment.metrics[name]) for name in experiment.objectives("utility")]
        sheets.append(cost_sheet(experiment))
    return sheets


def tidy(experiment: Experiment, summaries: Sequence[Summarised]) -> Iterable[dict[str, Any]]:
    """Yield one row for each number: metrics over the seeds, and each summary, which is over α."""
    for setting in experiment.settings:
        labels = {
            "experiment": experiment.name,
            "dataset": experiment.dataset,
            "model": experiment.model,
            "manipulation": setting.name,
            "manipulated": setting.size,
        }
        at: list[tuple[str, float | None]] = [(SHOWN[ORIGINAL], None)]
        at += [(method, alpha) for alpha in setting.alphas for method in setting.methods]
        for method, alpha in [*at, (SHOWN[GOLD], None)]:
            here = {
                "method": method,
                "alpha": alpha,
                "identified": None if alpha is None else setting.identified(alpha),
            }
            for name in experiment.metrics:
                value = setting.measured(name, method, alpha)
                if value is not None:
                    yield {**labels, **here, "metric": name, **value._asdict()}
            for name in experiment.breakdowns:
                for label, part in setting.broken_down(name, method, alpha).items():
                    yield {**labels, **here, "metric": f"{name}[{label}]", **part._asdict()}
        for found in summaries:
            for (title, method), number in found.values.items():
                if title == setting.title:
                    here = {"method": method, "alpha": None, "identified": None, "metric": found.metric.name}
                    yield {**labels, **here, "mean": number, "sd": None, "n": None}
