"""Figures of metrics that are several numbers: histograms, and accuracies class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from cutk.errors import printable, shortened
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting
from cutk.report.naming import natural, slug
from cutk.report.panels import Drawing, Panels, folded, label_of, log_axis
from cutk.report.style import Mark, colours_for
from cutk.run.records import Measured

_ROW = 22  # characters of a line of a row's name
_MOST_WRITTEN = 12  # columns whose cells have room for their number

Values = dict[str, float]


def breakdown(experiment: Experiment, metric: Measured, marks: Mapping[str, Mark]) -> Drawing | None:
    """Draw a metric that is several numbers; ``marks`` are those of the methods.

    Where it counts by the lower edges of bins, labels are numbers and values no fractions. Where both are fractions, it
    is a curve.
    """
    points = (point for setting in experiment.settings for point in setting.taken if point.selected)
    labels = {label for point in points for label in point.parts(metric.name)}
    numbers = all(map(_is_number, labels))
    if numbers and not metric.is_fraction:
        return _histogram(experiment, metric)
    # Numbers from 0 to 9 are names of classes.
    if numbers and any("." in label for label in labels) and all(0 <= float(label) <= 1 for label in labels):
        return _curves(experiment, metric, marks)
    return _heat_map(experiment, metric)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _values(setting: Setting, metric: Measured, method: str, alpha: float | None) -> Values:
    return {label: value.mean for label, value in setting.broken_down(metric.name, method, alpha).items()}


def _histogram(experiment: Experiment, metric: Measured) -> Drawing | None:
    """Draw counts by bins; where these are logarithmic also linearly, up to the largest (the paper's figure 3)."""
    found: dict[str, dict[str, Values]] = {}
    for method in experiment.methods:
        for setting in experiment.settings:
            if setting.alphas and (values := _values(setting, metric, method, setting.alphas[-1])):
                found.setdefault(method, {})[setting.title] = values
    if not found:
        return None
    colours = colours_for(setting.title for setting in experiment.settings)
    both = any(_is_logarithmic(values) for mine in found.values() for values in mine.values())
    axes = [(method, log) for method in found for log in ((True, False) if both else (False,))]
    names = [f"{method}{'' if not both else ', logarithmic' if log else ', linear'}" for method, log in axes]
    panels = Panels(names, size=(3.5, 2.6))
    for ax, (method, log) in zip(panels.axes, axes, strict=True):
        for title, values in found[method].items():
            edges, counts = _bins(values)
            if both and not log:
                last = max((i for i, count in enumerate(counts[:-1]) if count > 0), default=0)
                edges, counts = edges[: last + 2], counts[: last + 1]
                end = (edges[-1], counts[-1] or 1.0)
                ax.plot(*end, marker="o", markersize=4, color=colours[title])
                place: Any = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "fontsize": 8}
                ax.annotate(f"{edges[-1]:.3g}", end, color=colours[title], **place)
            ax.stairs(counts, edges, baseline=None, color=colours[title], linewidth=1.4)
            panels.entry(title, Line2D([], [], color=colours[title]))
        ax.set_yscale("log")
        log_axis(ax.yaxis)
        if log:
            ax.set_xscale("log")
            log_axis(ax.xaxis, ticks=7)
        elif both:
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.margins(x=0.08)
    panels.label(label_of(metric.name), "Count")
    linear = " Linear panels leave that one out and end at the largest value, the upper end of its bin." if both else ""
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}",
        "Histograms",
        label_of(metric.name),
        f"{metric.summary} Of the selected models at the largest α, means over the seeds; the first bin holds all that "
        f"is smaller, the last one all that is larger.{linear}",
    )


def _is_logarithmic(values: Values) -> bool:
    edges = [float(label) for label in values]
    positive = [edge for edge in edges if edge > 0]
    return len(positive) > 1 and max(positive) >= 100 * min(positive) and min(edges) >= 0


def _bins(values: Values) -> tuple[list[float], list[float]]:
    """Return edges and counts; an end that is open, or 0 on a logarithmic axis, is as wide as its neighbour."""
    pairs = sorted((float(label), count) for label, count in values.items())
    edges, counts = [edge for edge, _ in pairs], [count for _, count in pairs]
    if _is_logarithmic(values):
        ratio = edges[-1] / edges[-2]
        if edges[0] == 0:
            edges[0] = edges[1] / (edges[2] / edges[1] if len(edges) > 2 else ratio)
        return [*edges, edges[-1] * ratio], counts
    width = edges[-1] - edges[-2] if len(edges) > 1 else 1.0
    return [*edges, edges[-1] + width], counts


def _at(setting: Setting) -> tuple[str, float | None]:
    """Return the α at which a setting is shown, and what says so."""
    middle = setting.middle if setting.alphas else None
    return (setting.heading if middle is None else f"{setting.heading}, α = {middle:g}"), middle


