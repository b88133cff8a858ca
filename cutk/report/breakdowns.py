"""Figures of metrics that are several numbers: histograms, and accuracies class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cutk.errors import printable
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Point, Setting
from cutk.report.naming import natural, slug
from cutk.report.panels import Drawing, Panels, folded, label_of, log_axis, swatch
from cutk.report.style import colours_for
from cutk.run.records import Measured

_ROW = 22  # characters of a line of a row's name
_MOST_WRITTEN = 12  # columns whose cells have room for their number

Values = dict[str, float]


def breakdown(experiment: Experiment, metric: Measured) -> Drawing | None:
    """Draw a metric that is several numbers."""
    draw = _histogram if _is_histogram(experiment, metric) else _heat_map
    return draw(experiment, metric)


def _values(setting: Setting, metric: str, method: str, alpha: float | None) -> Values:
    return {label: value.mean for label, value in setting.broken_down(metric, method, alpha).items()}


def _is_histogram(experiment: Experiment, metric: Measured) -> bool:
    """Say whether a metric counts by the lower edges of bins: labels are numbers, and values are no fractions."""
    points = (point for setting in experiment.settings for point in setting.points if point.selected)
    labels = {label for point in points for label in point.parts(metric.name)}
    return not metric.is_fraction and all(map(_is_number, labels))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _histogram(experiment: Experiment, metric: Measured) -> Drawing | None:
    """Draw counts by bins; where these are logarithmic also linearly, up to the largest (the paper's figure 3)."""
    found = {
        (method, setting.title): values
        for method in experiment.methods
        for setting in experiment.settings
        if setting.alphas and (values := _values(setting, metric.name, method, setting.alphas[-1]))
    }
    methods = [method for method in experiment.methods if any(key[0] == method for key in found)]
    if not methods:
        return None
    titles = [setting.title for setting in experiment.settings]
    colours = colours_for(titles)
    both = any(map(_is_logarithmic, found.values()))
    axes = [(method, log) for method in methods for log in ((True, False) if both else (False,))]
    names = [f"{method}{'' if not both else ', logarithmic' if log else ', linear'}" for method, log in axes]
    panels = Panels(names, size=(3.5, 2.6))
    for ax, (method, log) in zip(panels.axes, axes, strict=True):
        for title in (title for title in titles if (method, title) in found):
            edges, counts = _bins(found[method, title])
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


def _is_logarithmic(values: dict[str, float]) -> bool:
    positive = [edge for edge in map(float, values) if edge > 0]
    return len(positive) > 1 and max(positive) >= 100 * min(positive) and min(map(float, values)) >= 0


def _bins(values: dict[str, float]) -> tuple[list[float], list[float]]:
    """Return the edges and counts to draw.

    An end that is open, or 0 on a logarithmic axis, is as wide as its neighbour.
    """
    pairs = sorted((float(label), count) for label, count in values.items())
    edges, counts = [edge for edge, _ in pairs], [count for _, count in pairs]
    if _is_logarithmic(values):
        ratio = edges[-1] / edges[-2]
        if edges[0] == 0:
            edges[0] = edges[1] / (edges[2] / edges[1] if len(edges) > 2 else ratio)
        return [*edges, edges[-1] * ratio], counts
    width = edges[-1] - edges[-2] if len(edges) > 1 else 1.0
    return [*edges, edges[-1] + width], counts


def _heat_map(experiment: Experiment, metric: Measured) -> Drawing | None:
    tables: dict[str, dict[str, tuple[Values, Point]]] = {}
    for setting in experiment.settings:
        at: list[tuple[str, float | None]] = [(method, setting.middle) for method in setting.methods if setting.alphas]
        rows: dict[str, tuple[Values, Point]] = {}
        for method, alpha in [(ORIGINAL, None), *at, (GOLD, None)]:
            if values := _values(setting, metric.name, method, alpha):
                rows[method] = (values, setting.selected(method, alpha)[0])
        if rows:
            middle = f", α = {setting.middle:g}" if setting.alphas else ""
            tables[f"{setting.heading}{middle}"] = rows
    if not tables:
        return None
    labels = {
        title: sorted({label for v, _ in rows.values() for label in v}, key=natural) for title, rows in tables.items()
    }
    numbers = [number for rows in tables.values() for values, _ in rows.values() for number in values.values()]
    low, high = (0.0, 1.0) if metric.is_fraction else (min(numbers), max(numbers))
    most_rows, most_columns = max(map(len, tables.values())), max(map(len, labels.values()))
    names = [folded(name, _ROW) for rows in tables.values() for name in rows]
    beside = 0.09 * max(len(line) for name in names for line in name.splitlines())
    tall = max(0.26, 0.05 + 0.15 * max(len(name.splitlines()) for name in names))
    below = max(0, max(len(label) for row in labels.values() for label in row) - 3) * 0.06
    size = (min(8.4, 0.4 + beside + 0.3 * max(most_columns, 6)), 0.85 + tall * most_rows + min(below, 1.5))
    panels = Panels(list(tables), share=False, size=size)
    for ax, (title, rows) in zip(panels.axes, tables.items(), strict=True):
        _heat(panels, ax, rows, labels[title], (low, high), most_columns)
    panels.label("", "")
    for part in (1.0, 0.75, 0.5, 0.25, 0.0):
        value = low + part * (high - low)
        panels.entry(f"{value:.0%}" if metric.is_fraction else f"{value:.3g}", swatch(_heat_colour(part)))
    return panels.finish(
        f"{experiment.slug}-{slug(metric.name)}",
        "Broken down",
        label_of(metric.name),
        f"{metric.summary} Of the selected models, means over the seeds{', in percent' if metric.is_fraction else ''}. "
        "A cell leads to its record.",
    )


def _short(label: str) -> str:
    label = printable(label)
    return label if len(label) <= _ROW else f"{label[: _ROW - 1]}…"


def _heat_colour(part: float) -> str:
    return to_hex(mpl.colormaps["cividis"](0.06 + 0.86 * part))


def _heat(
    panels: Panels,
    ax: Any,
    rows: dict[str, tuple[dict[str, float], Point]],
    labels: Sequence[str],
    ends: tuple[float, float],
    most_columns: int,
) -> None:
    low, high = ends
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
                text = f"{100 * values[label]:.0f}" if ends == (0.0, 1.0) else f"{values[label]:.3g}"
                ink = "black" if part > 0.55 else "white"
                ax.text(column, row, text, ha="center", va="center_baseline", fontsize=7.5, color=ink)
    cells = PatchCollection(boxes, facecolors=colours, linewidths=0)
    cells.set_urls(links)
    ax.add_collection(cells)
    ax.set_xlim(-0.5, most_columns - 0.5)  # cells of one size in all panels
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [folded(name, _ROW) for name in rows])
    step = max(1, len(labels) // 25)
    long = max(map(len, labels)) > 3
    ax.set_xticks(range(0, len(labels), step), [_short(label) for label in labels[::step]], rotation=90 if long else 0)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
