"""Tables written down: in Markdown and LaTeX, and as data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cutk.errors import printable
from cutk.report.code import several
from cutk.report.experiments import Experiment
from cutk.report.sheets import Sheet

_LABELS = ("experiment", "dataset", "model", "manipulation", "manipulated", "role", "method", "alpha", "identified")
TIDY = (*_LABELS, "metric", "mean", "sd", "n", "low", "high")

_MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", "`": r"\`", "\n": " "})
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "α": r"$\alpha$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
_LATEX |= {"±": r"$\pm$", "−": "$-$", "–": "--", "…": r"\dots{}", "\n": " "}


def as_markdown(sheets: Iterable[Sheet]) -> str:
    """Return the tables in GitHub's Markdown; the best cells are bold."""
    blocks = []
    for sheet in sheets:
        rows = [[column.heading.translate(_MARKDOWN) for column in sheet.columns]]
        rows.append(["--:" if column.numeric else ":--" for column in sheet.columns])
        for line in sheet.lines:
            texts = [(str(cell).translate(_MARKDOWN), cell.best) for cell in line.cells]
            rows.append([f"**{text}**" if best else text for text, best in texts])
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        caution = f"**{sheet.caution.translate(_MARKDOWN)}** " if sheet.caution else ""
        blocks.append(f"**{sheet.title.translate(_MARKDOWN)}**\n\n{table}\n\n{caution}{sheet.note}\n")
    return printable("\n".join(blocks))


def latex_escaped(text: str) -> str:
    r"""Return ``text`` as LaTeX shows it.

    >>> latex_escaped("50 % of |S_f|")
    '50 \\% of $|S_f|$'
    """
    for symbol in ("|S_f|", "|S_m|"):
        before, found, after = text.partition(symbol)
        if found:
            return f"{latex_escaped(before)}${symbol}${latex_escaped(after)}"
    return "".join(_LATEX.get(character, character) for character in text)


def as_latex(sheets: Iterable[Sheet]) -> str:
    """Return the tables in LaTeX for the package booktabs; the best cells are bold."""
    blocks = [r"% needs \usepackage{booktabs}"]
    for sheet in sheets:
        caption = ". ".join(text.rstrip(".") for text in (sheet.title, sheet.caution, sheet.note) if text) + "."
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(caption)}}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in sheet.columns)}}}",
            r"\toprule",
            " & ".join(latex_escaped(column.heading) for column in sheet.columns) + r" \\",
            r"\midrule",
        ]
        for i, line in enumerate(sheet.lines):
            texts = [(latex_escaped(str(cell)), cell.best) for cell in line.cells]
            lines.append(" & ".join(rf"\textbf{{{text}}}" if best else text for text, best in texts) + r" \\")
            if line.ends_section and i + 1 < len(sheet.lines):
                lines.append(r"\midrule")
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return printable("\n\n".join(blocks) + "\n")


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return tidy rows as one long table; what doesn't apply is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, TIDY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return printable(out.getvalue())


def as_json(
    version: str, experiments: Sequence[Experiment], rows: Sequence[Mapping[str, Any]], sheets: Sequence[Sheet]
) -> str:
    """Return one document: where the numbers come from, the tidy rows, and the tables as they would be printed."""
    origins = [
        {
            "experiment": experiment.name,
            **experiment.training.model_dump(exclude={"role", "corruption", "manipulation", "seed"}),
            "manipulations": [
                {"manipulation": s.name, "options": s.options, "manipulated": s.size, "seeds": s.seeds}
                for s in experiment.settings
            ],
            "environments": [environment.model_dump() for environment in experiment.environments],
            "code_of_several_versions": several(experiment.runs),
        }
        for experiment in experiments
    ]
    tables = [
        {
            **{name: getattr(sheet, name) for name in ("title", "caution", "note")},
            "columns": [column.heading for column in sheet.columns],
            "rows": [[str(cell) for cell in line.cells] for line in sheet.lines],
        }
        for sheet in sheets
    ]
    document = {"cutk": version, "experiments": origins, "values": rows, "tables": tables}
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    return text if printable(text) == text else json.dumps(document, indent=2, allow_nan=False)
