"""What the paper publishes as numbers, beside what was measured."""

from __future__ import annotations

import statistics

from measured import CONFUSION, POISONING, SECONDS, Results

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
    """Return the paper's table 1 and 3, for CIFAR-10, beside what was measured."""
    core = results.core
    lines = [
        f"| mean over α | change of retain accuracy in points, {POISONING}: paper | here | {CONFUSION}: paper | here "
        "| time, part of RewoD's: paper | here |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for method, (poisoning, confusion, minutes) in PUBLISHED.items():
        if method not in results.methods:
            continue
        here = [
            statistics.fmean(100 * core.retained(manipulation, method, seed) for seed in core.seeds)
            for manipulation in (POISONING, CONFUSION)
        ]
        part = _seconds(core, method) / _seconds(core, "rewod") if "rewod" in results.methods else float("nan")
        lines.append(
            f"| {method} | {poisoning:+.2f} | {here[0]:+.2f} | {confusion:+.2f} | {here[1]:+.2f} "
            f"| {minutes / PUBLISHED['rewod'][2]:.2f} | {part:.2f} |"
        )
    return lines


def _seconds(part: Results, method: str) -> float:
    return statistics.fmean(
        statistics.fmean(part.curve(m, method, seed, SECONDS)) for m in (POISONING, CONFUSION) for seed in part.seeds
    )
