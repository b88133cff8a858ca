"""``cutk report``: from stored runs to tables, figures and a page."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutk.cli.common import Command

if TYPE_CHECKING:
    from cutk.report.contents import Contents

# More say no more than these do.
SHOWN_FAILURES = 10
_FORMATS = ("table", "markdown", "latex", "csv", "json")


def _warn(text: str) -> None:
    from cutk.errors import printable

    click.echo(f"Warning: {printable(text)}", err=True)


@click.command(cls=Command, context_settings={"max_content_width": 100})
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
@click.option("--unlearner", "-u", multiple=True, metavar="NAME", help="Report this unlearner alone; repeatable.")
@click.option("--highlight", multiple=True, metavar="NAME", help="Stress this unlearner in figures; repeatable.")
@click.option(
    "--any-code",
    is_flag=True,
    help="Show what several versions of a component's code computed as one, and name them.",
)
def report(runs: Path, **options: Any) -> int:
    """Show what the folder RUNS, filled by cutk bench, holds.

    Prints tables, and writes figures and a page if asked to. Nothing is computed anew, and RUNS stays as it is.

    \b
    cutk report runs
    cutk report runs --html report.html --figures figures
    cutk report runs --manipulation badnet --format latex
    cutk report runs -u ssd -u mine --highlight mine --figures figures
    """  # noqa: D301  # click looks for the character itself
    import cutk
    from cutk.errors import printable
    from cutk.plugins.registry import load_registry
    from cutk.report.console import make_console
    from cutk.report.contents import Contents, installed_summaries
    from cutk.report.formats import as_csv, as_json, as_latex, as_markdown
    from cutk.report.origins import mixed
    from cutk.report.terminal import described, print_sheet
    from cutk.run.files import uncollected
    from cutk.run.store import Store

    gc.freeze()  # what was imported stays, and looking through it again and again takes long
    store = Store(runs)
    with uncollected():
        found = list(store.runs(_warn))
        failures = list(store.failures())
        for failure in failures[:SHOWN_FAILURES]:
            _warn(f"{described(failure)}; it is in no table. The same cutk bench tries it again")
        # A summary may come by the hook of metrics; the other kinds take seconds to import, and aren't needed.
        summaries = installed_summaries(load_registry(kinds={"metric", "summary"}), _warn)
        chosen = {"unlearners": options["unlearner"], "highlighted": options["highlight"]}
        how: dict[str, Any] = {**chosen, "any_code": options["any_code"], "failures": failures}
        contents = Contents(found, summaries, options["dataset"], options["manipulation"], **how)
        sheets = [sheet for of_experiment in contents.sheets for sheet in of_experiment]
    failed = sum(len(setting.failures) for experiment in contents.experiments for setting in experiment.settings)
    if failed:
        _warn(f"{failed} models or metrics gave no number; the records on the page (--html) say why")
    for name, versions in contents.versions.items():
        told = f"'{name}' was computed by {len(versions)} versions of its code: {', '.join(versions)}."
        click.echo(printable(told), err=True)
    for failure in contents.failed_summaries:
        _warn(described(failure))
    environments = (environment for experiment in contents.experiments for environment in experiment.environments)
    if differing := mixed(environments):
        _warn(f"the runs come from different environments, which changes results ({differing})")
    if options["html"] or options["figures"]:
        _write(contents, options["html"], options["figures"])

    form = options["form"]
    if form == "table":
        console = make_console()
        for sheet in sheets:
            print_sheet(sheet, console)
    elif form == "csv":
        click.echo(as_csv(contents.rows()), nl=False)
    elif form == "json":
        click.echo(as_json(cutk.__version__, contents.experiments, list(contents.rows()), sheets))
    else:
        click.echo({"markdown": as_markdown, "latex": as_latex}[form](sheets), nl=False)
    return 0


def _write(contents: Contents, html: Path | None, folder: Path | None) -> None:
    """Write figures and page, and say so."""
    from cutk.report.files import write_file
    from cutk.report.style import png, svg

    if html:
        from cutk.report.page import page

        write_file(html, page(contents))
        click.echo(f"Wrote '{html}'.", err=True)
    if folder:
        home = os.path.relpath(html, folder) if html else None
        drawings = [drawing for of_experiment in contents.drawings for drawing in of_experiment]
        for drawing in drawings:
            text = svg(drawing.figure, drawing.name, drawing.tips, page=home, origin=drawing.origin)
            write_file(folder / f"{drawing.name}.svg", text)
            write_file(folder / f"{drawing.name}.png", png(drawing.figure, drawing.origin))
        click.echo(f"Wrote {len(drawings)} figures, as SVG and PNG each, to '{folder}'.", err=True)
