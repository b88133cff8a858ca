"""Of two records of one model, one that holds what either of them measured."""

from __future__ import annotations

from cutk.run.records import Attempt, Attempts, Run, canonical


def joined(new: Run, old: Run) -> Run:
    """Return ``new`` with what ``old``, which is of the same weights, measured besides.

    Where both have a value, that of ``new`` counts, and where one failed, the other's. Attempts are the same if their
    options are.
    """
    there = {canonical(attempt.options): attempt for attempt in old.attempts}
    attempts = [_joined(attempt, there.get(canonical(attempt.options))) for attempt in new.attempts]
    return new.model_copy(update={"attempts": Attempts(attempts), "measured": old.measured | new.measured})


def _joined(new: Attempt, old: Attempt | None) -> Attempt:
    if old is None or old.error or new.error:
        return new
    metrics = old.metrics | new.metrics
    failed = {name: why for name, why in (old.failed_metrics | new.failed_metrics).items() if name not in metrics}
    return new.model_copy(update={"metrics": metrics, "failed_metrics": failed})


def holds(there: Run, run: Run) -> bool:
    """Say whether ``there`` has a value, or a reason for none, wherever ``run`` has a value."""
    known = {canonical(a.options): a.metrics.keys() | a.failed_metrics.keys() for a in there.attempts}
    return all(a.metrics.keys() <= known.get(canonical(a.options), set()) for a in run.attempts)
