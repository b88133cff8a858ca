"""A report as one page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from cutk.report.experiments import SHOWN, Experiment, Setting, anchor
from cutk.report.naming import compact, natural, slug
from cutk.report.origins import facts_of, listed, machine, versions
from cutk.report.panels import Drawing
from cutk.report.runs import StoredRun
from cutk.report.sheets import Sheet
from cutk.report.style import svg
from cutk.run.records import ORIGINAL

__all__ = ["excerpt", "page"]

_SMALLEST = 0.8  # of its natural width; below that a figure is scrolled and not shrunk


def page(
    experiments: Sequence[Experiment],
    sheets: Sequence[Sequence[Sheet]],
    drawings: Sequence[Sequence[Drawing]],
    version: str,
) -> str:
    """Return the page as HTML.

    Args:
        experiments: what to show.
        sheets: the tables of each experiment.
        drawings: the figures of each experiment.
        version: of cutk, as it writes the page.
    """
    sections = [_section(*of_one) for of_one in zip(experiments, sheets, drawings, strict=True)]
    return _template("page.html.j2").render(sections=sections, version=version)


def excerpt(
    experiments: Sequence[Experiment], sheets: Sequence[Sequence[Sheet]], drawings: Sequence[Sequence[Drawing]]
) -> str:
    """Return what a notebook shows: the first figure and the results' tables of each experiment, as HTML."""
    sections = []
    for experiment, of_sheets, of_drawings in zip(experiments, sheets, drawings, strict=True):
        shown = _section(experiment, of_sheets, of_drawings[:1])
        figures = [drawing for group in shown["figures"] for drawing in group["drawings"]]
        sections.append({"drawings": figures, "tables": shown["results"]})
    return _template("excerpt.html.j2").render(sections=sections)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = _symbols
    return environment.get_template(name)


def _section(experiment: Experiment, sheets: Sequence[Sheet], drawings: Sequence[Drawing]) -> dict[str, Any]:
    name = experiment.slug
    groups: dict[str, list[dict[str, Any]]] = {}
    for drawing in drawings:
        figure = {
            "id": drawing.name,
            "title": drawing.title,
            "caption": drawing.caption,
            "origin": drawing.origin,
            "svg": _inline(drawing),
        }
        groups.setdefault(drawing.group, []).append(figure)
    return {
        "id": name,
        "name": experiment.name,
        "facts": facts_of(experiment),
        "overview": [_table(sheet, experiment, i) for i, sheet in enumerate(sheets) if sheet.setting is None],
        "results": [_table(sheet, experiment, i) for i, sheet in enumerate(sheets) if sheet.setting is not None],
        "figures": [{"id": f"{name}-{slug(group)}", "name": group, "drawings": d} for group, d in groups.items()],
        "glossary": [
            (metric.name.replace("_", " "), metric.summary, metric.higher_is_better)
            for metric in (*experiment.metrics.values(), *experiment.breakdowns.values())
        ],
        "records": [
            {"id": f"{name}-records-{i}", "title": setting.title, "runs": _runs(experiment, setting)}
            for i, setting in enumerate(experiment.settings)
        ],
    }


def _table(sheet: Sheet, experiment: Experiment, number: int) -> dict[str, Any]:
    """Return a table for the template, its title without the experiment's name, under which it stands."""
    title = sheet.title.removeprefix(f"{experiment.name}: ")
    first, last = 0, len(sheet.lines)
    while first < last and sheet.lines[first].reference:
        first += 1
    while last > first and sheet.lines[last - 1].reference:
        last -= 1
    return {
        "id": f"{experiment.slug}-table-{number}",
        "title": title[:1].upper() + title[1:] if sheet.setting is None else title,
        "note": sheet.note,
        # An arrow stays on the line of the word before it.
        "columns": [c._replace(heading=re.sub(r" (?=[↑↓]$)", "\u00a0", c.heading)) for c in sheet.columns],
        "heads": sheet.heads,
        # References stay where they are when what is between them is sorted.
        "parts": [("reference", sheet.lines[:first]), ("", sheet.lines[first:last]), ("reference", sheet.lines[last:])],
    }


def _runs(experiment: Experiment, setting: Setting) -> list[dict[str, Any]]:
    """Return every run of a setting, with all that was tried in it."""
    twins: dict[tuple[str, float | None], list[StoredRun]] = {}
    for method, run in setting.runs:
        twins.setdefault((method, run.labels.alpha), []).append(run)
    measured = {point.anchor: point.record["metrics"] for point in setting.points}
    result = []
    for method, run in sorted(setting.runs, key=_order):
        alpha = run.labels.alpha
        values = [measured.get(anchor(run, position), {}) for position in range(len(run.attempts))]
        metrics = [name for name in experiment.metrics if any(name in found for found in values)]
        names = list(dict.fromkeys(name for attempt in run.attempts for name in attempt.options))
        varying = [n for n in names if len({compact(attempt.options.get(n)) for attempt in run.attempts}) > 1]
        result.append(
            {
                "id": anchor(run, 0).rpartition("-")[0],
                "title": method if alpha is None else f"{method}, α = {alpha:g}",
                "seed": run.labels.seed,
                "identified": run.labels.identified,
                "key": run.key,
                "provider": run.provider,
                "environment": f"{machine(run.environment)}; {versions(run.environment)}",
                "options": listed({n: run.attempts[0].options.get(n) for n in names if n not in varying}),
                "headings": [name.replace("_", " ") for name in (*varying, *metrics)],
                "others": [
                    (anchor(other, other.selected), other.labels.seed)
                    for other in twins[method, alpha]
                    if other is not run
                ],
                "attempts": [
                    {
                        "id": anchor(run, position),
                        "selected": position == run.selected,
                        "cells": [compact(attempt.options.get(name)) for name in varying]
                        + [_value(values[position].get(n), experiment.metrics[n].is_fraction) for n in metrics],
                        "score": _value(attempt.score, fraction=True),
                        "seconds": _value(attempt.seconds),
                        "error": attempt.error,
                        "failed": list(dict.fromkeys(attempt.failed_metrics.values())),
                    }
                    for position, attempt in enumerate(run.attempts)
                ],
            }
        )
    return result


def _order(item: tuple[str, StoredRun]) -> tuple[Any, ...]:
    """Sort by method, the references first: original, then gold."""
    method, run = item
    if run.labels.alpha is None:
        return (0, method != SHOWN[ORIGINAL], run.labels.seed)
    return (1, natural(method), run.labels.alpha, run.labels.seed)


def _symbols(text: str) -> Markup:
    """Return ``text`` with what it calls S_f set as the paper sets it."""
    return Markup(re.sub(r"\b([A-Z])_([a-z])\b", r"<i>\1</i><sub>\2</sub>", str(Markup.escape(text))))  # noqa: S704


def _value(number: float | None, fraction: bool = False) -> str:
    return "–" if number is None else f"{number:.4f}" if fraction else f"{number:.4g}"


def _inline(drawing: Drawing) -> Markup:
    text = svg(drawing.figure, drawing.name, drawing.tips)
    match = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    if match:
        width, height = (float(size) * 4 / 3 for size in match.groups())
        size = f'style="min-width:{_SMALLEST * width:.0f}px;max-width:{width:.0f}px"'
        text = text.replace(match[0], f'width="{width:.0f}" height="{height:.0f}" {size} role="group"', 1)
    # matplotlib wrote it, and style.svg escaped what it put in.
    return Markup(text)  # noqa: S704
