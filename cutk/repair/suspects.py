"""Further training samples that look like the bad ones, by what the methods compute anyway."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cutk.errors import printable
from cutk.repair.judging import Seen
from cutk.repair.records import Suspect

if TYPE_CHECKING:
    from cutk.repair.repairing import Problem

__all__ = ["as_csv", "suspects_of"]

# A sample is suspect if its given label loses so much probability by the repair; so many are listed at most.
_LEAST, _MOST = 0.1, 1000
_COLUMNS = ("index", "name", "label", "original", "repaired", "score", "by")


def suspects_of(problem: Problem, says: Seen, method: str) -> list[Suspect]:
    """Rank samples that weren't listed by how much of the given label's probability a method took.

    What a method unlearns with the bad samples is what they have in common; a sample that loses its label by it had
    that in common with them.
    """
    rest, before, after = problem.task.retained, problem.says.train, says.train
    drop = (before.of_label - after.of_label)[rest]
    found = []
    for at in drop.argsort(descending=True, stable=True)[:_MOST].tolist():
        if float(drop[at]) < _LEAST:
            break
        index = int(rest[at])
        label = int(problem.task.train.labels[index])
        found.append(
            Suspect(
                index=index,
                name=problem.names[index] if problem.names else "",
                label=problem.classes[label],
                original=problem.classes[int(before.predicted[index])],
                repaired=problem.classes[int(after.predicted[index])],
                score=round(float(drop[at]), 4),
                by=f"drop of the given label's probability, original to {method}",
            )
        )
    return found


def as_csv(suspects: Iterable[Suspect]) -> str:
    """Return suspects as a table, the most suspicious first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in suspects:
        values = (getattr(one, column) for column in _COLUMNS)
        # A spreadsheet takes what begins so for a formula.
        writer.writerow([f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in values])
    return printable(out.getvalue())
