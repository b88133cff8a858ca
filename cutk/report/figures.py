"""The figures of a report: what is set against what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from cutk.report.breakdowns import breakdown
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting
from cutk.report.logged import logged
from cutk.report.naming import compact, listed, natural, slug, slugs
from cutk.report.origins import origin_of
from cutk.report.panels import Drawing, Panels, bounded_axis, fraction_axis, label_of, spread
from cutk.report.style import INK, MARKERS, Mark, drawing
from cutk.run.summary import Stat, stat

__all__ = ["figures_of"]

_REFERENCES = ((ORIGINAL, (0, (1, 1.6)), "x"), (GOLD, (0, (7, 2)), "*"))
_MOST_COLOURS = 9  # that a legend lists
_MARKERS = (*MARKERS, "<", ">")
_OPENS = "A point leads to its record."


def figures_of(experiment: Experiment, marks: dict[str, Mark]) -> Iterator[Drawing]:
    """Yield every figure that an experiment's runs give; ``marks`` are those of its methods."""
    origin = origin_of(experiment)
    for draw in _planned(experiment, marks):
        with drawing():
            drawn = draw()
        if drawn is not None:
            yield replace(drawn, origin=origin)


def _planned(experiment: Experiment, marks: dict[str, Mark]) -> Iterator[Callable[[], Drawing | None]]:
    fractions = [name for name, metric in experiment.metrics.items() if metric.is_fraction]
    for name in fractions:
        yield partial(_against_alpha, experiment, name, marks)
    for name in fractions:
        for manipulation in dict.fromkeys(setting.manipulation for setting in experiment.settings):
            yield partial(_against_size, experiment, name, marks, manipulation)
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
        yield partial(breakdown, experiment, metric)
    yield from logged(experiment)


# Curves.


def _against_alpha(experiment: Experiment, metric: str, marks: dict[str, Mark]) -> Drawing | None:
    words = ("alpha", "Against the identified fraction", "Identified fraction α", "the identified fraction α")
    return _curves(experiment, experiment.settings, metric, marks, lambda _, alpha: alpha, words)


def _against_size(experiment: Experiment, metric: str, marks: dict[str, Mark], manipulation: str) -> Drawing | None:
    settings = [s for s in experiment.settings if s.manipulation == manipulation]
    if len({tuple(setting.manipulated) for setting in settings}) < 2:
        return None
    group, against = "Against the number of identified samples", f"the number of identified samples, {manipulation}"
    words = (f"size-{slug(manipulation)}", group, "Identified samples", against)
    return _curves(experiment, settings, metric, marks, lambda setting, alpha: setting.identified[alpha], words)


def _curve(setting: Setting, metric: str, method: str) -> list[tuple[float, Stat, Point]]:
    """Return α, the metric over seeds, and one of the records behind it."""
    return [
        (alpha, value, next(p for p in setting.selected(method, alpha) if p.value(metric) is not None))
        for alpha in setting.alphas
        if (value := setting.measured(metric, method, alpha))
    ]


def _curves(
    experiment: Experiment,
    settings: Sequence[Setting],
    metric: str,
    marks: dict[str, Mark],
    place: Callable[[Setting, float], float],
    words: tuple[str, str, str, str],
) -> Drawing | None:
    settings = [s for s in settings if any(_curve(s, metric, method) for method in s.methods)]
    if not settings:
        return None
    name, group, axis, against = words
    panels = Panels([setting.heading for setting in settings])
    heights: list[float] = []
    counts: set[int] = set()
    for method in experiment.methods:
        panels.line_entry(method, marks[method])
    for ax, setting in zip(panels.axes, settings, strict=True):
        for reference, dash, _ in _REFERENCES:
            if value := setting.measured(metric, reference):
                point = next(p for p in setting.selected(reference) if p.value(metric) is not None)
                panels.reference(ax, reference, value, point, dash)
                heights.append(value.mean)
        xs: list[float] = []
        for method in setting.methods:
            if curve := _curve(setting, metric, method):
                alphas, values, points = zip(*curve, strict=True)
                mine = [place(setting, alpha) for alpha in alphas]
                panels.curve(ax, mine, values, points, marks[method])
                counts |= {value.n for value in values}
                heights += [v.mean + sign * (v.sd or 0) for v in values for sign in (-1, 1)]
                xs += mine
        if name == "alpha":
            fraction_axis(ax, xs)
        else:
            ax.set_xlim(0, 1.04 * max(xs))
    bounded_axis(panels.axes, heights)
    panels.label(axis, label_of(metric))
    least, most = min(counts), max(counts)
    seeds = f"{most}" if least == most else f"{least} to {most}"
    lines = f"Means over {seeds} seeds, with a band of one standard deviation" if most > 1 else "One seed"
    return panels.finish(
        f"{experiment.slug}-{slug(metric)}-{name}",
        group,
        f"{label_of(metric)} against {against}",
        f"{experiment.metrics[metric].summary} {lines}; the horizontal lines are the original and the gold model. "
        f"{_OPENS}",
    )


