"""Metrics applied to models: what is measured, what went wrong, and what is kept of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cutk.components import Metric
from cutk.errors import Caught, CellError
from cutk.guard import watched
from cutk.problem.truth import Evaluation
from cutk.run.chosen import Chosen
from cutk.run.keys import key_of
from cutk.run.observer import Observer, tell_put_back
from cutk.run.records import Attempt, Measured

__all__ = ["Measurement", "measure", "unmeasured"]


@dataclass(frozen=True)
class Measurement:
    """A metric, on the whole affected domain or on that of one part of a composition."""

    metric: Chosen
    domain: str = ""

    @cached_property
    def identity(self) -> str:
        """What its values are filed under in stored runs."""
        return key_of(self.metric.identity)[:16] + (f"@{self.domain}" if self.domain else "")

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.metric.name}[{self.domain}]" if self.domain else self.metric.name

    def described(self) -> Measured:
        """Return what a reader of a stored run has to know of it."""
        component: Any = self.metric.entry.component
        low, high = (bound if math.isfinite(bound) else None for bound in component.bounds)  # JSON has no infinity
        return Measured(
            name=self.name,
            provider=self.metric.entry.provider.requirement,
            summary=component.summary() + (f" On the domain of {self.domain}." if self.domain else ""),
            higher_is_better=component.higher_is_better,
            bounds=(low, high),
            objective="" if self.domain else component.objective,
        )


def unmeasured(measurements: Iterable[Measurement], attempt: Attempt, *, retry: bool = True) -> bool:
    """Say whether ``attempt`` lacks something; with ``retry``, what failed counts as lacking."""
    there = attempt.metrics.keys() | (set() if retry else attempt.failed_metrics.keys())
    return any(measurement.identity not in there for measurement in measurements)


def measure(measurements: Iterable[Measurement], evaluation: Evaluation, attempt: Attempt, observer: Observer) -> None:
    """Measure what ``attempt`` lacks; a metric that fails leaves its reason, and no number."""
    attempt.failed_metrics = {}
    for measurement in measurements:
        identity = measurement.identity
        if identity in attempt.metrics:
            continue
        domains = [domain for domain in evaluation.truth.domains if domain.name == measurement.domain]
        view = evaluation.on(domains[0]) if domains else evaluation
        with Caught() as caught, watched(draws=False, trusted=measurement.metric.ours) as changed:
            metric: Metric = measurement.metric.make()
            value = metric.compute(view.private())
            if isinstance(value, Mapping):
                attempt.metrics[identity] = {str(label): _finite(part) for label, part in value.items()}
            else:
                attempt.metrics[identity] = None if value is None else _finite(value)
        tell_put_back(observer, f"The metric '{measurement.name}'", changed)
        if caught.error is not None:
            attempt.failed_metrics[identity] = caught.reason


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise CellError(f"the value is {value}")
    return float(value)
