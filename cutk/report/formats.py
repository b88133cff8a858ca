"""Tables written down: for the terminal, for Markdown and LaTeX, and as data."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cutk.report.experiments import Experiment
from cutk.report.sheets import Cell, Sheet

__all__ = ["as_csv", "as_json", "as_latex", "as_markdown", "print_sheet"]

_LABELS = ("experiment", "dataset", "model", "manipulation", "manipulated", "method", "alpha", "identified")
TIDY = (*_LABELS, "metric", "mean", "sd", "n")


def _terminal_cell(cell: Cell, numeric: bool) -> str:
    # The blank keeps the digits of marked and unmarked cells in line.
    mark = ("*" if cell.best else " ") if numeric else ""
    return f"[bold]{escape(str(cell))}[/bold]{mark}" if cell.best else escape(str(cell)) + mark


def _width(sheet: Sheet, column: int) -> int:
    """Return the characters that a column takes with its heading in as many lines as it has words."""
    cells = [len(str(line.cells[column])) + 1 for line in sheet.lines]
    return max([*cells, *(len(word) for word in sheet.columns[column].heading.split())]) + 2


def _dealt(sheet: Sheet, width: int) -> list[Sequence[int]]:
    """Deal a sheet's columns out to as many tables as it takes for each to fit ``width``; each repeats the heads."""
    heads = list(range(sheet.heads))
    free = width - sum(_width(sheet, column) for column in heads)
    rest = list(range(sheet.heads, len(sheet.columns)))
    widest = max((_width(sheet, column) for column in rest), default=1)
    tables = math.ceil(len(rest) / max(1, free // widest))
    each = math.ceil(len(rest) / tables) if tables else 1
    return [heads + rest[start : start + each] for start in range(0, max(1, len(rest)), each)]


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print a table on the terminal, in parts where it is too wide."""
    console.print(f"[bold]{escape(sheet.title)}[/bold]", highlight=False, soft_wrap=True)
    for columns in _dealt(sheet, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i in columns:
            column = sheet.columns[i]
            justify: Any = "right" if column.numeric else "left"
            table.add_column(
                escape(column.heading), justify=justify, no_wrap=i < sheet.heads, min_width=_width(sheet, i) - 2
            )
        for line in sheet.lines:
            cells = (_terminal_cell(line.cells[i], i >= sheet.heads) for i in columns)
            table.add_row(*cells, style="dim" if line.reference else None, end_section=line.ends_section)
        console.print(table)
    console.print(escape(sheet.note), style="dim", highlight=False)
    console.print()


def as_markdown(sheets: Iterable[Sheet]) -> str:
    """Return the tables in GitHub's Markdown; the best cells are bold."""
    blocks = []
    for sheet in sheets:
        rows = [[column.heading for column in sheet.columns], ["--:" if c.numeric else ":--" for c in sheet.columns]]
        body = [[f"**{cell}**" if cell.best else str(cell) for cell in line.cells] for line in sheet.lines]
        rows = [[text.replace("|", "\\|") for text in row] for row in rows + body]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        blocks.append(f"**{sheet.title}**\n\n{table}\n\n{sheet.note}\n")
    return "\n".join(blocks)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "α": r"$\alpha$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
}


def latex_escaped(text: str) -> str:
    r"""Return ``text`` as LaTeX shows it.

    >>> latex_escaped("50 % of |S_f|")
    '50 \\% of $|S_f|$'
    """
    parts = re.split(r"(\|S_[fm]\|)", text)
    return "".join(f"${p}$" if i % 2 else "".join(_LATEX.get(c, c) for c in p) for i, p in enumerate(parts))


def as_latex(sheets: Iterable[Sheet]) -> str:
    """Return the tables in LaTeX for the package booktabs; the best cells are bold."""
    blocks = [r"% needs \usepackage{booktabs}"]
    for sheet in sheets:
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(sheet.title)}. {latex_escaped(sheet.note)}}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in sheet.columns)}}}",
            r"\toprule",
            " & ".join(latex_escaped(column.heading) for column in sheet.columns) + r" \\",
            r"\midrule",
        ]
        for i, line in enumerate(sheet.lines):
            texts = (latex_escaped(str(cell)) for cell in line.cells)
            cells = (rf"\textbf{{{t}}}" if c.best else t for t, c in zip(texts, line.cells, strict=True))
            lines.append(" & ".join(cells) + r" \\")
            if line.ends_section and i + 1 < len(sheet.lines):
                lines.append(r"\midrule")
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(blocks) + "\n"


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return tidy rows as one long table; what doesn't apply is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, TIDY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json(
    version: str, experiments: Sequence[Experiment], rows: Sequence[Mapping[str, Any]], sheets: Sequence[Sheet]
) -> str:
    """Return one document: where the numbers come from, the tidy rows, and the tables as they would be printed."""
    origins = [
        {
            "experiment": experiment.name,
            **experiment.training.model_dump(exclude={"manipulation"}),
            "manipulations": [
                {"manipulation": s.name, "options": s.options, "manipulated": s.size, "seeds": s.seeds}
                for s in experiment.settings
            ],
            "environments": experiment.environments,
        }
        for experiment in experiments
    ]
    tables = [
        {
            "title": sheet.title,
            "note": sheet.note,
            "columns": [column.heading for column in sheet.columns],
            "rows": [[str(cell) for cell in line.cells] for line in sheet.lines],
        }
        for sheet in sheets
    ]
    document = {"cutk": version, "experiments": origins, "values": rows, "tables": tables}
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