# Grid points.


def _of_grid(setting: Setting, method: str, *metrics: str) -> list[Point]:
    """Return the measured points of a method's grid; none if only the selected ones were measured."""
    mine = [p for p in setting.points if p.alpha is not None and p.method == method]
    mine = [p for p in mine if all(p.value(metric) is not None for metric in metrics)]
    return mine if any(not point.selected for point in mine) else []


class _Code(NamedTuple):
    """How options are drawn: the one with the most values as a colour, the next as a marker."""

    options: tuple[str, ...]
    colours: dict[str, str]
    markers: dict[str, str]

    def colour(self, point: Point) -> str:
        """Return the colour of a grid point."""
        return self.colours[self._text(point, 0)]

    def marker(self, point: Point) -> str:
        """Return its marker."""
        return self.markers[self._text(point, 1)]

    def _text(self, point: Point, place: int) -> str:
        options = point.attempt.options
        return compact(options.get(self.options[place])) if len(self.options) > place else ""

    def explain(self, panels: Panels) -> str:
        """Put it into the legend, and return it in words."""
        for place, option in enumerate(self.options):
            values = list((self.colours, self.markers)[place])
            panels.entry(option.replace("_", " "), Line2D([], [], linewidth=0))
            step = max(1, -(-(len(values) - 1) // (_MOST_COLOURS - 1))) if place == 0 else 1
            shown = [*values[:-1:step], values[-1]] if len(values) > 1 else values
            for text in shown:
                colour, marker = (self.colours[text], "o") if place == 0 else (INK, self.markers[text])
                handle = Line2D([], [], linewidth=0, marker=marker, color=colour, markersize=5, markeredgewidth=0)
                panels.entry(" " * (place + 1) + text, handle)
        words = [option.replace("_", " ") for option in self.options]
        return "".join(f" {what} tell {word}." for what, word in zip(("Colours", "Markers"), words, strict=False))


def _code(points: Iterable[Point]) -> _Code:
    """Return how to draw what differs among grid points."""
    values: dict[str, set[str]] = {}
    for point in points:
        for name, value in point.attempt.options.items():
            values.setdefault(name, set()).add(compact(value))
    several = sorted((name for name in values if len(values[name]) > 1), key=lambda name: -len(values[name]))
    coded = several[:1] + [name for name in several[1:] if len(values[name]) <= len(_MARKERS)][:1]
    ordered = [sorted(values[name], key=natural) for name in coded] + [[""]] * (2 - len(coded))
    scale = mpl.colormaps["plasma"]  # of which the ends vanish on white or on black
    shades = {text: to_hex(scale(0.08 + 0.77 * i / max(1, len(ordered[0]) - 1))) for i, text in enumerate(ordered[0])}
    return _Code(tuple(coded), shades, dict(zip(ordered[1], _MARKERS, strict=False)))


Dot = tuple[float, float, Point]


def _against(points: Iterable[Point], x: str, y: str) -> list[Dot]:
    """Return where points lie that have both metrics."""
    values = ((point.value(x), point.value(y), point) for point in points)
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
    by_marker: dict[str, list[int]] = {}
    for i, (_, _, point) in enumerate(dots):
        by_marker.setdefault(code.marker(point), []).append(i)
    for marker, places in by_marker.items():
        texts = [f"{words[i]}; {listed(dots[i][2].attempt.options)}" for i in places]
        colours = [code.colour(dots[i][2]) for i in places]
        style = {"s": 17, "c": colours, "marker": marker, "linewidths": 0, "alpha": 0.85, "zorder": 3}
        _place(ax, panels, [dots[i] for i in places], texts, **style)


def _grid(experiment: Experiment, metric: str, method: str, address: str) -> Drawing | None:
    """Draw every point of one method's grid against α (the paper's figures 7 to 10)."""
    settings = [setting for setting in experiment.settings if _of_grid(setting, method, metric)]
    if not settings:
        return None
    everything = [point for setting in settings for point in _of_grid(setting, method, metric)]
    code = _code(everything)
    panels = Panels([setting.heading for setting in settings])
    colours = code.explain(panels)
    for ax, setting in zip(panels.axes, settings, strict=True):
        lines: dict[str, dict[float, list[Point]]] = {}
        for point in _of_grid(setting, method, metric):
            options = json.dumps(point.attempt.options, sort_keys=True)
            lines.setdefault(options, {}).setdefault(point.alpha or 0.0, []).append(point)
        dots: list[Dot] = []
        words: list[str] = []
        for by_alpha in lines.values():
            means = {a: v for a in sorted(by_alpha) if (v := stat([p.value(metric) or 0.0 for p in by_alpha[a]]))}
            colour = code.colour(next(iter(by_alpha.values()))[0])
            ax.plot(list(means), [v.mean for v in means.values()], color=colour, linewidth=0.7, alpha=0.5, zorder=2)
            dots += [(alpha, value.mean, by_alpha[alpha][0]) for alpha, value in means.items()]
            words += map(spread, means.values())
        _coded(ax, panels, code, dots, words)
        chosen = [
            (alpha, at, point)
            for alpha in setting.alphas
            for point in setting.selected(method, alpha)
            if (at := point.value(metric)) is not None
        ]
        _rings(ax, panels, chosen, "selected, a seed each")
        fraction_axis(ax, setting.alphas)
    if experiment.metrics[metric].is_fraction:
        bounded_axis(panels.axes, [p.value(metric) or 0.0 for p in everything])
    panels.label("Identified fraction α", label_of(metric))
    return panels.finish(
        f"{experiment.slug}-{slug(metric)}-grid-{address}",
        "Every point of the grids",
        f"{label_of(metric)} of every grid point of {method}",
        f"Thin lines are means over the seeds, one for each point of the grid.{colours} Rings are what the test-free "
        f"rule selected. {_OPENS}",
    )


def _trade_off(
    experiment: Experiment, aim: str, utility: str, marks: dict[str, Mark], method: str = "", address: str = ""
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
    code = _code(p for _, dots in shown for _, _, p in dots) if method else None
    told = code.explain(panels) if code else ""
    heights: list[float] = []
    for name in () if method else experiment.methods:
        mark = marks[name]
        panels.entry(name, Line2D([], [], linewidth=0, marker=mark.marker, color=mark.colour, markersize=6))
    for ax, (setting, dots) in zip(panels.axes, shown, strict=True):
        if code:
            _coded(ax, panels, code, dots, [f"{x:.3f}, {y:.3f}" for x, y, _ in dots])
            _rings(ax, panels, [dot for dot in dots if dot[2].selected], "selected")
        for name in () if method else setting.methods:
            for chosen in (False, True):
                mine = [(x, y, p) for x, y, p in dots if p.method == name and p.selected == chosen]
                style: dict[str, Any] = {"s": 15, "linewidths": 0}
                if chosen:
                    style = {"s": 58, "edgecolors": INK, "linewidths": 1.1}
                style |= {"color": marks[name].colour, "marker": marks[name].marker, "zorder": 3 + chosen}
                _place(ax, panels, mine, **style)
        for reference, _, marker in _REFERENCES:
            there = _against(setting.selected(reference), utility, aim)
            _place(ax, panels, there, s=42, zorder=5, color=INK, marker=marker)
            panels.entry(reference, Line2D([], [], linewidth=0, markersize=7, color=INK, marker=marker))
            heights += [y for _, y, _ in there]
        heights += [y for _, y, _ in dots]
    if experiment.metrics[aim].is_fraction:
        bounded_axis(panels.axes, heights)
    panels.label(label_of(utility), label_of(aim))
    large = "Rings are what" if method else "Large ones with a rim are what"
    return panels.finish(
        f"{experiment.slug}-trade-off-{slug(aim)}-{slug(utility)}{'-' if method else ''}{address}",
        "Every point of the grids" if method else "Unlearning against utility",
        f"{label_of(aim)} against {label_of(utility).lower()}{' of every grid point of ' if method else ''}{method}",
        f"Each mark is one model, every seed by itself.{told} {large} the test-free rule selected. {_OPENS}",
    )
