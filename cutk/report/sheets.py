"""The tables of a report, before anything is known of how they are written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cutk.components import Summary
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting, identified, stat_of
from cutk.run.records import Attempt, Measured
from cutk.run.summary import Stat, Summarised

_NEVER = "not reached"


class Cell(NamedTuple):
    """What stands in one place of a table: a name, or a mean with its spread (``±``, or an interval).

    It is sorted by ``number`` if that isn't the text; it is ``best`` if no other method is better here.
    """

    text: str
    spread: str = ""
    number: float | None = None
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.spread}".rstrip()


class Column(NamedTuple):
    """A column's heading, what it means, whether its cells are numbers, and if the best are marked, its direction."""

    heading: str
    meaning: str = ""
    numeric: bool = True
    higher_is_better: bool | None = None


class Line(NamedTuple):
    """One line; what isn't chosen by a method competes with nobody, and a rule may follow a section."""

    cells: tuple[Cell, ...]
    reference: bool = False
    ends_section: bool = False


class Sheet(NamedTuple):
    """One table, with a note on how to read it and, before that, what a reader must know.

    Its first ``heads`` columns say what a line is about; ``setting`` is None if it is about a whole experiment.
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
    """Return the cell for a mean; without ``decimals`` as many as its size asks for."""
    if value is None:
        return NOTHING
    size = abs(value.mean)
    places = 3 if fraction or size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    places = places if decimals is None else decimals
    text = f"{value.mean:{'+' if signed else ''}.{places}f}".replace("-", "−")
    return Cell(text, "" if value.sd is None else f"±{value.sd:.{places}f}", value.mean)


class _Row(NamedTuple):
    """What a line is about; lines of one section compete, unless they are references or the test set's choice."""

    name: str
    section: float | str = ""
    competes: bool = True
    alpha: float | None = None
    points: Sequence[Point] = ()


_Part = tuple[Column, Sequence[Cell]]


def _measures(name: str, up: bool, cells: Sequence[Cell], meaning: str = "", *, marks: bool = True) -> _Part:
    heading = f"{name.replace('_', ' ')} {'↑' if up else '↓'}"
    return Column(heading, meaning, higher_is_better=up if marks else None), cells


def _counts(heading: str, meaning: str, numbers: Sequence[float | None]) -> _Part:
    return Column(heading, meaning), [Cell("") if n is None else Cell(_count(n), number=n) for n in numbers]


def _count(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e5 else f"{number:.0f}"


def _names(names: Sequence[str]) -> _Part:
    return Column("Unlearner", numeric=False), [Cell(name) for name in names]


def _marked(rows: Sequence[_Row], cells: Sequence[Cell], higher_is_better: bool | None) -> list[Cell]:
    """Return a column's cells, the best of each section marked: several where they tie, none where all do."""
    best: set[int] = set()
    for section in {row.section for row in rows if higher_is_better is not None}:
        mine = [i for i, row in enumerate(rows) if row.competes and row.section == section]
        mine = [i for i in mine if cells[i].text != NOTHING.text]
        numbers = {i: number for i in mine if (number := cells[i].number) is not None}
        top = (max if higher_is_better else min)(numbers.values(), default=0.0)
        found = {i for i, number in numbers.items() if math.isclose(number, top, abs_tol=5e-4)}
        best |= found if len(found) < len(mine) else set()
    return [cell._replace(best=i in best) for i, cell in enumerate(cells)]


def _sheet(title: str, note: str, rows: Sequence[_Row], heads: Sequence[_Part], parts: Sequence[_Part]) -> Sheet:
    """Put columns together; a rule follows each section."""
    columns = [_marked(rows, cells, column.higher_is_better) for column, cells in (*heads, *parts)]
    last = {i for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1].section != row.section}
    lines = (Line(cells, not rows[i].competes, i in last) for i, cells in enumerate(zip(*columns, strict=True)))
    return Sheet(title, note, tuple(column for column, _ in (*heads, *parts)), tuple(lines), len(heads))


def _rows(setting: Setting) -> list[_Row]:
    """Return original, each method at each α and what was best on the test set if that is told, gold."""
    rows = [_Row(ORIGINAL, ORIGINAL, False, points=setting.selected(ORIGINAL))]
    for alpha in setting.alphas:
        section = alpha if len(setting.methods) > 1 else ""
        for method in setting.methods:
            oracles = [p for p in setting.taken if p.oracle and (p.method, p.alpha) == (method, alpha)]
            rows.append(_Row(method, section, True, alpha, setting.selected(method, alpha)))
            rows.append(_Row(f"{method} (oracle)", section, False, alpha, oracles))
    rows.append(_Row(GOLD, GOLD, False, points=setting.selected(GOLD)))
    return [row for row in rows if row.points]


