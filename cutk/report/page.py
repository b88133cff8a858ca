"""A report as one page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from cutk.errors import printable
from cutk.report.experiments import ORIGINAL, Experiment, Setting, grouped
from cutk.report.naming import compact, listed, natural, slug
from cutk.report.origins import facts_of, machine, versions
from cutk.report.panels import Drawing
from cutk.report.sheets import Sheet
from cutk.report.style import svg
from cutk.report.terminal import described
from cutk.report.verdicts import verdict_of
from cutk.run.records import Run

if TYPE_CHECKING:
    from cutk.report.contents import Contents


def page(contents: Contents) -> str:
    """Return a report as an HTML page."""
    parts = zip(contents.experiments, contents.sheets, contents.drawings, strict=True)
    failures = [described(failure) for failure in (*contents.failures, *contents.failed_summaries)]
    sections = [_section(*of_one) for of_one in parts]
    return template("page.html.j2").render(sections=sections, failures=failures, version=version("cutk"))


def excerpt(contents: Contents) -> str:
    """Return what a notebook shows: the verdicts, the first figure and the results' tables, as HTML."""
    parts = zip(contents.experiments, contents.sheets, strict=True)
    sections = [_section(e, sheets, islice(contents.figures(e), 1)) for e, sheets in parts]
    return template("excerpt.html.j2").render(sections=sections)


def template(name: str) -> Template:
    """Return one of the page templates beside this file; what goes into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"symbols": _symbols, "value": _value}
    return environment.get_template(name)


def _section(experiment: Experiment, sheets: list[Sheet], drawings: Iterable[Drawing]) -> dict[str, Any]:
    """Return what an experiment gave, what it was made of, and every record: these only once they are asked for."""
    figures: list[tuple[str, dict[str, Any]]] = []
    for one in drawings:
        # matplotlib wrote it, and style.svg escaped what it put in.
        inline = Markup(svg(one.figure, one.name, one.tips))  # noqa: S704
        figures.append((one.group, {"id": one.name, "title": one.title, "caption": one.caption, "svg": inline}))
    said = [verdict_of(experiment, setting) for setting in experiment.settings]
    tables = [(sheet.setting, _table(sheet, experiment, i)) for i, sheet in enumerate(sheets)]
    metrics = (*experiment.metrics.values(), *experiment.breakdowns.values())
    return {
        "id": experiment.slug,
        "name": experiment.name,
        "verdicts": [
            {"name": setting.name, "sentences": sentences, "table": f"{experiment.slug}-table-{i}"}
            for i, (setting, sentences) in enumerate(zip(experiment.settings, said, strict=True))
            if sentences
        ],
        "figures": [
            {"id": f"{experiment.slug}-{slug(group)}", "name": group, "drawings": [figure for _, figure in mine]}
            for group, mine in grouped(figures, lambda item: item[0]).items()
        ],
        "results": [table for setting, table in tables if setting is not None],
        "overview": [table for setting, table in tables if setting is None],
        "facts": facts_of(experiment),
        "glossary": [(m.name.replace("_", " "), m.summary, m.higher_is_better) for m in metrics],
        "records": (
            {"id": f"{experiment.slug}-records-{i}", "title": setting.title, "runs": list(_runs(experiment, setting))}
            for i, setting in enumerate(experiment.settings)
        ),
    }


def _table(sheet: Sheet, experiment: Experiment, number: int) -> dict[str, Any]:
    """Return a table for the template, its title without the experiment's name, under which it stands."""
    title = sheet.title.removeprefix(f"{experiment.name}: ")
    competing = [i for i, line in enumerate(sheet.lines) if not line.reference]
    first, last = (competing[0], competing[-1] + 1) if competing else (0, 0)
    return {
        "id": f"{experiment.slug}-table-{number}",
        "title": title[:1].upper() + title[1:] if sheet.setting is None else title,
        "caution": sheet.caution,
        "note": sheet.note,
        "columns": sheet.columns,
        "heads": sheet.heads,
        # References stay where they are when what is between them is sorted.
        "parts": [("reference", sheet.lines[:first]), ("", sheet.lines[first:last]), ("reference", sheet.lines[last:])],
    }


def _runs(experiment: Experiment, setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield every run of a setting, with all that was tried in it."""
    twins = grouped(setting.runs, lambda item: (item[0], item[1].labels.alpha))
    points = {point.anchor: point for point in setting.points}
    for method, run in sorted(setting.runs, key=_order):
        alpha, address = run.labels.alpha, f"record-{run.key[:16]}"
        rows = [points.get(f"{address}-{position}") for position in range(len(run.attempts))]
        metrics = [name for name in experiment.metrics if any(p and p.value(name) is not None for p in rows)]
        names = list(dict.fromkeys(name for attempt in run.attempts for name in attempt.options))
        varying = [n for n in names if len({compact(attempt.options.get(n)) for attempt in run.attempts}) > 1]
        cells = [
            [compact(attempt.options.get(name)) for name in varying]
            + [_value(point and point.value(n), experiment.metrics[n].is_fraction) for n in metrics]
            for attempt, point in zip(run.attempts, rows, strict=True)
        ]
        others = [twin for _, twin in twins[method, alpha] if twin.key != run.key]
        yield {
            "id": address,
            "title": method if alpha is None else f"{method}, α = {alpha:g}",
            "run": run,
            "environment": f"{machine(run.environment)}; {versions(run.environment)}",
            "options": listed({n: run.attempts[0].options.get(n) for n in names if n not in varying}),
            "headings": [name.replace("_", " ") for name in (*varying, *metrics)],
            "others": [(f"record-{twin.key[:16]}-{twin.selected}", twin.labels.seed) for twin in others],
            "attempts": list(zip(run.attempts, cells, strict=True)),
        }


def _order(item: tuple[str, Run]) -> tuple[Any, ...]:
    """Sort by method, the references first: original, then gold."""
    method, run = item
    if run.labels.alpha is None:
        return (0, method != ORIGINAL, run.labels.seed)
    return (1, natural(method), run.labels.alpha, run.labels.seed)


def _symbols(text: str) -> Markup:
    """Return ``text`` with what it calls S_f set as the paper sets it, and signs on the line of what they belong to."""
    shown = str(Markup.escape(printable(text)))
    for sign in (" ↑", " ↓", "α = "):
        shown = shown.replace(sign, sign.replace(" ", "\u00a0"))
    return Markup(re.sub(r"\b([A-Z])_([a-z])\b", r"<i>\1</i><sub>\2</sub>", shown))  # noqa: S704  # it was escaped


def _value(number: float | None, fraction: bool = False) -> str:
    return "–" if number is None else f"{number:.4f}" if fraction else f"{number:.4g}"
