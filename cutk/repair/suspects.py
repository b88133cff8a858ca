"""Further training samples that look like the bad ones: by what the methods compute anyway, or by a detector."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cutk.chance import derive_seed, isolated_rng
from cutk.errors import Caught, CellError, CutkError, printable
from cutk.learning.recipe import Progress
from cutk.problem.expansion import SUSPECT, require_suspicion
from cutk.problem.task import Log
from cutk.repair.judging import Seen
from cutk.repair.records import RepairReport, Suspect

if TYPE_CHECKING:
    from cutk.repair.keeping import Candidate
    from cutk.repair.problem import Problem
    from cutk.run.chosen import Chosen

__all__ = ["LEAST", "NOBODY", "SUSPECTED", "advice_on", "as_csv", "detected", "outcome", "probabilistic", "suspects_of"]

# A sample is suspect if its given label loses so much probability by the repair, or if its suspicion is so much. Of the
# latter so many are listed, or all that are suspected if they are more: nearly all samples reach the least where scores
# are ranks.
LEAST, _MOST = 0.1, 1000
NOBODY = f"no further training sample reached the score of {LEAST}, from which on they are ranked"
_LIKELY, _RANKED = "probability of being bad, by ", "suspicion, which is no probability, by "
# What a sample is whose suspicion is above one half, by whether that is a probability.
SUSPECTED = {True: "more likely bad than not", False: "suspected"}
# What is said of a ranking by a candidate that was no repair, and what to do about it.
_REJECTED = ", which wasn't taken"
ADVICE = "A detector asks the original alone: --suspects-by NAME, or cutk detect."
_DROP = "drop of the given label's probability, original to "
_COLUMNS = ("index", "name", "label", "original", "repaired", "score", "by")


def probabilistic(chosen: Chosen) -> bool:
    """Return whether what a detector says is meant as probabilities."""
    component: Any = chosen.entry.component
    return bool(component.probabilistic)


def suspects_of(problem: Problem, one: Candidate, *, taken: bool = True) -> list[Suspect]:
    """Rank samples that weren't listed by what a method suspects, or by what it took of the given label's probability.

    The latter where it says of none how suspicious it is. What a method unlearns with the bad samples is what they have
    in common; a sample that loses its label by it had that in common with them. One that wasn't ``taken`` is said to
    be: what it unlearnt may be something else.
    """
    name = one.judged.name if taken else f"{one.judged.name}{_REJECTED}"
    if one.suspicion is not None:
        by = _LIKELY if one.suspicion.probabilistic else _RANKED
        return _ranked(problem, one.suspicion.values, one.says, f"{by}{name}")
    return _ranked(problem, problem.says.train.of_label - one.says.train.of_label, one.says, f"{_DROP}{name}")


def detected(
    problem: Problem, detector: Chosen, seed: int, says: Seen | None = None, tell: Progress | None = None
) -> list[Suspect]:
    """Rank samples that weren't listed by how suspicious they are, as a detector says that asks the original.

    ``tell`` is told how far the detector is, if that says so.

    Raises:
        CellError: if it fails, or gives something else.
        UsageError: if it says that this can't be asked of it.
    """
    seed = derive_seed(seed, "detection")
    with isolated_rng(seed), Caught() as caught:
        found = detector.make().detect(problem.task.private(seed, Log(tell)))
    if isinstance(caught.error, CutkError):
        raise caught.error
    if caught.error is not None:
        raise CellError(f"The detector '{detector.name}' failed: {caught.reason}") from caught.error
    score = require_suspicion(found, len(problem.task.train), f"The detector '{detector.name}'")
    by = _LIKELY if probabilistic(detector) else _RANKED
    return _ranked(problem, score, says or problem.says, f"{by}{detector.name}")


def _ranked(problem: Problem, score: Tensor, says: Seen, by: str) -> list[Suspect]:
    """Return the samples that weren't listed and score high, float ``[N]``, the highest first."""
    rest, before, after = problem.task.retained, problem.says.train, says.train
    mine = score[rest]
    found = []
    order = mine.argsort(descending=True, stable=True)[: _most(mine) if by.startswith((_LIKELY, _RANKED)) else None]
    for at in order[mine[order] >= LEAST].tolist():
        index = int(rest[at])
        label = int(problem.task.train.labels[index])
        found.append(
            Suspect(
                index=problem.position(index),
                name=problem.names[index] if problem.names else "",
                label=problem.classes[label],
                original=problem.classes[int(before.predicted[index])],
                repaired=problem.classes[int(after.predicted[index])],
                score=round(float(mine[at]), 4),
                by=by,
            )
        )
    return found


def outcome(suspects: Sequence[Suspect]) -> str:
    """Return how many of them stand out, of one at least, how many there are, and by what."""
    by = suspects[0].by
    if by.startswith(_DROP):
        count = sum(one.original == one.label != one.repaired for one in suspects)
        said = f"{'has' if count == 1 else 'have'} lost the given label with the bad ones"
        by = by if by.endswith(_REJECTED) else ""
    else:
        count = sum(one.score > SUSPECT for one in suspects)
        said = f"{'is' if count == 1 else 'are'} {SUSPECTED[by.startswith(_LIKELY)]}"
    further = f"{count} further training sample{'' if count == 1 else 's'} {said}"
    return f"{further}; suspects.csv ranks {len(suspects)}{f', by the {by}' if by else ''}."


def _most(score: Tensor) -> int:
    return max(_MOST, int((score > SUSPECT).sum()))


def advice_on(report: RepairReport, suspects: Sequence[Suspect]) -> str:
    """Return what to do about a ranking by a candidate that was no repair; nothing if a detector was asked already."""
    return ADVICE if suspects and suspects[0].by.endswith(_REJECTED) and not report.unranked else ""


def as_csv(suspects: Iterable[Suspect], *, repaired: bool = True) -> str:
    """Return suspects as a table, the most suspicious first; where there was a repair, with what it predicts."""
    columns = [column for column in _COLUMNS if repaired or column != "repaired"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for one in suspects:
        values = (getattr(one, column) for column in columns)
        # A spreadsheet takes what begins so for a formula.
        writer.writerow([f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in values])
    return printable(out.getvalue())