def setting_sheet(experiment: Experiment, setting: Setting, *, brief: bool = False) -> Sheet:
    """Return every metric of one setting: original, each method at each α, gold.

    A ``brief`` one has no columns for the numbers of samples and of seeds.
    """
    rows, caution, seeds = _rows(setting), experiment.caution(setting), len(setting.seeds)
    parts = []
    for name, metric in experiment.metrics.items():
        values = [stat_of(point.value(name) for point in row.points) for row in rows]
        if any(values):
            # Where there was nothing to correct no one is better at correcting.
            idle = caution or (metric.objective == "unlearning" and setting.nothing_to_correct(metric))
            marks = not idle and len(setting.methods) > 1
            cells = [number_cell(value, metric.is_fraction) for value in values]
            parts.append(_measures(name, metric.higher_is_better, cells, metric.summary, marks=marks))
    names, counts = [row.name for row in rows], [len(row.points) for row in rows]
    fraction = _counts("α", "identified fraction of the manipulated samples", [row.alpha for row in rows])
    if brief:
        names = [f"{n} ({c} of {seeds} seeds)" if c < seeds else n for n, c in zip(names, counts, strict=True)]
        heads = [fraction, _names(names)]
    else:
        sizes = [None if row.alpha is None else identified(row.points) for row in rows]
        samples = _counts("|S_f|", "number of identified samples", sizes)
        heads = [fraction, samples, _names(names), _counts("n", "number of seeds", counts)]
    note = "Mean ± sample standard deviation over n seeds."
    sheet = _sheet(f"{experiment.name}: {setting.title}", note, rows, heads, parts)
    more = " The best of the methods at each α is marked." if sheet.marks else ""
    return sheet._replace(note=note + more, setting=setting, caution=caution)


def _by_setting(
    experiment: Experiment,
    name: str,
    note: str,
    rows: Sequence[_Row],
    cell_of: Callable[[Setting, str], Cell],
    up: bool,
) -> Sheet:
    """Return a table with a line a method and a column a setting; ``up`` is its direction."""
    parts = []
    for setting in experiment.settings:
        cells = [cell_of(setting, row.name) for row in rows]
        parts.append(_measures(setting.title, up, cells, marks=not experiment.caution(setting)))
    names = _names([row.name for row in rows])
    return _sheet(f"{experiment.name}: {name.replace('_', ' ')}", note, rows, [names], parts)


def _utility_sheet(experiment: Experiment, metric: Measured) -> Sheet:
    """Return what each method costs in utility (the paper's table 1)."""
    scale, unit = (100, "points") if metric.is_fraction else (1, "its own unit")

    def cell_of(setting: Setting, name: str) -> Cell:
        if name == ORIGINAL:
            value = setting.measured(metric.name, name)
            return number_cell(value and stat_of([scale * value.mean]), decimals=2)
        changes = (setting.change(metric.name, name, alpha) for alpha in (None, *setting.alphas))
        return number_cell(stat_of(c and scale * c for c in changes), signed=True, decimals=2)

    note = (
        f"Change against the original in {unit}, mean ± sample standard deviation over α of the means over seeds; the "
        f"original's line is absolute{', in percent' if metric.is_fraction else ''}."
    )
    methods = [_Row(method) for method in experiment.methods]
    rows = [_Row(ORIGINAL, ORIGINAL, False), *methods, _Row(GOLD, GOLD, False)]
    return _by_setting(experiment, f"change of {metric.name}", note, rows, cell_of, metric.higher_is_better)


_WALL_CLOCK = "wall-clock time of one model, preparation included, evaluation excluded"
_PEAK = "the most in use at once, beyond what was in use before"
_COSTS: tuple[tuple[str, str, Callable[[Attempt], float | None]], ...] = (
    ("Seconds", _WALL_CLOCK, lambda a: a.seconds),
    ("Passes", "samples drawn, divided by the size of the training set", lambda a: a.passes),
    ("Peak memory, MiB", _PEAK, lambda a: a.peak_bytes and a.peak_bytes / 2**20),
)


