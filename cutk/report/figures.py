"""The figures of a report: what is set against what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from cutk.report.breakdowns import breakdowns_of
from cutk.report.experiments import SHOWN, Experiment, Point, Setting, Stat, stat
from cutk.report.naming import compact, natural, slug, slugs
from cutk.report.origins import origin_of
from cutk.report.panels import Drawing, Panels, bounded_axis, fraction_axis, label_of, spread, swatch
from cutk.report.style import INK, Mark
from cutk.run.records import GOLD, ORIGINAL

__all__ = ["figures_of"]

_REFERENCES = ((SHOWN[ORIGINAL], (0, (1, 1.6))), (SHOWN[GOLD], (0, (7, 2))))
_MOST_COLOURS = 10
_OPENS = "A point leads to its record."


def figures_of(experiment: Experiment, marks: dict[str, Mark]) -> Iterator[Drawing]:
    """Yield every figure that an experiment's runs give; ``marks`` are those of its methods."""
    origin = origin_of(experiment)
    for drawing in _drawn(experiment, marks):
        yield replace(drawing, origin=origin)


def _drawn(experiment: Experiment, marks: dict[str, Mark]) -> Iterator[Drawing]:
    fractions = [name for name, metric in experiment.metrics.items() if metric.is_fraction]
    for name in fractions:
        yield from _against_alpha(experiment, name, marks)
    for name in fractions:
        yield from _against_size(experiment, name, marks)
    for unlearning in experiment.objectives("unlearning"):
        for utility in experiment.objectives("utility"):
            yield from _trade_off(experiment, unlearning, utility, marks)
    for name in experiment.objectives("unlearning"):
        for method, address in slugs(experiment.methods).items():
            yield from _grid(experiment, name, method, address)
    yield from breakdowns_of(experiment)


# Curves.


def _against_alpha(experiment: Experiment, metric: str, marks: dict[str, Mark]) -> Iterator[Drawing]:
    settings = [s for s in experiment.settings if any(_curve(s, metric, method) for method in s.methods)]
    if settings:
        yield _curves(
            experiment,
            settings,
            metric,
            marks,
            lambda _setting, alpha: alpha,
            ("alpha", "Against the identified fraction", "Identified fraction α", "the identified fraction α"),
        )


def _against_size(experiment: Experiment, metric: str, marks: dict[str, Mark]) -> Iterator[Drawing]:
    for manipulation in dict.fromkeys(setting.manipulation for setting in experiment.settings):
        settings = [s for s in experiment.settings if s.manipulation == manipulation]
        settings = [s for s in settings if any(_curve(s, metric, method) for method in s.methods)]
        if len({tuple(setting.manipulated) for setting in settings}) > 1:
            yield _curves(
                experiment,
                settings,
                metric,
                marks,
                lambda setting, alpha: setting.identified(alpha),
                (
                    f"size-{slug(manipulation)}",
                    "Against the number of identified samples",
                    "Identified samples",
                    f"the number of identified samples, {manipulation}",
                ),
            )


def _curve(setting: Setting, metric: str, method: str) -> list[tuple[float, Stat, Point]]:
    """Return α, the metric over seeds, and one of the records behind it."""
    result = []
    for alpha in setting.alphas:
        value = setting.measured(metric, method, alpha)
        if value is not None:
            having = [p for p in setting.selected(method, alpha) if p.value(metric) is not None]
            result.append((alpha, value, having[0]))
    return result


