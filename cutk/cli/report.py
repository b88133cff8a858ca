"""``cutk report``: from stored runs to tables, figures and a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

# More say no more than these do.
SHOWN_FAILURES = 10
_FORMATS = ("table", "markdown", "latex", "csv", "json")


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


@click.command(context_settings={"max_content_width": 100})
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write everything as one self-contained page."
)
@click.option("--figures", type=click.Path(path_type=Path), metavar="DIR", help="Write every figure as SVG and as PNG.")
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="How to print the tables; csv is one long table.",
)
@click.option("--dataset", "-d", multiple=True, metavar="NAME", help="Report runs of this dataset alone; repeatable.")
@click.option("--manipulation", "-m", multiple=True, metavar="NAME", help="Report this manipulation alone; repeatable.")
def report(runs: Path, **options: Any) -> int:
    """Show what the folder RUNS, filled by cutk bench, holds.

    Prints tables, and writes figures and a page if asked to. Nothing is computed anew, and RUNS stays as it is.

    \b
    cutk report runs
    cutk report runs --html report.html --figures figures
    cutk report runs --manipulation badnet --format latex
    """  # noqa: D301  # click looks for the character itself
    import cutk
    from cutk.plugins.registry import load_registry
    from cutk.report.console import make_console
    from cutk.report.experiments import experiments_of
    from cutk.report.formats import as_csv, as_json, as_latex, as_markdown, print_sheet
    from cutk.report.runs import read_failures, read_runs
    from cutk.report.sheets import sheets_of, summarised, tidy

    for failure in read_failures(runs)[:SHOWN_FAILURES]:
        _warn(f"{failure}; it is in no table. The same cutk bench tries it again")
    experiments = experiments_of(read_runs(runs, _warn), options["dataset"], options["manipulation"])
    failed = sum(len(setting.failures) for experiment in experiments for setting in experiment.settings)
    if failed:
        _warn(f"{failed} models or metrics gave no number; the records on the page (--html) say why")
    registry = load_registry()
    summaries = [summarised(experiment, registry, _warn) for experiment in experiments]
    tables = [sheets_of(experiment, found) for experiment, found in zip(experiments, summaries, strict=True)]
    if options["html"] or options["figures"]:
        _write(experiments, tables, options["html"], options["figures"])

    sheets = [sheet for of_experiment in tables for sheet in of_experiment]
    rows = [row for e, found in zip(experiments, summaries, strict=True) for row in tidy(e, found)]
    form = options["form"]
    if form == "table":
        console = make_console()
        for sheet in sheets:
            print_sheet(sheet, console)
    elif form == "csv":
        click.echo(as_csv(rows), nl=False)
    elif form == "json":
        click.echo(as_json(cutk.__version__, experiments, rows, sheets))
    else:
        click.echo({"markdown": as_markdown, "latex": as_latex}[form](sheets), nl=False)
    return 0


def _write(experiments: list[Any], tables: list[Any], html: Path | None, folder: Path | None) -> None:
    """Write figures and page, and say so."""
    import cutk
    from cutk.report.figures import figures_of
    from cutk.report.files import write_file
    from cutk.report.page import page
    from cutk.report.style import marks_for, png, svg

    marks = marks_for(method for experiment in experiments for method in experiment.methods)
    drawings = [list(figures_of(experiment, marks)) for experiment in experiments]
    if html:
        write_file(html, page(experiments, tables, drawings, cutk.__version__))
        click.echo(f"Wrote '{html}'.", err=True)
    if folder:
        home = os.path.relpath(html, folder) if html else None
        for drawing in (drawing for of_experiment in drawings for drawing in of_experiment):
            text = svg(drawing.figure, drawing.name, drawing.tips, page=home, origin=drawing.origin)
            write_file(folder / f"{drawing.name}.svg", text)
            write_file(folder / f"{drawing.name}.png", png(drawing.figure, drawing.origin))
        click.echo(f"Wrote {sum(map(len, drawings))} figures, as SVG and PNG each, to '{folder}'.", err=True)
