"""The figures of a report: what is set against what."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from matplotlib.lines import Line2D

from cutk.report.breakdowns import breakdown
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting, grouped, identified, stat_of
from cutk.report.logged import logged
from cutk.report.naming import compact, listed, natural, slug, slugs
from cutk.report.origins import origin_of
from cutk.report.panels import PANEL, Drawing, Panels, bounded_axis, fraction_axis, label_of, spread
from cutk.report.style import INK, MARKERS, Mark, drawing, shades
from cutk.run.records import Measured
from cutk.run.summary import Stat

_REFERENCES = ((ORIGINAL, (0, (1, 1.6)), "x"), (GOLD, (0, (7, 2)), "*"))
_MOST_COLOURS = 9  # that a legend lists
_MARKERS = (*MARKERS, "<", ">")
_WIDE = (3.3, 2.5)  # inches of a panel where there are few
_OPENS = "A point leads to its record."

Marks = dict[str, Mark]


def figures_of(experiment: Experiment, marks: Marks) -> Iterator[Drawing]:
    """Yield every figure that an experiment's runs give; ``marks`` are those of its methods."""
    origin = origin_of(experiment)
    for draw in _planned(experiment, marks):
        with drawing():
            drawn = draw()
        if drawn is not None:
            yield replace(drawn, origin=origin)


def _planned(experiment: Experiment, marks: Marks) -> Iterator[Callable[[], Drawing | None]]:
    fractions = [metric for metric in experiment.metrics.values() if metric.is_fraction]
    for metric in fractions:
        yield partial(_curves, experiment, metric, marks)
    for metric in fractions:
        for manipulation in dict.fromkeys(setting.manipulation for setting in experiment.settings):
            yield partial(_curves, experiment, metric, marks, manipulation)
    aims, utilities = experiment.objectives("unlearning"), experiment.objectives("utility")
    for aim in aims:
        for utility in utilities:
            yield partial(_trade_off, experiment, aim, utility, marks)
    for method, address in slugs(experiment.methods).items():
        for aim in aims:
            yield partial(_grid, experiment, aim, method, address)
            for utility in utilities:
                yield partial(_trade_off, experiment, aim, utility, marks, method, address)
    for metric in experiment.breakdowns.values():
        yield partial(breakdown, experiment, metric, marks)
    yield from logged(experiment)


# Curves.


def _curve(setting: Setting, metric: str, method: str) -> list[tuple[float, Stat, Point]]:
    """Return α, the metric over seeds, and one of the records behind it."""
    return [
        (alpha, value, _measured_point(setting, metric, method, alpha))
        for alpha in setting.alphas
        if (value := setting.measured(metric, method, alpha))
    ]


def _measured_point(setting: Setting, metric: str, method: str, alpha: float | None = None) -> Point:
    return next(point for point in setting.selected(method, alpha) if point.value(metric) is not None)


def _curves(experiment: Experiment, metric: Measured, marks: Marks, manipulation: str = "") -> Drawing | None:
    """Draw a metric against α; of one ``manipulation`` against the number of identified samples."""
    settings = [setting for setting in experiment.settings if manipulation in ("", setting.manipulation)]
    if manipulation and len({tuple(setting.manipulated) for setting in settings}) < 2:
        return None
    settings = [s for s in settings if any(_curve(s, metric.name, method) for method in s.methods)]
    if not settings:
        return None
    panels = Panels([setting.heading for setting in settings], size=_WIDE if len(settings) < 3 else PANEL)
    heights: list[float] = []
    counts: set[int] = set()
    for method in sorted(experiment.methods, key=lambda method: -marks[method].stress):
        panels.entry(method, Line2D([], [], **marks[method].handle))
    for ax, setting in zip(panels.axes, settings, strict=True):
        for reference, dash, _ in _REFERENCES:
            if value := setting.measured(metric.name, reference):
                panels.reference(ax, reference, value, _measured_point(setting, metric.name, reference), dash)
                heights.append(value.mean)
        xs: list[float] = []
        for method in setting.methods:
            if curve := _curve(setting, metric.name, method):
                alphas, values, points = zip(*curve, strict=True)
                mine: Sequence[float] = alphas
                if manipulation:
                    mine = [identified(setting.selected(method, alpha)) or 0.0 for alpha in alphas]
                panels.curve(ax, mine, values, points, marks[method])
                counts |= {value.n for value in values}
                heights += [v.mean + sign * (v.sd or 0) for v in values for sign in (-1, 1)]
                xs += mine
        if manipulation:
            ax.set_xlim(0, 1.04 * max(xs))
        else:
            fraction_axis(ax, xs)
    bounded_axis(panels.axes, heights)
    name, group, against = "alpha", "identified fraction", "the identified fraction α"
    if manipulation:
        name, group = f"size-{slug(manipulation)}", "number of identified samples"
        against = f"the number of identified samples, {manipulation}"
    panels.label("Identified samples" if manipulation else "Identified fraction α", label_of(metric.name))
    least, most = min(counts), max(counts)
    seeds = f"{most}" if least == most else f"{least} to {most}"
    bands = " of what is highlighted" if any(mark.stress for mark in marks.values()) else ""
    lines = f"Means over {seeds} seeds, with a band of one standard deviation{bands}" if most > 1 else "One seed"
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}-{name}",
        f"Against the {group}",
        f"{label_of(metric.name)} against {against}",
        f"{metric.summary} {lines}; the horizontal lines are the original and the gold model. {_OPENS}",
    )


