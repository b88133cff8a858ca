"""Figures of the curves that methods logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from matplotlib.lines import Line2D

from cutk.report.experiments import Experiment, Point
from cutk.report.naming import slugs
from cutk.report.panels import Drawing, Panels, fraction_axis, label_of
from cutk.report.style import shades
from cutk.run.records import HISTOGRAM

_MOST = 150  # steps of a curve that are drawn


def logged(experiment: Experiment) -> Iterator[Callable[[], Drawing]]:
    """Yield what draws each curve that was logged: by the method and what it is called."""
    addresses = slugs(experiment.methods)
    for method in experiment.methods:
        chosen = [p for s in experiment.settings for a in s.alphas for p in s.selected(method, a)]
        for prepared in (True, False):
            names = slugs(dict.fromkeys(name for point in chosen for name in _curves(point, prepared)))
            for name, address in names.items():
                place = f"{addresses[method]}-{'prepare-' if prepared else ''}{address}"
                yield partial(_draw, experiment, method, name, prepared, place)


def _curves(point: Point, prepared: bool) -> dict[str, list[float | None]]:
    curves = point.run.prepared.get(point.attempt.state, {}) if prepared else point.attempt.scalars
    # A histogram is drawn by its metric.
    return {name: values for name, values in curves.items() if values and not name.endswith(HISTOGRAM)}


def _draw(experiment: Experiment, method: str, name: str, prepared: bool, address: str) -> Drawing:
    found: dict[str, list[tuple[float, Point, list[float]]]] = {}
    for setting in experiment.settings:
        for alpha in setting.alphas:
            for point in setting.selected(method, alpha):
                if name in (curves := _curves(point, prepared)):
                    values = [math.nan if value is None else value for value in curves[name]]
                    found.setdefault(setting.heading, []).append((alpha, point, values))
    alphas = sorted({alpha for mine in found.values() for alpha, _, _ in mine})
    colours = shades(alphas, "viridis", 0.15, 0.8)
    single = all(len(values) == 1 for mine in found.values() for _, _, values in mine)
    panels = Panels(list(found))
    for ax, mine in zip(panels.axes, found.values(), strict=True):
        for alpha, point, values in mine:
            colour = colours[alpha]
            if single:
                dots = ax.scatter([alpha], values, s=24, color=colour, linewidths=0, alpha=0.8, zorder=3)
                dots.set_urls([panels.link(point, f"{values[0]:.4g}, seed {point.seed}")])
            else:
                steps = range(0, len(values), max(1, len(values) // _MOST))
                link = panels.link(point, f"seed {point.seed}")
                ax.plot(steps, [values[i] for i in steps], color=colour, linewidth=1.1, alpha=0.8, url=link)
        if single:
            fraction_axis(ax, [alpha for alpha, _, _ in mine])
    for alpha in alphas if not single else ():
        panels.entry(f"α = {alpha:g}", Line2D([], [], color=colours[alpha]))
    panels.label("Identified fraction α" if single else "Values in the order of logging", label_of(name))
    return panels.finish(
        f"{experiment.slug}-logged-{address}",
        "What methods logged",
        f"{label_of(name)}, logged by {method}",
        f"Logged by {'prepare' if prepared else 'unlearn'} of the selected models, "
        f"{'a mark' if single else 'a line'} for each seed, which leads to its record.",
    )
