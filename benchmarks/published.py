"""What the paper publishes as numbers, beside what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from measured import CONFUSION, PASSES, POISONING, Results

# CIFAR-10 with ResNet-9: from table 1 the change of retain accuracy in points with either manipulation, from table 3
# minutes on an RTX 2080.
PUBLISHED = {
    "rewod": (0.75, 0.44, 49.93),
    "cf": (0.97, 0.79, 10.52),
    "ssd": (-8.94, -1.63, 1.80),
    "badt": (0.29, 0.23, 33.19),
    "scrub": (0.69, -3.27, 16.86),
}


def beside(results: Results) -> list[str]:
    """Return the paper's table 1 and 3, for CIFAR-10, beside what was measured.

    Cost is time in the paper and passes over the training set here, which no other work on the machine changes.
    """
    lines = [
        f"| mean over α | here: α, seeds | change of retain accuracy in points, {POISONING}: paper | here "
        f"| {CONFUSION}: paper | here | cost, part of RewoD's: paper (time) | here (passes) |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for method, (poisoning, confusion, minutes) in PUBLISHED.items():
        if not results.has_any(method):
            continue
        part = results.over(method)
        here = [
            _mean(part, lambda seed, of=manipulation, part=part, who=method: 100 * part.retained(of, who, seed))
            for manipulation in (POISONING, CONFUSION)
        ]
        both = results.over(method, "rewod")
        cost = _passes(both, method) / _passes(both, "rewod")
        alphas = ", ".join(f"{alpha:g}" for alpha in part.alphas)
        lines.append(
            f"| {method} | {alphas}; {', '.join(map(str, part.seeds))} "
            f"| {poisoning:+.2f} | {_shown(here[0], '+.2f')} | {confusion:+.2f} | {_shown(here[1], '+.2f')} "
            f"| {minutes / PUBLISHED['rewod'][2]:.2f} | {_shown(cost, '.2f')} |"
        )
    return lines


def _mean(part: Results, quantity: Callable[[int], float]) -> float:
    """Return the mean over the seeds for which all that it takes was measured; NaN of none."""
    values = part.each("", quantity).values
    return statistics.fmean(values) if values else math.nan


def _passes(part: Results, method: str) -> float:
    each = (POISONING, CONFUSION)
    return _mean(part, lambda seed: statistics.fmean(s for m in each for s in part.curve(m, method, seed, PASSES)))


def _shown(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"