def _curves(
    experiment: Experiment,
    settings: Sequence[Setting],
    metric: str,
    marks: dict[str, Mark],
    place: Callable[[Setting, float], float],
    words: tuple[str, str, str, str],
) -> Drawing:
    name, group, axis, against = words
    panels = Panels([setting.heading for setting in settings])
    heights: list[float] = []
    drawn: list[Stat] = []
    for method in experiment.methods:
        panels.line_entry(method, marks[method])
    for ax, setting in zip(panels.axes, settings, strict=True):
        for reference, dash in _REFERENCES:
            value = setting.measured(metric, reference)
            points = [p for p in setting.selected(reference) if p.value(metric) is not None]
            if value is not None:
                panels.reference(ax, reference, value, points, dash)
                heights.append(value.mean)
        xs: list[float] = []
        for method in setting.methods:
            curve = _curve(setting, metric, method)
            if curve:
                mine = [place(setting, alpha) for alpha, _, _ in curve]
                panels.curve(
                    ax, mine, [value for _, value, _ in curve], [point for _, _, point in curve], marks[method]
                )
                drawn += [value for _, value, _ in curve]
                heights += [v.mean + sign * (v.sd or 0) for _, v, _ in curve for sign in (-1, 1)]
                xs += mine
        if name == "alpha":
            fraction_axis(ax, xs)
        else:
            ax.set_xlim(0, 1.04 * max(xs))
    bounded_axis(panels.axes, heights)
    panels.label(axis, label_of(metric))
    counts = sorted({value.n for value in drawn})
    seeds = str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = f"Means over {seeds} seeds, with a band of one standard deviation" if counts[-1] > 1 else "One seed"
    return panels.finish(
        f"{experiment.slug}-{slug(metric)}-{name}",
        group,
        f"{label_of(metric)} against {against}",
        f"{experiment.metrics[metric].summary} {lines}; the horizontal lines are the original and the gold model. "
        f"{_OPENS}",
    )


# Grid points.


def _of_grid(setting: Setting, method: str, metric: str) -> list[Point]:
    return [p for p in setting.points if p.alpha is not None and p.method == method and p.value(metric) is not None]


def _was_searched(setting: Setting, method: str, metric: str) -> bool:
    return any(not point.selected for point in _of_grid(setting, method, metric))


def _telling(points: Sequence[Point]) -> str | None:
    """Return the option that colours can tell apart: of those with several values, the one with the fewest."""
    values: dict[str, set[str]] = {}
    for point in points:
        for name, value in point.record["options"].items():
            values.setdefault(name, set()).add(compact(value))
    several = {name: len(found) for name, found in values.items() if 1 < len(found) <= _MOST_COLOURS}
    return min(several, key=several.__getitem__, default=None)


def _shades(texts: Iterable[str]) -> dict[str, str]:
    """Return a colour for each value, from one end of a scale to the other, legible on white and on black."""
    ordered = sorted(set(texts), key=natural)
    scale = mpl.colormaps["plasma"]
    return {text: to_hex(scale(0.3 + 0.5 * i / max(1, len(ordered) - 1))) for i, text in enumerate(ordered)}


def _grid(experiment: Experiment, metric: str, method: str, address: str) -> Iterator[Drawing]:
    settings = [setting for setting in experiment.settings if _was_searched(setting, method, metric)]
    if not settings:
        return
    everything = [point for setting in settings for point in _of_grid(setting, method, metric)]
    option = _telling(everything)

    def shade_of(point: Point) -> str:
        return compact(point.record["options"][option]) if option else ""

    shades = _shades(map(shade_of, everything))
    panels = Panels([setting.heading for setting in settings])
    for ax, setting in zip(panels.axes, settings, strict=True):
        lines: dict[str, list[Point]] = {}
        for point in _of_grid(setting, method, metric):
            lines.setdefault(json.dumps(point.record["options"], sort_keys=True), []).append(point)
        for points in lines.values():
            _grid_line(panels, ax, points, metric, shades[shade_of(points[0])])
        for alpha in setting.alphas:
            chosen = [p for p in setting.selected(method, alpha) if p.value(metric) is not None]
            rings = ax.scatter(
                [alpha] * len(chosen),
                [p.record["metrics"][metric] for p in chosen],
                s=46,
                facecolors="none",
                edgecolors=INK,
                zorder=4,
            )
            rings.set_linewidth(1.2)
            rings.set_urls([panels.link(p, f"{p.value(metric):.3f}, selected") for p in chosen])
        fraction_axis(ax, setting.alphas)
    bounded = experiment.metrics[metric].is_fraction
    if bounded:
        bounded_axis(panels.axes, [v for point in everything if (v := point.value(metric)) is not None])
    panels.label("Identified fraction α", label_of(metric))
    if option:
        panels.entry(option.replace("_", " "), Line2D([], [], linewidth=0))
        for text, colour in shades.items():
            panels.entry(f"{text} ", swatch(colour))
    ring = Line2D([], [], linewidth=0, marker="o", markersize=6.5, markerfacecolor="none", markeredgecolor=INK)
    panels.entry("selected, a seed each", ring)
    colours = f" Colours tell {option.replace('_', ' ')}." if option else ""
    yield panels.finish(
        f"{experiment.slug}-{slug(metric)}-grid-{address}",
        "Every point of the grids",
        f"{label_of(metric)} of every grid point of {method}",
        f"Thin lines are means over the seeds, one for each point of the grid.{colours} Rings are what the test-free "
        f"rule selected. {_OPENS}",
    )