def _cost_sheet(experiment: Experiment) -> Sheet:
    """Return what each method costs in time, data and memory (the paper's table 3)."""
    points: dict[str, list[Point]] = {name: [] for name in (ORIGINAL, *experiment.methods)}
    for setting in experiment.settings:
        for point in setting.taken:
            if point.selected and point.method != GOLD:
                points[point.method].append(point)
    rows = [_Row(name, name if i == 0 else "", i > 0, points=mine) for i, (name, mine) in enumerate(points.items())]
    tried = [max((len(point.run.attempts) for point in row.points), default=0) for row in rows]
    models = _counts("n", "number of models", [len(row.points) for row in rows])
    heads = [_names(list(points)), models, _counts("Grid", "points of the grid", tried)]
    parts = []
    for heading, meaning, cost_of in _COSTS:
        values = [stat_of(cost_of(point.attempt) for point in row.points) for row in rows]
        if any(values):
            parts.append(_measures(heading, False, [number_cell(value) for value in values], meaning))
    note = (
        "Of one model: mean ± sample standard deviation over n of them, all settings, α and seeds together; the "
        "original's line is its training. A search costs as much for each point of the grid, less what is shared."
    )
    return _sheet(f"{experiment.name}: cost", note, rows, heads, parts)


def in_words(found: Summarised, name: str) -> str:
    """Return a summary with the interval over its seeds.

    >>> one = dict(dataset="", manipulation="", model="", recipe="", unlearner="ssd")
    >>> in_words(Summarised(**one, metrics={"alpha_star": 0.5}, intervals={"alpha_star": (None, 0.1)}), "alpha_star")
    '0.5 (0.1 to not reached)'
    """
    value, ends = found.metrics[name], _ends(found, name)
    text, low, high = (_NEVER if number is None else f"{number:.4g}" for number in (value, *ends))
    return text if set(ends) <= {value} else f"{text} (all {low})" if low == high else f"{text} ({low} to {high})"


def less(setting: Setting, one: Summarised, found: Sequence[Summarised]) -> str:
    """Say of which fractions and how many seeds a summary is, where others in ``found`` have more."""
    most = max(other.seeds for other in found if other.manipulation == setting.title)
    said = [] if one.alphas == setting.alphas else [f"α = {', '.join(f'{alpha:g}' for alpha in one.alphas)} alone"]
    said += [f"n = {one.seeds}"] if one.seeds < most else []
    return f"({', '.join(said)})" if said else ""


def _ends(found: Summarised, name: str) -> list[float | None]:
    """Return the smallest and the largest that a seed gives; what is never reached is beyond both."""
    ends = found.intervals.get(name, (found.metrics[name],) * 2)
    return sorted(ends, key=lambda end: math.inf if end is None else end)


def _summary_sheet(experiment: Experiment, name: str, summary: type[Summary], found: Sequence[Summarised]) -> Sheet:
    """Return one summary of all methods."""
    by_place = {(one.manipulation, one.unlearner): one for one in found}

    def cell_of(setting: Setting, method: str) -> Cell:
        one = by_place.get((setting.title, method))
        if one is None or name not in one.metrics:
            return Cell(one.note.partition(":")[0].removesuffix(" here").lower()) if one and one.note else NOTHING
        text, opening, interval = in_words(one, name).partition(" (")
        about = filter(None, (opening.strip() + interval, less(setting, one, found)))
        return Cell(text, " ".join(about), one.metrics[name])

    several = any(one.intervals for one in found)
    interval = " In brackets what single seeds give, from the smallest to the largest." if several else ""
    rows = [_Row(method) for method in experiment.methods]
    return _by_setting(experiment, name, summary.summary() + interval, rows, cell_of, summary.higher_is_better)


def sheets_of(
    experiment: Experiment, found: Sequence[Summarised], summaries: Mapping[str, type[Summary]]
) -> list[Sheet]:
    """Return all tables of an experiment: of each setting, of each summary (``found``), of utility and of cost."""
    sheets = [setting_sheet(experiment, setting) for setting in experiment.settings]
    if experiment.methods:
        for name, summary in summaries.items():
            if any(name in one.metrics or one.note.startswith(("Failed", "Not measured")) for one in found):
                sheets.append(_summary_sheet(experiment, name, summary, found))
        sheets += [_utility_sheet(experiment, metric) for metric in experiment.objectives("utility")]
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
        for method, alpha in setting.models:
            role = method if alpha is None else "unlearned"
            size = None if alpha is None else identified(setting.selected(method, alpha))
            here = {**labels, "role": role, "method": method, "alpha": alpha, "identified": size}
            for name in experiment.metrics:
                if value := setting.measured(name, method, alpha):
                    yield {**here, "metric": name, **value._asdict()}
            for name in experiment.breakdowns:
                for label, part in setting.broken_down(name, method, alpha).items():
                    yield {**here, "metric": f"{name}[{label}]", **part._asdict()}
        for one in found:
            for name, number in one.metrics.items() if one.manipulation == setting.title else ():
                low, high = _ends(one, name)
                over = {"mean": number, "sd": None, "n": one.seeds, "low": low, "high": high}
                where = {"role": "unlearned", "method": one.unlearner, "alpha": None, "identified": None}
                yield {**labels, **where, "metric": name, **over}
