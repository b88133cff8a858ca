"""A repair on the terminal: the verdict first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from cutk.repair.calibration import shown_as
from cutk.repair.page import rows
from cutk.repair.records import RepairReport, Suspect
from cutk.repair.suspects import NOBODY, advice_on, outcome
from cutk.repair.words import undecided
from cutk.report.console import make_console
from cutk.report.terminal import safe

__all__ = ["print_repair"]

# Below so many columns a table is narrower: smaller gaps, higher headings. This column's heading has no words.
_NARROW, _INTERVAL = 96, 2


def print_repair(report: RepairReport, suspects: Sequence[Suspect], folder: Path) -> None:
    """Print what a repair found, and where it was written."""
    console = make_console()

    def say(text: str, style: str | None = None) -> None:
        console.print(safe(text), style=style, highlight=False)

    say(report.verdict, "bold")
    narrow = console.width < _NARROW
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=narrow, show_edge=not narrow)
    heading, *lines = rows(report)
    for i, text in enumerate(heading):
        justify: JustifyMethod = "left" if i in (0, len(heading) - 1) else "right"
        # As high as can be, so that no column takes the place that another's numbers need.
        headed = "\n".join(safe(text).rsplit(maxsplit=1)) if narrow and i != _INTERVAL else safe(text)
        table.add_column(headed, justify=justify, overflow="fold")
    for line in lines:
        table.add_row(*map(safe, line))
    console.print(table)
    for name, reason in report.failed.items():
        say(f"{name} gave no model: {reason}")
    if report.unranked:
        say(report.unranked)
    for text in report.left_out:
        say(f"There was no time for {text}.")
    if not report.repaired and report.original.as_labelled.count:
        time = "more time (--budget), " if report.left_out else ""
        more = "more validation samples, which tell a gain from chance, " if undecided(report) else ""
        if report.stands_in:
            more = "samples with labels that you trust (--validation; here unknown bad ones count as loss), "
        say(
            f"What may help: {time}{more}other methods (-u; see: cutk plugins list), more of the bad samples on the "
            "list, or more accuracy that may be lost (--max-accuracy-loss). Else, train anew without them."
        )
    if report.stands_in:
        say("No validation samples were given: training samples that aren't on the list stand in for them.")
    if suspects:
        say(f"Suspects: {outcome(suspects)} {advice_on(report, suspects)}".rstrip())
    elif report.candidates:
        say(f"Suspects: {NOBODY}.")
    if report.calibration is not None:
        shown = shown_as(report.calibration, report.limits.max_accuracy_loss)
        say(f"\n{shown.setting}")
        if shown.lines:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=narrow, show_edge=not narrow)
            for i, text in enumerate(shown.heading):
                table.add_column(safe(text), justify="left" if i in (0, 2, 8) else "right", overflow="fold")
            for line in shown.lines:
                table.add_row(*map(safe, line))
            console.print(table)
        for text in (*shown.sentences, *shown.remarks):
            say(text)
    say("What can't be known is in the report: there is no gold model, and undetected bad samples may remain.")
    model = "" if report.repaired else " No model was written: the original stays what you have."
    say(f"Wrote '{folder}'.{model}", "dim")
