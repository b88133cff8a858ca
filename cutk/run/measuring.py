"""Metrics applied to models: what is measured, what went wrong, and what is kept of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cutk.components import Breakdown, Metric
from cutk.errors import CellError, one_line
from cutk.problem.truth import Evaluation
from cutk.run.plan import Chosen
from cutk.run.store import key_of
from cutk.run.unlearning import Attempt

__all__ = ["described", "identity_of", "measure", "unmeasured"]


def identity_of(metric: Chosen) -> str:
    """Return what a metric with these options is called in stored runs."""
    return key_of(metric.identity())[:16]


def described(metrics: Iterable[Chosen]) -> dict[str, dict[str, Any]]:
    """Return what a reader of a stored run has to know of each metric, by its identity."""
    result = {}
    for metric in metrics:
        component: Any = metric.entry.component
        result[identity_of(metric)] = {
            "name": metric.name,
            "provider": metric.entry.provider.requirement,
            "summary": component.summary(),
            "higher_is_better": component.higher_is_better,
            # JSON has no infinity, so an open end is none.
            "bounds": [bound if math.isfinite(bound) else None for bound in component.bounds],
            "objective": component.objective,
        }
    return result


def unmeasured(metrics: Iterable[Chosen], attempt: Attempt, *, retry: bool = True) -> bool:
    """Say whether ``attempt`` lacks a metric; with ``retry``, one that failed counts as lacking."""
    there = attempt.metrics.keys() | attempt.breakdowns.keys()
    if not retry:
        there |= attempt.failed_metrics.keys()
    return any(identity_of(metric) not in there for metric in metrics)


def measure(metrics: Iterable[Chosen], evaluation: Evaluation, attempt: Attempt) -> None:
    """Compute every metric that ``attempt`` lacks; one that fails leaves its reason, and no number."""
    attempt.failed_metrics = {}
    for metric in metrics:
        identity = identity_of(metric)
        if identity in attempt.metrics or identity in attempt.breakdowns:
            continue
        try:
            component: Metric = metric.make()
            if isinstance(component, Breakdown):
                attempt.breakdowns[identity] = _finite_values(component.breakdown(evaluation))
            else:
                value = component.compute(evaluation)
                attempt.metrics[identity] = None if value is None else _finite(value)
        except (Exception, SystemExit) as error:
            attempt.failed_metrics[identity] = one_line(error)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise CellError(f"the value is {value}")
    return float(value)


def _finite_values(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {str(label): _finite(value) for label, value in values.items()}
