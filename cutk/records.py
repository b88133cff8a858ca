"""What a benchmark hands out: records, failures, and summaries over α."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cutk.errors import one_line
from cutk.evaluation import Curve
from cutk.plan import Setup

__all__ = ["GOLD", "ORIGINAL", "Record", "Results", "failure", "means", "records_of", "summarise"]

# The reference rows: records without an α carry these in place of an unlearner's name.
ORIGINAL, GOLD = "none", "gold"

Record = dict[str, Any]


@dataclass
class Results:
    """What a benchmark found.

    Attributes:
        plan: the plan as it was run.
        environment: versions, device, precision, threads.
        records: one for each model; the original and gold stand as ``none`` and ``gold`` with α None.
        failures: one for each failed cell, grid point or metric, with its ``reason``.
        summaries: one for each manipulation and unlearner.
        computed: how many cells were computed, the others having been read.
    """

    plan: Record
    environment: Record
    records: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    summaries: list[Record] = field(default_factory=list)
    computed: int = 0


def failure(labels: Mapping[str, Any], reason: str, trace: str = "") -> Record:
    """Return the entry for something that gave no number."""
    return {**labels, "reason": reason, "traceback": trace}


def records_of(
    stored: Record, labels: Mapping[str, Any], metrics: Mapping[str, str], provider: str, every: bool
) -> tuple[list[Record], list[Record]]:
    """Turn a stored run into records, and what failed inside it into failures.

    Args:
        stored: the run.
        labels: dataset, manipulation, model, unlearner, α and seed.
        metrics: for the identity of each metric of the plan, its name.
        provider: the distribution that computed the model.
        every: whether each grid point is a record, or the selected one alone.
    """
    records, failures = [], []
    for position, attempt in enumerate(stored["attempts"]):
        selected = position == stored["selected"]
        here = {**labels, "options": attempt["options"]}
        if attempt["error"]:
            failures.append(failure(here, attempt["error"], attempt["traceback"]))
            continue
        if not (selected or every):
            continue
        measured = {name: attempt["metrics"].get(identity) for identity, name in metrics.items()}
        records.append(
            {
                **here,
                "selected": selected,
                "selection_score": attempt["score"],
                "metrics": {name: value for name, value in measured.items() if value is not None},
                "seconds": attempt["seconds"],
                "provider": provider,
            }
        )
        failures += [
            failure({**here, "metric": metrics[identity]}, reason)
            for identity, reason in attempt["failed_metrics"].items()
            if identity in metrics
        ]
    return records, failures


def means(records: Sequence[Record]) -> dict[str, float]:
    """Return each metric's mean over ``records``, for the metrics that all of them have."""
    names = set.intersection(*(set(record["metrics"]) for record in records)) if records else set()
    return {name: statistics.fmean(record["metrics"][name] for record in records) for name in sorted(names)}


def summarise(setup: Setup, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Compute the plan's summaries from the selected records, for each manipulation and unlearner.

    Returns:
        The summaries, and what failed among them.
    """
    chosen = [record for record in records if record["selected"]]
    result, failures = [], []
    for manipulation in setup.manipulations:
        mine = [record for record in chosen if record["manipulation"] == manipulation.name]

        def at(unlearner: str, alpha: float | None, mine: list[Record] = mine) -> dict[str, float]:
            return means([r for r in mine if (r["unlearner"], r["alpha"]) == (unlearner, alpha)])

        original, gold = at(ORIGINAL, None), at(GOLD, None)
        for unlearner in setup.unlearners:
            curve: dict[str, dict[float, float]] = {}
            for alpha in sorted(set(setup.plan.alphas)):
                for name, value in at(unlearner.name, alpha).items():
                    curve.setdefault(name, {})[alpha] = value
            values: dict[str, float | None] = {}
            for summary in setup.summaries:
                component = summary.make()
                ready = all(name in gold and name in curve for name in component.of)
                try:
                    values[summary.name] = component.summarise(Curve(curve, gold, original)) if ready else None
                except Exception as error:
                    labels = {"manipulation": manipulation.name, "unlearner": unlearner.name, "metric": summary.name}
                    everywhere = {"dataset": setup.dataset.name, "model": setup.model.name, "alpha": None, "seed": None}
                    failures.append(failure({**everywhere, **labels}, one_line(error), traceback.format_exc()))
            result.append({"manipulation": manipulation.name, "unlearner": unlearner.name, "metrics": values})
    return result, failures