def _curves(experiment: Experiment, metric: Measured, marks: Mapping[str, Mark]) -> Drawing | None:
    """Draw values against their labels, a line for each method."""
    found: dict[str, dict[str, Values]] = {}
    for setting in experiment.settings:
        title, alpha = _at(setting)
        for method in setting.methods:
            if values := _values(setting, metric, method, alpha):
                found.setdefault(title, {})[method] = values
    if not found:
        return None
    panels = Panels(list(found))
    for ax, lines in zip(panels.axes, found.values(), strict=True):
        for method, values in lines.items():
            style: Any = {"color": marks[method].colour, "linestyle": marks[method].dash}
            xs = sorted(values, key=float)
            ax.plot([float(x) for x in xs], [values[x] for x in xs], **style)
            panels.entry(method, Line2D([], [], **style))
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.03)
    _, _, over = metric.name.rpartition("_at_")
    panels.label(label_of(over if over != metric.name else ""), label_of(metric.name))
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}",
        "Broken down",
        label_of(metric.name),
        f"{metric.summary} Of the selected models, means over the seeds.",
    )


def _heat_map(experiment: Experiment, metric: Measured) -> Drawing | None:
    tables: dict[str, dict[str, tuple[Values, Point]]] = {}
    for setting in experiment.settings:
        title, middle = _at(setting)
        for method, alpha in [(ORIGINAL, None), *((method, middle) for method in setting.methods), (GOLD, None)]:
            if values := _values(setting, metric, method, alpha):
                tables.setdefault(title, {})[method] = values, setting.selected(method, alpha)[0]
    if not tables:
        return None
    numbers = [number for rows in tables.values() for values, _ in rows.values() for number in values.values()]
    low, high = (0.0, 1.0) if metric.is_fraction else (min(numbers), max(numbers))
    labels = [sorted({label for v, _ in rows.values() for label in v}, key=natural) for rows in tables.values()]
    most_rows, most_columns = max(map(len, tables.values())), max(map(len, labels))
    names = [folded(name, _ROW).splitlines() for rows in tables.values() for name in rows]
    beside = 0.09 * max(len(line) for lines in names for line in lines)
    tall = max(0.26, 0.05 + 0.15 * max(map(len, names)))
    below = max(0, max(len(label) for row in labels for label in row) - 3) * 0.06
    size = (min(8.4, 0.4 + beside + 0.3 * max(most_columns, 6)), 0.85 + tall * most_rows + min(below, 1.5))
    panels = Panels(list(tables), share=False, size=size)
    for ax, rows, mine in zip(panels.axes, tables.values(), labels, strict=True):
        _heat(panels, ax, rows, mine, metric.is_fraction, low, high)
        ax.set_xlim(-0.5, most_columns - 0.5)  # cells of one size in all panels
    panels.label("", "")
    for part in (1.0, 0.75, 0.5, 0.25, 0.0):
        value = low + part * (high - low)
        patch = Patch(facecolor=_heat_colour(part), linewidth=0)
        panels.entry(f"{value:.0%}" if metric.is_fraction else f"{value:.3g}", patch)
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}",
        "Broken down",
        label_of(metric.name),
        f"{metric.summary} Of the selected models, means over the seeds{', in percent' if metric.is_fraction else ''}. "
        "A cell leads to its record.",
    )


def _heat_colour(part: float) -> str:
    return to_hex(mpl.colormaps["cividis"](0.06 + 0.86 * part))


def _heat(
    panels: Panels,
    ax: Any,
    rows: dict[str, tuple[Values, Point]],
    labels: list[str],
    percent: bool,
    low: float,
    high: float,
) -> None:
    boxes, colours, links = [], [], []
    for row, (method, (values, point)) in enumerate(rows.items()):
        for column, label in enumerate(labels):
            if label not in values:
                continue
            part = (values[label] - low) / (high - low) if high > low else 0.0
            boxes.append(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92))
            colours.append(_heat_colour(part))
            links.append(panels.link(point, f"first seed's record of {method}"))
            if len(labels) <= _MOST_WRITTEN:
                text = f"{100 * values[label]:.0f}" if percent else f"{values[label]:.3g}"
                ink = "black" if part > 0.55 else "white"
                ax.text(column, row, text, ha="center", va="center_baseline", fontsize=7.5, color=ink)
    cells = PatchCollection(boxes, facecolors=colours, linewidths=0)
    cells.set_urls(links)
    ax.add_collection(cells)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [folded(name, _ROW) for name in rows])
    step, rotation = max(1, len(labels) // 25), 90 if max(map(len, labels)) > 3 else 0
    shown = [shortened(printable(label), _ROW) for label in labels[::step]]
    ax.set_xticks(range(0, len(labels), step), shown, rotation=rotation)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
