"""What a benchmark hands out: records, failures, and summaries over α."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from cutk.errors import one_line
from cutk.problem.truth import Curve
from cutk.run.plan import Chosen

__all__ = ["GOLD", "ORIGINAL", "Reading", "Record", "Results", "failure", "means", "records_of", "summarise"]

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
        summaries: one for each dataset, manipulation, model and unlearner.
        computed: how many cells were computed, the others having been read.
    """

    plan: Record
    environment: Record
    records: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    summaries: list[Record] = field(default_factory=list)
    computed: int = 0

    def document(self) -> Record:
        """Return everything as one document: what ``cutk bench --json`` prints."""
        return {
            "cutk": version("cutk"),
            "plan": self.plan,
            "environment": self.environment,
            "records": self.records,
            "failures": self.failures,
            "summaries": self.summaries,
        }


def failure(what: str, labels: Mapping[str, Any], reason: str, trace: str = "") -> Record:
    """Return the entry for something that gave no number.

    Args:
        what: a ``cell``, a ``point`` of a grid whose cell has others, or a ``metric``.
        labels: where.
        reason: why, in one line.
        trace: the traceback.
    """
    return {**labels, "what": what, "reason": reason, "traceback": trace}


@dataclass(frozen=True)
class Reading:
    """What is wanted of a stored run.

    Attributes:
        metrics: name, direction and so on of each metric, by its identity.
        every: make a record of each grid point, not of the selected one alone.
        oracle: mark the point that is best on the test set.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    every: bool = False
    oracle: bool = False


def _oracle(attempts: Sequence[Record], reading: Reading) -> int | None:
    """Return the position of the attempt whose objectives are best in their mean, on the test set."""
    signs = {
        identity: 1 if metric["higher_is_better"] else -1
        for identity, metric in reading.metrics.items()
        if metric["objective"]
    }

    def value(position: int) -> float | None:
        measured = [attempts[position]["metrics"].get(identity) for identity in signs]
        there = [sign * v for sign, v in zip(signs.values(), measured, strict=True) if v is not None]
        return statistics.fmean(there) if there else None

    values = {position: v for position in range(len(attempts)) if (v := value(position)) is not None}
    return max(values, key=values.__getitem__, default=None)


def records_of(stored: Record, reading: Reading) -> tuple[list[Record], list[Record]]:
    """Turn a stored run into records, and what failed inside it into failures."""
    records, failures = [], []
    attempts, names = stored["attempts"], {identity: metric["name"] for identity, metric in reading.metrics.items()}
    oracle = _oracle(attempts, reading) if reading.oracle and stored["labels"]["alpha"] is not None else None

    def named(values: Record) -> Record:
        return {name: values[i] for i, name in names.items() if values.get(i) is not None}

    for position, attempt in enumerate(attempts):
        selected = position == stored["selected"]
        here = {**stored["labels"], "options": attempt["options"]}
        if attempt["error"]:
            failures.append(failure("point", here, attempt["error"], attempt["traceback"]))
            continue
        if not (selected or reading.every or position == oracle):
            continue
        records.append(
            {
                **here,
                "selected": selected,
                "oracle": position == oracle,
                "selection_score": attempt["score"],
                "metrics": named(attempt["metrics"]),
                "breakdowns": named(attempt["breakdowns"]),
                "seconds": attempt["seconds"],
                "provider": stored["provider"],
                "key": stored["key"],
            }
        )
        failures += [
            failure("metric", {**here, "metric": names[identity]}, reason)
            for identity, reason in attempt["failed_metrics"].items()
            if identity in names
        ]
    return records, failures


def means(records: Sequence[Record]) -> dict[str, float]:
    """Return each metric's mean over ``records``, for the metrics that all of them have."""
    names = set.intersection(*(set(record["metrics"]) for record in records)) if records else set()
    return {name: statistics.fmean(record["metrics"][name] for record in records) for name in sorted(names)}


def summarise(summaries: Sequence[Chosen], records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Compute summaries over α from the selected records, for each dataset, manipulation, model and unlearner.

    Returns:
        One record for each of them, and what failed.
    """
    chosen = [record for record in records if record["selected"]]
    setting = ("dataset", "manipulation", "model")
    curves: dict[tuple[str, ...], dict[str, dict[float | None, list[Record]]]] = {}
    for record in chosen:
        of_setting = curves.setdefault(tuple(record[name] for name in setting), {})
        of_setting.setdefault(record["unlearner"], {}).setdefault(record["alpha"], []).append(record)
    result, failures = [], []
    for names, unlearners in curves.items():
        references = [unlearners.get(name, {}).get(None, []) for name in (ORIGINAL, GOLD)]
        for unlearner, by_alpha in unlearners.items():
            # Where a seed is missing somewhere it is left out everywhere: a mean of other seeds is another curve.
            common = set.intersection(*({r["seed"] for r in part} for part in (*references, *by_alpha.values())))
            original, gold = (means([r for r in part if r["seed"] in common]) for part in references)
            labels = {**dict(zip(setting, names, strict=True)), "unlearner": unlearner}
            values: dict[str, dict[float, float]] = {}
            for alpha in sorted(alpha for alpha in by_alpha if alpha is not None):
                for name, value in means([r for r in by_alpha[alpha] if r["seed"] in common]).items():
                    values.setdefault(name, {})[alpha] = value
            if not values:
                continue  # a reference, which has no α
            found, failed = _summarise(summaries, Curve(values, gold, original), labels)
            result.append({**labels, "metrics": found})
            failures += failed
    return result, failures


def _summarise(
    summaries: Sequence[Chosen], curve: Curve, labels: Record
) -> tuple[dict[str, float | None], list[Record]]:
    values: dict[str, float | None] = {}
    failures = []
    for summary in summaries:
        try:
            component = summary.make()
            ready = all(name in curve.gold and name in curve.values for name in component.of)
            values[summary.name] = component.summarise(curve) if ready else None
        except (Exception, SystemExit) as error:
            here = {**labels, "alpha": None, "seed": None, "metric": summary.name}
            failures.append(failure("metric", here, one_line(error), traceback.format_exc()))
    return values, failures
