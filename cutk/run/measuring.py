"""Metrics applied to models: what is measured, what went wrong, and what is kept of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cutk.components import Metric
from cutk.errors import Caught, CellError
from cutk.guard import watched
from cutk.problem.truth import Evaluation
from cutk.run.plan import Chosen
from cutk.run.records import Attempt, Measured
from cutk.run.store import key_of

__all__ = ["Measurement", "described", "measure", "unmeasured"]


@dataclass(frozen=True)
class Measurement:
    """A metric, on the whole affected domain or on that of one part of a composition."""

    metric: Chosen
    domain: str = ""

    @cached_property
    def identity(self) -> str:
        """What its values are filed under in stored runs."""
        return key_of(self.metric.identity.model_dump(mode="json"))[:16] + (f"@{self.domain}" if self.domain else "")

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.metric.name}[{self.domain}]" if self.domain else self.metric.name


def described(measurement: Measurement) -> Measured:
    """Return what a reader of a stored run has to know of what was measured."""
    component: Any = measurement.metric.entry.component
    low, high = (bound if math.isfinite(bound) else None for bound in component.bounds)  # JSON has no infinity
    return Measured(
        name=measurement.name,
        provider=measurement.metric.entry.provider.requirement,
        summary=component.summary() + (f" On the domain of {measurement.domain}." if measurement.domain else ""),
        higher_is_better=component.higher_is_better,
        bounds=(low, high),
        objective="" if measurement.domain else component.objective,
    )


def unmeasured(measurements: Iterable[Measurement], attempt: Attempt, *, retry: bool = True) -> bool:
    """Say whether ``attempt`` lacks something; with ``retry``, what failed counts as lacking."""
    there = attempt.metrics.keys() | (set() if retry else attempt.failed_metrics.keys())
    return any(measurement.identity not in there for measurement in measurements)


def measure(
    measurements: Iterable[Measurement],
    evaluation: Evaluation,
    attempt: Attempt,
    note: Callable[[Sequence[str], str], None],
) -> None:
    """Measure what ``attempt`` lacks; a metric that fails leaves its reason, and no number.

    Args:
        measurements: what to measure.
        evaluation: the model under the evaluator's eyes.
        attempt: where values and reasons go.
        note: told what a metric changed outside the evaluation, and which one it was.
    """
    attempt.failed_metrics = {}
    for measurement in measurements:
        identity = measurement.identity
        if identity in attempt.metrics:
            continue
        view = evaluation
        for domain in evaluation.truth.domains:
            if domain.name == measurement.domain:
                view = evaluation.on(domain)
        with Caught() as caught, watched(draws=False) as changed:
            component: Metric = measurement.metric.make()
            attempt.metrics[identity] = _finite(component.compute(view.private()))
        note(changed, f"The metric '{measurement.name}'")
        if caught.error is not None:
            attempt.failed_metrics[identity] = caught.reason


def _finite(value: float | Mapping[str, float] | None) -> float | dict[str, float] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(label): _number(part) for label, part in value.items()}
    return _number(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise CellError(f"the value is {value}")
    return float(value)