# Grid points.


def _of_grid(setting: Setting, method: str, *metrics: Measured) -> list[Point]:
    """Return the measured points of a method's grid; none if only the selected ones were measured."""
    mine = [p for p in setting.points if p.alpha is not None and p.method == method]
    mine = [p for p in mine if all(p.value(metric.name) is not None for metric in metrics)]
    return mine if any(not point.selected for point in mine) else []


class _Code(NamedTuple):
    """How options are drawn: the one with the most values as a colour, the next as a marker."""

    options: list[str]
    colours: dict[str, str]
    markers: dict[str, str]

    def look(self, point: Point) -> tuple[str, str]:
        """Return the colour and the marker of a grid point."""
        texts = [compact(point.attempt.options.get(option)) for option in self.options]
        colour, marker = [*texts, "", ""][:2]
        return self.colours[colour], self.markers[marker]

    def explain(self, panels: Panels) -> str:
        """Put it into the legend, and return it in words."""
        said = ""
        coded = (("Colours", self.colours), ("Markers", self.markers))
        for option, (what, looks) in zip(self.options, coded, strict=False):
            panels.entry(option.replace("_", " "), Line2D([], [], linewidth=0))
            values, is_colour = list(looks), what == "Colours"
            step = max(1, math.ceil((len(values) - 1) / (_MOST_COLOURS - 1))) if is_colour else 1
            for text in [*values[:-1:step], values[-1]]:
                colour, marker = (looks[text], "o") if is_colour else (INK, looks[text])
                handle = Line2D([], [], linewidth=0, marker=marker, color=colour, markersize=5, markeredgewidth=0)
                panels.entry((" " if is_colour else "  ") + text, handle)
            said += f" {what} tell {option.replace('_', ' ')}."
        return said


def _code(points: Iterable[Point]) -> _Code:
    """Return how to draw what differs among grid points."""
    values: dict[str, set[str]] = {}
    for point in points:
        for name, value in point.attempt.options.items():
            values.setdefault(name, set()).add(compact(value))
    several = sorted((name for name in values if len(values[name]) > 1), key=lambda name: -len(values[name]))
    coded = several[:1] + [name for name in several[1:] if len(values[name]) <= len(_MARKERS)][:1]
    shaded, marked = ([sorted(values[name], key=natural) for name in coded] + [[""], [""]])[:2]
    return _Code(coded, shades(shaded, "plasma", 0.08, 0.85), dict(zip(marked, _MARKERS, strict=False)))


Dot = tuple[float, float, Point]


def _against(points: Iterable[Point], x: Measured, y: Measured) -> list[Dot]:
    """Return where points lie that have both metrics."""
    values = ((point.value(x.name), point.value(y.name), point) for point in points)
    return [(across, up, point) for across, up, point in values if across is not None and up is not None]


def _place(ax: Any, panels: Panels, dots: Sequence[Dot], words: Sequence[str] = (), **style: Any) -> None:
    """Draw points that lead to their records; without ``words`` their values are said of them."""
    drawn = ax.scatter([x for x, _, _ in dots], [y for _, y, _ in dots], **style)
    said = words or [f"{x:.3f}, {y:.3f}" for x, y, _ in dots]
    drawn.set_urls([panels.link(point, text) for (_, _, point), text in zip(dots, said, strict=True)])


