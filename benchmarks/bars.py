"""Sets what a method is asked for beside what was measured: each seed, the mean, its interval, and whether it is met.

A folder of evidence lists its bars in ``evidence.toml``, each with ``method``, ``manipulation``, ``alpha`` and one of
``gold`` (the least part of gold's corrected accuracy) and ``retain`` (the most points of retain accuracy that may be
lost). They are asked of the mean over seeds, all or those among ``seeds``; how many seeds meet them by themselves is
told beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from measured import RETAIN, Results
from scipy import stats

__all__ = ["bars", "half_width"]


def half_width(values: Sequence[float]) -> float:
    """Return half the 95 % interval of a mean, by Student's t; of one value nothing is known, which is infinity."""
    if len(values) < 2:
        return float("inf")
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def bars(results: Results, asked: Sequence[dict[str, Any]]) -> list[str]:
    """Return the bars as a Markdown table."""
    lines = [
        "| asked of | with | at α | at least | measured, seed by seed | mean ± 95 % | met |",
        "| --- | --- | --: | --: | --- | --: | --- |",
    ]
    return lines + [_row(results, bar) for bar in asked]


def _row(results: Results, bar: dict[str, Any]) -> str:
    of_gold = "gold" in bar
    form, least = (".3f", bar["gold"]) if of_gold else ("+.2f", -bar["retain"])
    enough = least - 1e-9  # a ratio of decimals
    what = f"{least:g} of gold" if of_gold else f"{least:+g} points of retain accuracy"
    claim = results.each("", lambda seed: _value(results, bar, seed))
    met = [value >= enough for value in claim.values]
    mean, word = "–", "not measured"
    if claim.values:
        middle, half = statistics.fmean(claim.values), half_width(claim.values)
        mean = f"{middle:{form}}" + (f" ±{half:{form.lstrip('+')}}" if half < float("inf") else "")
        word = f"**{'yes' if middle >= enough else 'no'}**; by {sum(met)} of {len(met)} seeds alone"
    each = " ".join(f"{value:{form}}" for value in claim.values) or "–"
    of = f", seeds {', '.join(map(str, bar['seeds']))}" if "seeds" in bar else ""
    return f"| `{bar['method']}` | {bar['manipulation']}{of} | {bar['alpha']:g} | {what} | {each} | {mean} | {word} |"


def _value(results: Results, bar: dict[str, Any], seed: int) -> float:
    if seed not in bar.get("seeds", [seed]):
        raise LookupError(seed)
    manipulation, method, alpha = bar["manipulation"], bar["method"], bar["alpha"]
    if "gold" in bar:
        gold = results.value(manipulation, "gold", None, seed)
        return results.value(manipulation, method, alpha, seed) / gold
    before = results.value(manipulation, "original", None, seed, RETAIN)
    return 100 * (results.value(manipulation, method, alpha, seed, RETAIN) - before)
