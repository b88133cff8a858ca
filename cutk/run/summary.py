"""Means over seeds, and summaries over α with what single seeds say of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from cutk.components import Summary
from cutk.errors import Caught
from cutk.problem.truth import Curve
from cutk.run.records import Failure, Measured, Record, Run

__all__ = ["Stat", "Summarised", "best_on_test", "curve_of", "nothing_to_correct", "stat", "summarise"]

# A method has recovered where it is at least this part of gold (paper, section 2.2).
RECOVERED = 0.9


class Stat(NamedTuple):
    """A mean over seeds, the sample standard deviation (None for one value), how many, the smallest and the largest."""

    mean: float
    sd: float | None
    n: int
    low: float
    high: float

    def overlaps(self, other: Stat) -> bool:
        """Whether a value may lie between smallest and largest of both."""
        return self.low <= other.high and other.low <= self.high


def stat(values: Sequence[float]) -> Stat | None:
    """Return the statistics of ``values``, None if there are none.

    >>> stat([1.0, 3.0])
    Stat(mean=2.0, sd=1.4142135623730951, n=2, low=1.0, high=3.0)
    """
    if not values:
        return None
    mean, n, low, high = statistics.fmean(values), len(values), min(values), max(values)
    # statistics.stdev computes in fractions, which takes most of the time of a report.
    spread = 0.0 if low == high else math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Stat(mean, spread if n > 1 else None, n, low, high)


def nothing_to_correct(metric: str, original: Stat | None, gold: Stat | None, higher_is_better: bool = True) -> str:
    """Say that a manipulation did no damage that could be undone: that the original is as good as gold.

    Args:
        metric: what was measured, on the affected domain.
        original: of the original model.
        gold: of the gold model.
        higher_is_better: the metric's direction.

    Returns:
        Why, or nothing if there is damage, or it can't be told.

    >>> nothing_to_correct("accuracy", stat([0.93, 0.95]), stat([0.98, 1.0]))
    "Nothing to correct here: the original model's accuracy, 0.940, is at least 0.9 of gold's, 0.990."
    """
    if original is None or gold is None:
        return ""
    what = f"Nothing to correct here: the original model's {metric.replace('_', ' ')}"
    if higher_is_better and original.mean >= RECOVERED * gold.mean:
        return f"{what}, {original.mean:.3f}, is at least {RECOVERED:g} of gold's, {gold.mean:.3f}."
    if original.high >= gold.low if higher_is_better else original.low <= gold.high:
        ranges = (f"{of.low:.3f} to {of.high:.3f}" for of in (original, gold))
        return f"{what} lies within the spread of gold's over the seeds ({' and '.join(ranges)})."
    return ""


def _means(records: Sequence[Record]) -> dict[str, float]:
    """Return each metric's mean over ``records``, for the metrics that all of them have."""
    names = set.intersection(*(set(record.metrics) for record in records)) if records else set()
    return {name: statistics.fmean(record.metrics[name] for record in records) for name in sorted(names)}


def curve_of(at: Mapping[float, Sequence[Record]], original: Sequence[Record], gold: Sequence[Record]) -> Curve | None:
    """Return one unlearner's results against α, averaged over seeds, and each seed's own.

    Args:
        at: its records at each α.
        original: the records of the original model, one for each seed.
        gold: those of the gold model.

    Returns:
        None where no seed has all of them: a seed that is missing anywhere is left out everywhere, since a mean over
        other seeds would be another curve.
    """
    parts = [part for part in (original, gold, *at.values()) if part]
    seeds = sorted(set.intersection(*({record.seed for record in part} for part in parts))) if parts else []

    def over(wanted: Sequence[int], inner: tuple[Curve, ...] = ()) -> Curve:
        values: dict[str, dict[float, float]] = {}
        for alpha in sorted(at):
            for name, value in _means([r for r in at[alpha] if r.seed in wanted]).items():
                values.setdefault(name, {})[alpha] = value
        theirs, before = (_means([r for r in part if r.seed in wanted]) for part in (gold, original))
        return Curve(values, theirs, before, inner)

    return over(seeds, tuple(over([seed]) for seed in seeds)) if seeds else None