def _grid_line(panels: Panels, ax: Any, points: Sequence[Point], metric: str, colour: str) -> None:
    by_alpha: dict[float, list[Point]] = {}
    for point in points:
        by_alpha.setdefault(point.alpha or 0.0, []).append(point)
    xs = sorted(by_alpha)
    values = [stat([v for p in by_alpha[x] if (v := p.value(metric)) is not None]) for x in xs]
    means = [value.mean for value in values if value is not None]
    ax.plot(xs, means, color=colour, linewidth=0.9, alpha=0.75, zorder=2)
    dots = ax.scatter(xs, means, s=7, color=colour, linewidths=0, zorder=2.5)
    options = ", ".join(f"{name}={compact(value)}" for name, value in points[0].record["options"].items())
    dots.set_urls(
        [
            panels.link(by_alpha[x][0], f"{spread(v)}; {options}")
            for x, v in zip(xs, values, strict=True)
            if v is not None
        ]
    )


def _trade_off(experiment: Experiment, unlearning: str, utility: str, marks: dict[str, Mark]) -> Iterator[Drawing]:
    settings = [setting for setting in experiment.settings if setting.alphas]
    if not settings:
        return
    nearest = {setting.title: setting.middle for setting in settings}
    panels = Panels([f"{s.heading}, α = {nearest[s.title]:g}" for s in settings])

    def both(points: Iterable[Point]) -> list[tuple[float, float, Point]]:
        pairs = ((p.value(utility), p.value(unlearning), p) for p in points)
        return [(x, y, p) for x, y, p in pairs if x is not None and y is not None]

    heights: list[float] = []
    for method in experiment.methods:
        mark = marks[method]
        panels.entry(method, Line2D([], [], linewidth=0, marker=mark.marker, color=mark.colour, markersize=6))
    for ax, setting in zip(panels.axes, settings, strict=True):
        alpha = nearest[setting.title]
        for method in setting.methods:
            there = both(p for p in setting.points if p.method == method and p.alpha == alpha)
            for chosen in (False, True):
                mine = [(x, y, p) for x, y, p in there if p.selected == chosen]
                dots = ax.scatter(
                    [x for x, _, _ in mine],
                    [y for _, y, _ in mine],
                    s=58 if chosen else 15,
                    color=marks[method].colour,
                    marker=marks[method].marker,
                    edgecolors=INK if chosen else "none",
                    linewidths=1.1 if chosen else 0,
                    alpha=1 if chosen else 0.6,
                    zorder=4 if chosen else 3,
                )
                dots.set_urls([panels.link(p, f"{x:.3f}, {y:.3f}") for x, y, p in mine])
                heights += [y for _, y, _ in mine]
        for reference, marker in zip((SHOWN[ORIGINAL], SHOWN[GOLD]), ("x", "*"), strict=True):
            there = both(setting.selected(reference))
            shape: dict[str, Any] = {"marker": marker, "color": INK}
            dots = ax.scatter([x for x, _, _ in there], [y for _, y, _ in there], s=42, zorder=5, **shape)
            dots.set_urls([panels.link(p, f"{x:.3f}, {y:.3f}") for x, y, p in there])
            panels.entry(reference, Line2D([], [], linewidth=0, markersize=7, **shape))
            heights += [y for _, y, _ in there]
    if not heights:
        return
    if experiment.metrics[unlearning].is_fraction:
        bounded_axis(panels.axes, heights)
    panels.label(label_of(utility), label_of(unlearning))
    yield panels.finish(
        f"{experiment.slug}-trade-off-{slug(unlearning)}-{slug(utility)}",
        "Unlearning against utility",
        f"{label_of(unlearning)} against {label_of(utility).lower()}",
        f"Each mark is one model; large ones with a rim were selected, small ones are the grid's other points that "
        f"were measured. Every seed is drawn by itself. {_OPENS}",
    )
