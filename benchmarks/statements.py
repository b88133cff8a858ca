"""Puts each statement of the paper beside what was measured.

    cutk report RUNS --format csv > results.csv
    python benchmarks/statements.py results.csv

The criteria stand here, in code, so that a verdict can be argued with. A statement holds, does not hold, or can't be
decided from these results.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Accuracies closer than this are called equal: about one standard deviation of a difference between two means here.
MARGIN = 0.05
# A method has recovered where its corrected accuracy is at least this part of gold's (paper, section 2.2).
PART = 0.9
# Outliers are the largest so many of the importance ratios. The very largest say nothing: where a parameter hardly
# matters for the rest, its ratio is whatever rounding makes of it.
OUTLIERS = 0.001

POISONING, CONFUSION = "badnet", "interclass-confusion"
BEFORE_MOST = 0.8


class Results:
    """Means over seeds, looked up by manipulation, method, α and metric."""

    def __init__(self, rows: Sequence[dict[str, str]]) -> None:
        self.values = {
            (row["manipulation"], row["method"], float(row["alpha"]) if row["alpha"] else None, row["metric"]): float(
                row["mean"]
            )
            for row in rows
            if row["mean"]  # a summary that isn't reached has none
        }
        self.alphas = sorted({alpha for _, _, alpha, _ in self.values if alpha is not None})

    def curve(self, manipulation: str, method: str, metric: str = "corrected_accuracy") -> list[float]:
        """Return the metric at each α."""
        return [self.values[manipulation, method, alpha, metric] for alpha in self.alphas]

    def reference(self, manipulation: str, which: str, metric: str = "corrected_accuracy") -> float:
        """Return the metric of the original or gold."""
        return self.values[manipulation, which, None, metric]

    def early(self, manipulation: str, method: str, metric: str = "corrected_accuracy") -> list[float]:
        """Return the metric at each α below 0.8."""
        curve = self.curve(manipulation, method, metric)
        return [value for alpha, value in zip(self.alphas, curve, strict=True) if alpha < BEFORE_MOST - 1e-9]

    def recovered(self, manipulation: str, method: str, largest: float) -> bool:
        """Say whether the method recovers at some α up to ``largest``."""
        enough = PART * self.reference(manipulation, "gold")
        curve = zip(self.alphas, self.curve(manipulation, method), strict=True)
        return any(value >= enough for alpha, value in curve if alpha <= largest + 1e-9)


def shown(values: Sequence[float]) -> str:
    """Return numbers in a row."""
    return " ".join(f"{value:.2f}" for value in values)


def verdict(holds: bool, measured: str) -> tuple[str, str]:
    """Return the word for it, and the numbers that it rests on."""
    return ("holds" if holds else "does not hold"), measured


METHODS = ("rewod", "cf", "ssd", "badt", "scrub")


def c1(r: Results) -> tuple[str, str]:
    """Poisoning: RewoD stays flat until at least 80 % is identified, and is best at α = 1."""
    original, curve = r.reference(POISONING, "original"), r.curve(POISONING, "rewod")
    flat = max(r.early(POISONING, "rewod")) <= original + 2 * MARGIN
    last = {method: r.curve(POISONING, method)[-1] for method in METHODS}
    best = last["rewod"] >= max(last.values()) - 1e-9
    return verdict(flat and best, f"original {original:.2f}; RewoD {shown(curve)}; best at α = 1: {best}")


def c2(r: Results) -> tuple[str, str]:
    """Poisoning: SSD recovers Acc_corr at α = 0.1."""
    gold, curve = r.reference(POISONING, "gold"), r.curve(POISONING, "ssd")
    return verdict(curve[0] >= PART * gold, f"0.9 · gold {PART * gold:.2f}; SSD {shown(curve)}")


def c3(r: Results) -> tuple[str, str]:
    """Poisoning: CF and BadT do not recover below 80 %; SCRUB does better than CF."""
    poor = not any(r.recovered(POISONING, m, BEFORE_MOST - 0.01) for m in ("cf", "badt"))
    scrub, cf = r.curve(POISONING, "scrub"), r.curve(POISONING, "cf")
    better = sum(scrub) > sum(cf) + MARGIN * len(cf)
    return verdict(poor and better, f"CF {shown(cf)}; BadT {shown(r.curve(POISONING, 'badt'))}; SCRUB {shown(scrub)}")


def c4(r: Results) -> tuple[str, str]:
    """IC: RewoD improves steadily with α."""
    curve = r.curve(CONFUSION, "rewod")
    steady = all(later >= earlier - MARGIN for earlier, later in itertools.pairwise(curve))
    return verdict(steady and curve[-1] > curve[0] + 2 * MARGIN, f"RewoD {shown(curve)}")


def c5(r: Results) -> tuple[str, str]:
    """IC: SSD gives no improvement at any α."""
    original, curve = r.reference(CONFUSION, "original"), r.curve(CONFUSION, "ssd")
    return verdict(max(curve) <= original + MARGIN, f"original {original:.2f}; SSD {shown(curve)}")


def c6(r: Results) -> tuple[str, str]:
    """IC: CF does better than SCRUB; BadT is poor in both settings."""
    cf, scrub = r.curve(CONFUSION, "cf"), r.curve(CONFUSION, "scrub")
    better = sum(cf) > sum(scrub) + MARGIN * len(cf)
    poor = not any(r.recovered(m, "badt", BEFORE_MOST) for m in (POISONING, CONFUSION))
    badt = f"BadT, IC {shown(r.curve(CONFUSION, 'badt'))}; BadT, poisoning {shown(r.curve(POISONING, 'badt'))}"
    return verdict(better and poor, f"CF {shown(cf)}; SCRUB {shown(scrub)}; {badt}")


def c7(r: Results) -> tuple[str, str]:
    """No method corrects both manipulations while α ≤ 0.8."""
    both = [m for m in METHODS if all(r.recovered(x, m, BEFORE_MOST) for x in (POISONING, CONFUSION))]
    return verdict(not both, f"methods that reach 0.9 · gold in both: {', '.join(both) or 'none'}")


def c8(r: Results) -> tuple[str, str]:
    """SSD costs retain accuracy, the others keep it."""
    lost = {}
    for method in METHODS:
        changes = [
            value - r.reference(m, "original", "retain_accuracy")
            for m in (POISONING, CONFUSION)
            for value in r.curve(m, method, "retain_accuracy")
        ]
        lost[method] = sum(changes) / len(changes)
    kept = all(change > -0.02 for method, change in lost.items() if method != "ssd")
    numbers = ", ".join(f"{method} {100 * change:+.1f}" for method, change in lost.items())
    return verdict(lost["ssd"] < -0.02 and kept, f"mean change in points: {numbers}")


def exceeded(counts: dict[float, float], part: float) -> float:
    """Return the lower edge of the bin that the largest ``part`` of a histogram reaches down to."""
    left = part * sum(counts.values())
    for edge in sorted(counts, reverse=True):
        left -= counts[edge]
        if left < 0:
            return edge
    return 0.0


def c9(r: Results) -> tuple[str, str]:
    """Importance ratios: a few outliers far higher for poisoning than for IC."""
    top, shares = {}, []
    for manipulation in (POISONING, CONFUSION):
        counts = {
            float(metric.partition("[")[2].rstrip("]")): value
            for (m, method, alpha, metric), value in r.values.items()
            if (m, method, alpha) == (manipulation, "ssd", r.alphas[-1]) and metric.startswith("importance_ratio[")
        }
        if not counts:
            return "not decidable here", "no importance ratios in these results"
        top[manipulation] = exceeded(counts, OUTLIERS)
        above = sum(count for edge, count in counts.items() if edge >= 1000)
        shares.append(f"{manipulation} {top[manipulation]:.0f} ({above:.0f} parameters above 1,000)")
    text = f"ratio that 0.1 % of the parameters exceed at α = 1: {'; '.join(shares)}"
    return verdict(top[POISONING] > 2 * top[CONFUSION], text)


STATEMENTS: tuple[Callable[[Results], tuple[str, str]], ...] = (c1, c2, c3, c4, c5, c6, c7, c8, c9)


def table(results: Results) -> str:
    """Return the statements as a Markdown table."""
    lines = ["| | the paper's statement | here | measured |", "| --- | --- | --- | --- |"]
    for statement in STATEMENTS:
        word, measured = statement(results)
        lines.append(f"| {statement.__name__.upper()} | {statement.__doc__} | **{word}** | {measured} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table for the CSV file that is named."""
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as file:
        print(table(Results(list(csv.DictReader(file)))))


if __name__ == "__main__":
    main()
