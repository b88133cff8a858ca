"""Means over seeds, and summaries over α with what single seeds say of them."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from cutk.components import Summary
from cutk.errors import Caught
from cutk.guard import watched
from cutk.problem.truth import Curve
from cutk.run.observer import Observer, tell_put_back
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
    """Say why a manipulation did no damage that could be undone, if it didn't: the original is as good as gold.

    ``metric`` was measured on the affected domain.

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


def _by_seed(records: Iterable[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.seed, []).append(record)
    return found


def _means(records: Iterable[Record]) -> dict[str, float]:
    """Return each metric's mean over records, for the metrics that all of them have."""
    mine = [record.metrics for record in records]
    names = set.intersection(*map(set, mine)) if mine else ()
    return {name: statistics.fmean([metrics[name] for metrics in mine]) for name in sorted(names)}


def curve_of(at: Mapping[float, Sequence[Record]], original: Sequence[Record], gold: Sequence[Record]) -> Curve | None:
    """Return one unlearner's results against α (its records are ``at`` each), over the seeds and each seed's own.

    A seed that is missing anywhere is left out everywhere, since a mean over other seeds would be another curve; None
    where no seed has all.
    """
    alphas = sorted(at)
    parts = [_by_seed(part) for part in (original, gold, *(at[alpha] for alpha in alphas))]
    there = [set(part) for part in parts if part]
    seeds = sorted(set.intersection(*there)) if there else []

    def over(wanted: Sequence[int], inner: tuple[Curve, ...] = ()) -> Curve:
        of_original, of_gold, *others = (
            _means([record for seed in wanted for record in part.get(seed, ())]) for part in parts
        )
        values: dict[str, dict[float, float]] = {}
        for alpha, means in zip(alphas, others, strict=True):
            for name, value in means.items():
                values.setdefault(name, {})[alpha] = value
        return Curve(values, of_gold, of_original, inner)

    return over(seeds, tuple(over([seed]) for seed in seeds)) if seeds else None


class Summarised(BaseModel):
    """What one unlearner comes to over all α.

    ``metrics`` holds the summaries by name, None where the curve of the means never gets there; ``intervals`` the worst
    and the best that a single seed gives, of several. ``alphas`` and ``seeds`` say what they are of. ``note`` says why
    there is none: nothing was to be corrected, or the unlearner failed at an α for every seed.
    """

    dataset: str
    manipulation: str
    model: str
    recipe: str
    unlearner: str
    alphas: list[float] = []
    seeds: int = 0
    metrics: dict[str, float | None] = {}
    intervals: dict[str, tuple[float | None, float | None]] = {}
    note: str = ""


def summarise(
    summaries: Mapping[str, Callable[[], Summary]],
    records: Iterable[Record],
    measured: Iterable[Measured],
    observer: Observer | None = None,
    failed: Collection[tuple[str, str, float]] = (),
) -> tuple[list[Summarised], list[Failure]]:
    """Return summaries over α of the selected records, for each dataset, manipulation, model and unlearner.

    What failed is returned beside them. ``summaries`` makes each of them, by name; ``measured`` is what is known of the
    metrics. ``observer`` is told what a summary changed in the process, which is put back, and which metrics were
    measured of unlearned models and not of gold, so that there is no summary. ``failed`` are manipulation, unlearner
    and α of cells that gave no model: without one for any seed, the rest isn't the curve that was asked for.
    """
    aims = {metric.name: metric.higher_is_better for metric in measured if metric.objective == "unlearning"}
    found = _curves((record for record in records if record.selected), failed)
    whole = [(row, curve) for row, curve in found if not row.note]
    failures, lacking = [], dict[tuple[str, str], None]()
    observer = observer or Observer()
    for name, make in summaries.items():
        # What a summary prints is no part of what is asked for.
        with watched(draws=False) as changed, contextlib.redirect_stdout(sys.stderr):
            for row, curve in whole:
                with Caught() as caught:
                    summary = make()
                    lacking |= dict.fromkeys((name, metric) for metric in _lacking(summary, curve))
                    _summarise(name, summary, row, curve, aims)
                if caught.error is not None:
                    where = {part: getattr(row, part) for part in ("dataset", "manipulation", "model", "unlearner")}
                    about = {"metric": name, "reason": caught.reason, "traceback": caught.traceback}
                    failures.append(Failure(what="summary", role="unlearned", **where, **about))
        tell_put_back(observer, f"The summary '{name}'", changed)
    for name, metric in lacking:
        observer.warning(f"There is no '{name}' where gold has no '{metric}': a summary needs a value for gold.")
    return [row for row, _ in found], failures


def _curves(records: Iterable[Record], failed: Collection[tuple[str, str, float]]) -> list[tuple[Summarised, Curve]]:
    """Return a row to fill and its curve, for each unlearner in each setting; the row notes what that lacks."""
    settings: dict[tuple[str, ...], dict[str, dict[float | None, list[Record]]]] = {}
    for r in records:
        of_setting = settings.setdefault((r.dataset, r.manipulation, r.model, r.recipe), {})
        of_setting.setdefault(r.unlearner or r.role, {}).setdefault(r.alpha, []).append(r)
    found = []
    for (dataset, manipulation, model, recipe), methods in settings.items():
        original, gold = (methods.pop(role, {}).get(None, []) for role in ("original", "gold"))
        for unlearner, by_alpha in methods.items():
            at = {alpha: those for alpha, those in by_alpha.items() if alpha is not None}
            if (curve := curve_of(at, original, gold)) is not None:
                about = {"dataset": dataset, "manipulation": manipulation, "model": model, "recipe": recipe}
                seeds = max(1, len(curve.seeds))
                row = Summarised(**about, unlearner=unlearner, alphas=sorted(at), seeds=seeds)
                mine = {alpha for m, name, alpha in failed if (m, name) == (manipulation, unlearner)}
                if none := sorted(mine - set(at)):
                    row.note = (
                        f"Failed at α = {', '.join(f'{alpha:g}' for alpha in none)}: there is no model of any seed."
                    )
                found.append((row, curve))
    return found


def _lacking(summary: Summary, curve: Curve) -> list[str]:
    """Return the metrics that a summary needs, and that unlearned models have and gold, being there, has not."""
    return [needed for needed in summary.of if needed in curve.values and needed not in (curve.gold or curve.values)]


def _summarise(name: str, summary: Summary, row: Summarised, curve: Curve, aims: Mapping[str, bool]) -> None:
    """Fill in one summary of one curve, unless it needs what wasn't measured or there was nothing to correct."""
    if not all(needed in curve.gold and needed in curve.values for needed in summary.of):
        return
    lacking = {alpha for needed in summary.of for alpha in row.alphas if alpha not in curve.values[needed]}
    if lacking:  # a mean over some seeds, or some fractions, would be another curve
        where = ", ".join(f"{alpha:g}" for alpha in sorted(lacking))
        row.note = f"Not measured at α = {where}: a seed has no {' or no '.join(summary.of)} there."
        return
    for aim in (aim for aim in summary.of if aim in aims):
        original, gold = (
            stat([part[aim] for seed in curve.seeds if aim in (part := getattr(seed, reference))])
            for reference in ("original", "gold")
        )
        if note := nothing_to_correct(aim, original, gold, aims[aim]):
            row.note = note
            return
    value, *own = (_number(summary.summarise(of)) for of in (curve, *curve.seeds))
    row.metrics[name] = value
    if len(own) > 1:
        there = sorted((v for v in own if v is not None), reverse=not summary.higher_is_better)
        row.intervals[name] = (there[0] if len(there) == len(own) else None), (there[-1] if there else None)


def _number(value: float | None) -> float | None:
    if value is None or math.isfinite(value):
        return value
    raise ValueError(f"expected a finite number or None, got {value}")


def best_on_test(run: Run, identities: Iterable[str]) -> int | None:
    """Return the position of the attempt that is best on the test set in the mean of its objectives.

    ``identities`` are the metrics that take part, of which an attempt has all that any has: without one on which it is
    bad, it would be better.
    """
    signs = {i: 1 if m.higher_is_better else -1 for i in identities if (m := run.measured.get(i)) and m.objective}
    found = [
        {i: sign * v for i, sign in signs.items() if isinstance(v := attempt.metrics.get(i), float | int)}
        for attempt in run.attempts
    ]
    known = {i for each in found for i in each}
    values = {at: statistics.fmean(each.values()) for at, each in enumerate(found) if known and each.keys() == known}
    return max(values, key=values.__getitem__, default=None)
