"""Tables on the terminal, and what a benchmark says there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cutk.errors import printable
from cutk.report.console import make_console
from cutk.report.contents import Contents
from cutk.report.naming import listed
from cutk.report.origins import counted, machine, mixed, versions
from cutk.report.sheets import Cell, Sheet, in_words, less, setting_sheet
from cutk.run.records import Failure


def safe(text: str) -> str:
    """Return ``text`` as rich prints it, whatever is in it."""
    return escape(printable(text))


def _terminal_cell(cell: Cell, numeric: bool) -> str:
    # The blank keeps the digits of marked and unmarked cells in line.
    mark = ("*" if cell.best else " ") if numeric else ""
    return f"[bold]{safe(str(cell))}[/bold]{mark}" if cell.best else safe(str(cell)) + mark


def tables_of(sheet: Sheet, width: int) -> Iterator[Table]:
    """Yield a sheet as tables of rich: as many as it takes for each to fit ``width``, each with the sheet's heads."""
    # A heading takes as many lines as it has words.
    words = [max(map(len, column.heading.split()), default=0) for column in sheet.columns]
    widths = [max([word, *(len(str(line.cells[i])) + 1 for line in sheet.lines)]) for i, word in enumerate(words)]
    heads, rest = range(sheet.heads), range(sheet.heads, len(sheet.columns))
    free = width - sum(widths[i] + 2 for i in heads)
    widest = max((widths[i] + 2 for i in rest), default=1)
    parts = math.ceil(len(rest) / max(1, free // widest))
    each = math.ceil(len(rest) / parts) if parts else 1
    for start in range(0, max(1, len(rest)), each):
        columns = [*heads, *rest[start : start + each]]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i in columns:
            justify: Any = "right" if sheet.columns[i].numeric else "left"
            heading = safe(sheet.columns[i].heading)
            table.add_column(heading, justify=justify, no_wrap=i < sheet.heads, min_width=widths[i])
        for line in sheet.lines:
            cells = (_terminal_cell(line.cells[i], i >= sheet.heads) for i in columns)
            table.add_row(*cells, style="dim" if line.reference else None, end_section=line.ends_section)
        yield table


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print a table on the terminal, in parts where it is too wide."""
    console.print(f"[bold]{safe(sheet.title)}[/bold]", highlight=False, soft_wrap=True)
    for table in tables_of(sheet, console.width):
        console.print(table)
    if sheet.caution:
        console.print(f"[bold]{safe(sheet.caution)}[/bold]", highlight=False)
    console.print(safe(sheet.note), style="dim", highlight=False)
    console.print()


def print_results(contents: Contents, console: Console | None = None) -> None:
    """Print what a benchmark found: a table for each manipulation, the summaries, and where the numbers come from."""
    console = console or make_console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True)

    for experiment, found in zip(contents.experiments, contents.summaries, strict=True):
        for setting in experiment.settings:
            sheet = setting_sheet(experiment, setting, brief=True)
            marked = "; * best of the unlearners at its α" if sheet.marks else ""
            title = f"{experiment.dataset}, {setting.name}, {experiment.model}"
            apart = experiment.name.removeprefix(f"{experiment.dataset}, {experiment.model}")
            say(f"[bold]{safe(title + apart)}[/bold]: mean ± sd over {counted(len(setting.seeds), 'seed')}{marked}")
            for table in tables_of(sheet, console.width):
                console.print(table)
            if sheet.caution:
                say(f"[bold]{safe(sheet.caution)}[/bold]")
            for one in found:
                if one.manipulation == setting.title:
                    if one.note and not one.metrics and not sheet.caution:
                        say(safe(f"{one.unlearner}: {one.note}"))
                    for name in one.metrics:
                        words = f"{in_words(one, name)} {less(setting, one, found)}".rstrip()
                        say(safe(f"{one.unlearner}: {name} = {words}"))
        if any(point.oracle for setting in experiment.settings for point in setting.taken):
            say("oracle: the grid point that is best on the test set; no method could have chosen it.")
    environments = [environment for experiment in contents.experiments for environment in experiment.environments]
    for line in dict.fromkeys(f"{versions(there)}; {machine(there)}" for there in environments):
        say(safe(line), "dim")
    if differing := mixed(environments):
        say(safe(f"These environments differ ({differing}), which changes results."), "dim")


def described(failure: Failure) -> str:
    """Return in one line what gave no number, and why: ``badnet, seed 1: gold: no room``."""
    seed = "all seeds" if failure.seed is None else f"seed {failure.seed}"
    text = f"{failure.manipulation}, {seed}: {failure.unlearner or failure.role}"
    text += "" if failure.alpha is None else f" at α = {failure.alpha:g}"
    text += f" with {listed(failure.options)}" if failure.options and failure.what != "cell" else ""
    text += f", {'summary' if failure.what == 'summary' else 'metric'} {failure.metric}" if failure.metric else ""
    return printable(f"{text}: {failure.reason}")


def print_failures(failures: Sequence[Failure], tracebacks: bool = False) -> None:
    """Print what gave no number to stderr, a line each, and where it happened if asked to."""
    if not failures:
        return
    console = Console(stderr=True)
    console.print(f"{len(failures)} failed:", highlight=False)
    for failure in failures:
        console.print(f"  {safe(described(failure))}", highlight=False, soft_wrap=True)
        if tracebacks and failure.traceback:
            console.print(safe(failure.traceback), highlight=False, soft_wrap=True)