class Summarised(BaseModel):
    """What one unlearner comes to over all α.

    Attributes:
        metrics: the summaries by name; None where the curve of the means never gets there. There is none where there
            was nothing to correct.
        intervals: the worst and the best that a single seed gives, for summaries over several seeds; None stands for a
            seed that never gets there.
        note: why there is no summary.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    manipulation: str
    model: str
    recipe: str
    unlearner: str
    metrics: dict[str, float | None] = {}
    intervals: dict[str, tuple[float | None, float | None]] = {}
    note: str = ""


def summarise(
    summaries: Mapping[str, Callable[[], Summary]], records: Iterable[Record], measured: Iterable[Measured]
) -> tuple[list[Summarised], list[Failure]]:
    """Compute summaries over α from the selected records, for each dataset, manipulation, model and unlearner.

    Args:
        summaries: what makes each of them, by name.
        records: all of them; those that no selector took are left out.
        measured: what is known of their metrics.

    Returns:
        The summaries, and what failed.
    """
    aims = {metric.name: metric.higher_is_better for metric in measured if metric.objective == "unlearning"}
    settings: dict[tuple[str, ...], dict[tuple[str, str], dict[float | None, list[Record]]]] = {}
    for r in records:
        if r.selected:
            of_setting = settings.setdefault((r.dataset, r.manipulation, r.model, r.recipe), {})
            of_setting.setdefault((r.role, r.unlearner or ""), {}).setdefault(r.alpha, []).append(r)
    result, failures = [], []
    for (dataset, manipulation, model, recipe), methods in settings.items():
        original, gold = (methods.get((role, ""), {}).get(None, []) for role in ("original", "gold"))
        for (role, unlearner), by_alpha in methods.items():
            at = {alpha: found for alpha, found in by_alpha.items() if alpha is not None}
            if role != "unlearned" or (curve := curve_of(at, original, gold)) is None:
                continue
            where = {"dataset": dataset, "manipulation": manipulation, "model": model, "unlearner": unlearner}
            metrics: dict[str, float | None] = {}
            intervals, note = {}, ""
            for name, make in summaries.items():
                with Caught() as caught:
                    summary = make()
                    if not all(needed in curve.gold and needed in curve.values for needed in summary.of):
                        continue
                    if unneeded := _unneeded(summary, curve, aims):
                        note = unneeded
                        continue
                    value, *own = (_number(summary.summarise(of)) for of in (curve, *curve.seeds))
                    metrics[name] = value
                    if len(own) > 1:
                        intervals[name] = _worst_and_best(own, summary.higher_is_better)
                if caught.error is not None:
                    about = {"metric": name, "reason": caught.reason, "traceback": caught.traceback}
                    failures.append(Failure(what="summary", role="unlearned", **where, **about))
            result.append(Summarised(**where, recipe=recipe, metrics=metrics, intervals=intervals, note=note))
    return result, failures


def _unneeded(summary: Summary, curve: Curve, aims: Mapping[str, bool]) -> str:
    """Say why a summary of how far the damage was undone means nothing: where there was none."""
    for name in (name for name in summary.of if name in aims):
        original, gold = (
            stat([part[name] for seed in curve.seeds if name in (part := getattr(seed, reference))])
            for reference in ("original", "gold")
        )
        if reason := nothing_to_correct(name, original, gold, aims[name]):
            return reason
    return ""


def _number(value: float | None) -> float | None:
    if value is None or math.isfinite(value):
        return value
    raise ValueError(f"expected a finite number or None, got {value}")


def _worst_and_best(values: Sequence[float | None], higher_is_better: bool) -> tuple[float | None, float | None]:
    there = sorted((value for value in values if value is not None), reverse=not higher_is_better)
    if not there:
        return None, None
    return (None if len(there) < len(values) else there[0]), there[-1]


def best_on_test(run: Run, identities: Iterable[str]) -> int | None:
    """Return the position of the attempt that is best on the test set, for the oracle's row.

    Args:
        run: an unlearner's run.
        identities: the metrics that take part. Of these the objectives count, in their mean.
    """
    signs = {i: 1 if m.higher_is_better else -1 for i in identities if (m := run.measured.get(i)) and m.objective}
    values: dict[int, float] = {}
    for position, attempt in enumerate(run.attempts):
        there = [sign * v for i, sign in signs.items() if isinstance(v := attempt.metrics.get(i), float | int)]
        if there:
            values[position] = statistics.fmean(there)
    return max(values, key=values.__getitem__, default=None)
