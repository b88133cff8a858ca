"""The tables of a report, before anything is known of how they are written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cutk.components import Summary
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting
from cutk.run.records import Measured
from cutk.run.summary import Stat, Summarised, stat

__all__ = ["Cell", "Column", "Line", "Sheet", "number_cell", "setting_sheet", "sheets_of", "tidy"]

MINUS = "−"
_NEVER = "not reached"


class Cell(NamedTuple):
    """What stands in one place of a table.

    Attributes:
        text: a name, or a mean.
        spread: ``±`` and the standard deviation, or an interval, if there is one.
        number: what to sort by, if it isn't the text.
        best: whether no other method is better here.
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
    """One line; what isn't chosen by a method competes with nobody, and a rule may follow a section."""

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
        caution: what a reader must know before anything else.
    """

    title: str
    note: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    heads: int
    setting: Setting | None = None
    caution: str = ""

    @property
    def marks(self) -> bool:
        """Whether anything in it is marked as best."""
        return any(cell.best for line in self.lines for cell in line.cells)


NOTHING = Cell("–")


def number_cell(value: Stat | None, fraction: bool = False, signed: bool = False, decimals: int | None = None) -> Cell:
    """Return the cell for a mean.

    >>> number_cell(stat([-1.25, -1.75]), signed=True, decimals=2)
    Cell(text='−1.50', spread='±0.35', number=-1.5, best=False)
    """
    if value is None:
        return NOTHING
    size = abs(value.mean)
    places = 3 if fraction or size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    places = places if decimals is None else decimals
    text = f"{value.mean:{'+' if signed else ''}.{places}f}".replace("-", MINUS)
    return Cell(text, "" if value.sd is None else f"±{value.sd:.{places}f}", value.mean)


def _marked(cells: Sequence[Cell], higher_is_better: bool, groups: Sequence[Any]) -> list[Cell]:
    """Mark the best cells of each group: several where they tie, none where all do; nobody competes without a group."""
    best: set[int] = set()
    for group in {group for group in groups if group is not None}:
        competing = [i for i, cell in enumerate(cells) if groups[i] == group and cell.text != NOTHING.text]
        numbers = {i: number for i in competing if (number := cells[i].number) is not None}
        top = (max if higher_is_better else min)(numbers.values(), default=0.0)
        found = {i for i, number in numbers.items() if math.isclose(number, top, abs_tol=5e-4)}
        best |= found if len(found) < len(competing) else set()
    return [cell._replace(best=i in best) for i, cell in enumerate(cells)]


def _arrow(higher_is_better: bool) -> str:
    return "↑" if higher_is_better else "↓"


class _Row(NamedTuple):
    name: str
    alpha: float | None
    points: list[Point]
    competes: bool = True


def _rows(setting: Setting) -> list[_Row]:
    """Return original, each method at each α and what was best on the test set if that is told, gold."""
    oracles: dict[tuple[str, float | None], list[Point]] = {}
    for point in setting.points:
        if point.oracle:
            oracles.setdefault((point.method, point.alpha), []).append(point)
    rows = [_Row(ORIGINAL, None, setting.selected(ORIGINAL), False)]
    for alpha in setting.alphas:
        for method in setting.methods:
            rows.append(_Row(method, alpha, setting.selected(method, alpha)))
            rows.append(_Row(f"{method} (oracle)", alpha, oracles.get((method, alpha), []), False))
    return [row for row in (*rows, _Row(GOLD, None, setting.selected(GOLD), False)) if row.points]


def setting_sheet(experiment: Experiment, setting: Setting, *, brief: bool = False) -> Sheet:
    """Return every metric of one setting: original, each method at each α, gold.

    Args:
        experiment: where it belongs.
        setting: which one.
        brief: leave out the columns for the numbers of samples and of seeds.
    """
    rows, seeds, caution = _rows(setting), len(setting.seeds), experiment.caution(setting)

    def values(metric: Measured) -> list[Stat | None]:
        return [stat([v for p in row.points if (v := p.value(metric.name)) is not None]) for row in rows]

    measured = {name: values(metric) for name, metric in experiment.metrics.items()}
    metrics = [metric for name, metric in experiment.metrics.items() if any(measured[name])]
    columns = []
    for metric in metrics:
        # Where there was nothing to correct no one is better at correcting.
        marks = not (caution or (metric.objective == "unlearning" and setting.nothing_to_correct(metric)))
        groups = [row.alpha if marks and row.competes else None for row in rows]
        cells = [number_cell(value, metric.is_fraction) for value in measured[metric.name]]
        columns.append(_marked(cells, metric.higher_is_better, groups))
    several = len(setting.methods) > 1
    lines = []
    for i, (name, alpha, points, competes) in enumerate(rows):
        at = Cell("") if alpha is None else Cell(f"{alpha:g}", number=alpha)
        size = Cell("") if alpha is None else Cell(f"{(s := setting.identified(alpha)):g}", number=s)
        part = f" ({len(points)} of {seeds} seeds)" if brief and len(points) < seeds else ""
        heads = (at, Cell(name + part)) if brief else (at, size, Cell(name), Cell(str(len(points)), number=len(points)))
        after = rows[i + 1].alpha if i + 1 < len(rows) else None
        ends = alpha is None or after is None or (several and after != alpha)
        lines.append(Line((*heads, *(column[i] for column in columns)), not competes, ends))
    about = [Column("α", "identified fraction of the manipulated samples"), Column("Unlearner", numeric=False)]
    if not brief:
        about.insert(1, Column("|S_f|", "number of identified samples"))
        about.append(Column("n", "number of seeds"))
    sheet = Sheet(
        f"{experiment.name}: {setting.title}",
        "Mean ± sample standard deviation over n seeds.",
        (*about, *(Column(f"{m.name.replace('_', ' ')} {_arrow(m.higher_is_better)}", m.summary) for m in metrics)),
        tuple(lines),
        len(about),
        setting,
        caution,
    )
    more = " The best of the methods at each α is marked." if sheet.marks else ""
    return sheet._replace(note=sheet.note + more)


def _by_setting(
    experiment: Experiment,
    title: str,
    note: str,
    cell_of: Callable[[Setting, str], Cell],
    higher_is_better: bool,
    references: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Sheet:
    """Return a table with a line a method and a column a setting."""
    before, methods, after = list(references[0]), experiment.methods, list(references[1])
    groups = [*(None for _ in before), *(1 for _ in methods), *(None for _ in after)]
    columns = [
        _marked(
            [cell_of(setting, name) for name in (*before, *methods, *after)],
            higher_is_better,
            [None] * len(groups) if experiment.caution(setting) else groups,
        )
        for setting in experiment.settings
    ]
    last = {len(before) - 1, len(before) + len(methods) - 1}
    lines = tuple(
        Line((Cell(name), *(column[i] for column in columns)), groups[i] is None, i in last)
        for i, name in enumerate((*before, *methods, *after))
    )
    headings = (Column(f"{setting.title} {_arrow(higher_is_better)}") for setting in experiment.settings)
    return Sheet(title, note, (Column("Unlearner", numeric=False), *headings), lines, heads=1)


def _utility_sheet(experiment: Experiment, metric: Measured) -> Sheet:
    """Return what each method costs in utility (the paper's table 1)."""
    scale, unit = (100, "points") if metric.is_fraction else (1, "its own unit")

    def cell_of(setting: Setting, name: str) -> Cell:
        if name == ORIGINAL:
            value = setting.measured(metric.name, name)
            return number_cell(value and stat([scale * value.mean]), decimals=2)
        changes = (setting.change(metric.name, name, alpha) for alpha in (None, *setting.alphas))
        return number_cell(stat([scale * c for c in changes if c is not None]), signed=True, decimals=2)

    return _by_setting(
        experiment,
        f"{experiment.name}: change of {metric.name.replace('_', ' ')}",
        f"Change against the original in {unit}, mean ± sample standard deviation over α of the means over seeds; "
        f"the original's line is absolute{', in percent' if metric.is_fraction else ''}.",
        cell_of,
        metric.higher_is_better,
        ([ORIGINAL], [GOLD]),
    )


_COSTS: Mapping[str, tuple[str, Callable[[Point], float | None]]] = {
    "Seconds": (
        "wall-clock time of one model, preparation included, evaluation excluded",
        lambda point: point.attempt.seconds,
    ),
    "Passes": ("samples drawn, divided by the size of the training set", lambda point: point.attempt.passes),
    "Peak memory, MiB": (
        "the most in use at once, beyond what was in use before",
        lambda point: None if (b := point.attempt.peak_bytes) is None else b / 2**20,
    ),
}


def _cost_sheet(experiment: Experiment) -> Sheet:
    """Return what each method costs in time, data and memory (the paper's table 3)."""
    points: dict[str, list[Point]] = {name: [] for name in (ORIGINAL, *experiment.methods)}
    tried = dict.fromkeys(points, 0)
    for setting in experiment.settings:
        for point in setting.points:
            if point.selected and (point.method in points) and (point.method != GOLD):
                points[point.method].append(point)
                tried[point.method] = max(tried[point.method], len(point.run.attempts))
    groups = [None, *(1 for _ in experiment.methods)]
    columns, headings = [], []
    for heading, (meaning, part) in _COSTS.items():
        values = [stat([v for point in mine if (v := part(point)) is not None]) for mine in points.values()]
        if any(values):
            columns.append(_marked([number_cell(value) for value in values], False, groups))
            headings.append(Column(f"{heading} ↓", meaning))
    lines = []
    for i, (name, mine) in enumerate(points.items()):
        numbers = (Cell(str(number), number=number) for number in (len(mine), tried[name]))
        lines.append(Line((Cell(name), *numbers, *(column[i] for column in columns)), i == 0, i == 0))
    return Sheet(
        f"{experiment.name}: cost",
        "Of one model: mean ± sample standard deviation over n of them, all settings, α and seeds together; "
        "the original's line is its training. A search costs as much for each point of the grid, less what is shared.",
        (
            Column("Unlearner", numeric=False),
            Column("n", "number of models"),
            Column("Grid", "points of the grid"),
            *headings,
        ),
        tuple(lines),
        heads=3,
    )


def in_words(found: Summarised, name: str) -> str:
    """Return a summary with the interval over its seeds.

    >>> one = dict(dataset="", manipulation="", model="", recipe="", unlearner="ssd")
    >>> in_words(Summarised(**one, metrics={"alpha_star": 0.5}, intervals={"alpha_star": (None, 0.1)}), "alpha_star")
    '0.5 (0.1 to not reached)'
    """
    value, ends = found.metrics[name], found.intervals.get(name)
    text = _NEVER if value is None else f"{value:.4g}"
    return f"{text} {_interval(ends)}" if ends and set(ends) != {value} else text


def _interval(ends: tuple[float | None, float | None]) -> str:
    order = sorted(ends, key=lambda end: math.inf if end is None else end)
    low, high = (_NEVER if end is None else f"{end:.4g}" for end in order)
    return f"(all {low})" if low == high else f"({low} to {high})"


def _summary_sheet(experiment: Experiment, name: str, summary: type[Summary], found: Sequence[Summarised]) -> Sheet:
    """Return one summary of all methods."""
    by_place = {(one.manipulation, one.unlearner): one for one in found}

    def cell_of(setting: Setting, method: str) -> Cell:
        one = by_place.get((setting.title, method))
        if one is None or name not in one.metrics:
            return Cell("nothing to correct") if one and one.note else NOTHING  # in such a column nothing is marked
        text, _, interval = in_words(one, name).partition(" (")
        return Cell(text, f"({interval}" if interval else "", one.metrics[name])

    several = any(one.intervals for one in found)
    interval = " In brackets what single seeds give, from the smallest to the largest." if several else ""
    note = f"{summary.summary()}{interval}"
    title = f"{experiment.name}: {name.replace('_', ' ')}"
    return _by_setting(experiment, title, note, cell_of, summary.higher_is_better)


def sheets_of(
    experiment: Experiment, found: Sequence[Summarised], summaries: Mapping[str, type[Summary]]
) -> list[Sheet]:
    """Return all tables of an experiment.

    Args:
        experiment: which one.
        found: the summaries of its methods.
        summaries: the components that these are of, by name.
    """
    sheets = [setting_sheet(experiment, setting) for setting in experiment.settings]
    if experiment.methods:
        for name, summary in summaries.items():
            if any(name in one.metrics for one in found):
                sheets.append(_summary_sheet(experiment, name, summary, found))
        sheets += [_utility_sheet(experiment, experiment.metrics[name]) for name in experiment.objectives("utility")]
        sheets.append(_cost_sheet(experiment))
    return sheets


def tidy(experiment: Experiment, found: Sequence[Summarised]) -> Iterator[dict[str, Any]]:
    """Yield one row for each number: metrics over the seeds, and each summary, which is over α."""
    for setting in experiment.settings:
        labels = {
            "experiment": experiment.name,
            "dataset": experiment.dataset,
            "model": experiment.model,
            "manipulation": setting.name,
            "manipulated": setting.size,
        }
        at: list[tuple[str, str, float | None]] = [(ORIGINAL, ORIGINAL, None)]
        at += [("unlearned", method, alpha) for alpha in setting.alphas for method in setting.methods]
        for role, method, alpha in [*at, (GOLD, GOLD, None)]:
            size = None if alpha is None else setting.identified(alpha)
            here = {**labels, "role": role, "method": method, "alpha": alpha, "identified": size}
            for name in experiment.metrics:
                if value := setting.measured(name, method, alpha):
                    yield {**here, "metric": name, **value._asdict()}
            for name in experiment.breakdowns:
                for label, part in setting.broken_down(name, method, alpha).items():
                    yield {**here, "metric": f"{name}[{label}]", **part._asdict()}
        for one in found:
            for name, number in one.metrics.items() if one.manipulation == setting.title else ():
                ends = sorted(one.intervals.get(name, ()), key=lambda end: math.inf if end is None else end)
                low, high = ends or (None, None)
                here = {"role": "unlearned", "method": one.unlearner, "alpha": None, "identified": None, "metric": name}
                seeds = len(setting.seeds)
                yield {**labels, **here, "mean": number, "sd": None, "n": seeds, "low": low, "high": high}