def _rings(ax: Any, panels: Panels, dots: Sequence[Dot], what: str) -> None:
    """Mark what the test-free rule selected."""
    words = [f"{y:.3f}, selected" for _, y, _ in dots]
    _place(ax, panels, dots, words, s=60, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=4)
    ring = Line2D([], [], linewidth=0, marker="o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
    panels.entry(what, ring)


def _coded(ax: Any, panels: Panels, code: _Code, dots: Sequence[Dot], words: Sequence[str]) -> None:
    """Draw grid points in the colours and markers of their options, one call for each marker."""
    told = zip(dots, words, strict=True)
    for marker, mine in grouped(told, lambda item: code.look(item[0][2])[1]).items():
        texts = [f"{text}; {listed(point.attempt.options)}" for (_, _, point), text in mine]
        colours = [code.look(point)[0] for (_, _, point), _ in mine]
        style = {"s": 17, "c": colours, "marker": marker, "linewidths": 0, "alpha": 0.85, "zorder": 3}
        _place(ax, panels, [dot for dot, _ in mine], texts, **style)


def _grid(experiment: Experiment, metric: Measured, method: str, address: str) -> Drawing | None:
    """Draw every point of one method's grid against α (the paper's figures 7 to 10)."""
    grids = {setting: mine for setting in experiment.settings if (mine := _of_grid(setting, method, metric))}
    if not grids:
        return None
    everything = [point for mine in grids.values() for point in mine]
    code = _code(everything)
    panels = Panels([setting.heading for setting in grids])
    colours = code.explain(panels)
    for ax, (setting, mine) in zip(panels.axes, grids.items(), strict=True):
        dots: list[Dot] = []
        words: list[str] = []
        for line in grouped(mine, lambda point: json.dumps(point.attempt.options, sort_keys=True)).values():
            by_alpha = grouped(sorted(line, key=lambda point: point.alpha or 0.0), lambda point: point.alpha or 0.0)
            means = {a: v for a, points in by_alpha.items() if (v := stat_of(p.value(metric.name) for p in points))}
            heights = [value.mean for value in means.values()]
            ax.plot(list(means), heights, color=code.look(line[0])[0], linewidth=0.7, alpha=0.5, zorder=2)
            dots += [(alpha, value.mean, by_alpha[alpha][0]) for alpha, value in means.items()]
            words += map(spread, means.values())
        _coded(ax, panels, code, dots, words)
        chosen = [point for alpha in setting.alphas for point in setting.selected(method, alpha)]
        taken = [(p.alpha or 0.0, at, p) for p in chosen if (at := p.value(metric.name)) is not None]
        _rings(ax, panels, taken, "selected, a seed each")
        fraction_axis(ax, setting.alphas)
    if metric.is_fraction:
        bounded_axis(panels.axes, [point.value(metric.name) or 0.0 for point in everything])
    panels.label("Identified fraction α", label_of(metric.name))
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}-grid-{address}",
        "Every point of the grids",
        f"{label_of(metric.name)} of every grid point of {method}",
        f"Thin lines are means over the seeds, one for each point of the grid.{colours} Rings are what the test-free "
        f"rule selected. {_OPENS}",
    )


def _trade_off(
    experiment: Experiment, aim: Measured, utility: Measured, marks: Marks, method: str = "", address: str = ""
) -> Drawing | None:
    """Draw unlearning against utility at a middle α: all methods, or every grid point of one (figures 11 to 14)."""
    shown: list[tuple[Setting, list[Dot]]] = []
    for setting in experiment.settings:
        points = _of_grid(setting, method, aim, utility) if method else setting.points
        middle = [p for p in points if setting.alphas and p.alpha == setting.middle]
        if dots := _against(middle, utility, aim):
            shown.append((setting, dots))
    if not shown:
        return None
    panels = Panels([f"{setting.heading}, α = {setting.middle:g}" for setting, _ in shown])
    code = _code(p for _, dots in shown for _, _, p in dots)
    told = code.explain(panels) if method else ""
    heights: list[float] = []
    for name in () if method else experiment.methods:
        panels.entry(
            name, Line2D([], [], linewidth=0, marker=marks[name].marker, color=marks[name].colour, markersize=6)
        )
    for ax, (setting, dots) in zip(panels.axes, shown, strict=True):
        if method:
            _coded(ax, panels, code, dots, [f"{x:.3f}, {y:.3f}" for x, y, _ in dots])
            _rings(ax, panels, [dot for dot in dots if dot[2].selected], "selected")
        for name in () if method else setting.methods:
            look: dict[str, Any] = {"color": marks[name].colour, "marker": marks[name].marker}
            mine = [dot for dot in dots if dot[2].method == name]
            _place(ax, panels, [dot for dot in mine if not dot[2].selected], s=15, linewidths=0, zorder=3, **look)
            chosen = [dot for dot in mine if dot[2].selected]
            _place(ax, panels, chosen, s=58, edgecolors=INK, linewidths=1.1, zorder=4, **look)
        for reference, _, marker in _REFERENCES:
            there = _against(setting.selected(reference), utility, aim)
            _place(ax, panels, there, s=42, zorder=5, color=INK, marker=marker)
            panels.entry(reference, Line2D([], [], linewidth=0, markersize=7, color=INK, marker=marker))
            heights += [y for _, y, _ in there]
        heights += [y for _, y, _ in dots]
    if aim.is_fraction:
        bounded_axis(panels.axes, heights)
    panels.label(label_of(utility.name), label_of(aim.name))
    title = f"{label_of(aim.name)} against {label_of(utility.name).lower()}"
    large = "Rings are what" if method else "Large ones with a rim are what"
    return panels.finish(
        f"{experiment.slug}-trade-off-{slug(aim.name)}-{slug(utility.name)}{'-' if method else ''}{address}",
        "Every point of the grids" if method else "Unlearning against utility",
        f"{title} of every grid point of {method}" if method else title,
        f"Each mark is one model, every seed by itself.{told} {large} the test-free rule selected. {_OPENS}",
    )
