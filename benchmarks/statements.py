"""Puts each statement of the paper beside what was measured.

    cutk bench --preset laptop/digits --json > results.json
    python benchmarks/statements.py results.json

The criteria stand here, in code, so that a verdict can be argued with. Each statement comes down to quantities that are
positive where it is true, one value for each seed. It **holds** where the 95 % interval of each mean (Student's
t over the seeds) lies above zero, **does not hold** where one of them lies below, and is **undecided** otherwise.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

# Accuracies closer than this are called equal.
MARGIN = 0.05
# A method has recovered where its corrected accuracy is at least this part of gold's (paper, section 2.2).
PART = 0.9
# What a method may lose of its retain accuracy and still be said to keep it.
KEPT = 0.02
# Outliers are the largest so many of the importance ratios. The very largest say nothing: where a parameter hardly
# matters for the rest, its ratio is whatever rounding makes of it.
OUTLIERS = 0.001
BEFORE_MOST = 0.8

POISONING, CONFUSION = "badnet", "interclass-confusion"
METHODS = ("rewod", "cf", "ssd", "badt", "scrub", "scrub:step")
SCRUBS = ("scrub", "scrub:step")
CORRECTED, RETAIN = "corrected_accuracy", "retain_accuracy"


class Claim(NamedTuple):
    """A quantity that is positive where a statement is true, for each seed."""

    what: str
    values: list[float]


class Results:
    """The selected records of a benchmark, looked up by manipulation, method, α and seed."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        selected = [record for record in records if record["selected"]]
        self.records = {(r["manipulation"], r["unlearner"] or r["role"], r["alpha"], r["seed"]): r for r in selected}
        self.alphas = sorted({r["alpha"] for r in selected if r["alpha"] is not None})
        self.seeds = sorted({r["seed"] for r in selected})

    def value(self, manipulation: str, method: str, alpha: float | None, seed: int, metric: str = CORRECTED) -> float:
        """Return one measured value."""
        return float(self.records[manipulation, method, alpha, seed]["metrics"][metric])

    def curve(
        self, manipulation: str, method: str, seed: int, metric: str = CORRECTED, below: float = 2.0
    ) -> list[float]:
        """Return the metric at each α below a limit."""
        return [self.value(manipulation, method, a, seed, metric) for a in self.alphas if a < below - 1e-9]

    def each(self, what: str, quantity: Callable[[int], float]) -> Claim:
        """Return a claim from what it comes to for a seed."""
        return Claim(what, [quantity(seed) for seed in self.seeds])

    def bar(self, manipulation: str, seed: int) -> float:
        """Return the corrected accuracy from which on a method has recovered."""
        return PART * self.value(manipulation, "gold", None, seed)

    def mean(self, manipulation: str, method: str) -> str:
        """Return a method's mean curve, for people to read."""
        columns = zip(*(self.curve(manipulation, method, seed) for seed in self.seeds), strict=True)
        return " ".join(f"{statistics.fmean(column):.2f}" for column in columns)


def c1(r: Results) -> Iterator[Claim]:
    """Poisoning: RewoD stays flat until at least 80 % is identified, and is best at α = 1."""
    others = [method for method in METHODS if method != "rewod"]

    def flat(seed: int) -> float:
        highest = max(r.curve(POISONING, "rewod", seed, below=BEFORE_MOST))
        return r.value(POISONING, "original", None, seed) + 2 * MARGIN - highest

    def best(seed: int) -> float:
        last = {method: r.value(POISONING, method, r.alphas[-1], seed) for method in METHODS}
        return last["rewod"] - max(last[method] for method in others)

    yield r.each(f"original + {2 * MARGIN:g} − RewoD's highest below 0.8", flat)
    yield r.each("RewoD − best other at α = 1", best)


def c2(r: Results) -> Iterator[Claim]:
    """Poisoning: SSD recovers Acc_corr at α = 0.1."""
    first = r.alphas[0]
    yield r.each("SSD at α = 0.1 − 0.9 · gold", lambda s: r.value(POISONING, "ssd", first, s) - r.bar(POISONING, s))


def c3(r: Results) -> Iterator[Claim]:
    """Poisoning: CF and BadT do not recover below 80 %; SCRUB does better than CF."""
    for method in ("cf", "badt"):
        yield r.each(
            f"0.9 · gold − {method}'s highest below 0.8",
            lambda s, m=method: r.bar(POISONING, s) - max(r.curve(POISONING, m, s, below=BEFORE_MOST)),
        )
    yield from _better(r, POISONING, SCRUBS, "cf")


def _better(r: Results, manipulation: str, these: tuple[str, ...], other: str, sign: int = 1) -> Iterator[Claim]:
    for method in these:
        names = (method, other) if sign > 0 else (other, method)
        yield r.each(
            f"{names[0]} − {names[1]}, mean over α",
            lambda s, m=method: (
                sign
                * (statistics.fmean(r.curve(manipulation, m, s)) - statistics.fmean(r.curve(manipulation, other, s)))
            ),
        )


def c4(r: Results) -> Iterator[Claim]:
    """IC: RewoD improves steadily with α."""
    yield r.each(
        "RewoD's rank correlation with α − 0.8",
        lambda s: float(stats.spearmanr(r.alphas, r.curve(CONFUSION, "rewod", s)).statistic) - 0.8,
    )
    yield r.each(
        "RewoD at the largest α − at the smallest",
        lambda s: r.curve(CONFUSION, "rewod", s)[-1] - r.curve(CONFUSION, "rewod", s)[0],
    )


def c5(r: Results) -> Iterator[Claim]:
    """IC: SSD gives no improvement at any α."""
    yield r.each(
        f"original + {MARGIN:g} − SSD's highest",
        lambda s: r.value(CONFUSION, "original", None, s) + MARGIN - max(r.curve(CONFUSION, "ssd", s)),
    )


def c6(r: Results) -> Iterator[Claim]:
    """IC: CF does better than SCRUB; BadT is poor in both settings."""
    yield from _better(r, CONFUSION, SCRUBS, "cf", sign=-1)
    for manipulation in (POISONING, CONFUSION):
        yield r.each(
            f"0.9 · gold − badt's highest up to 0.8, {manipulation}",
            lambda s, m=manipulation: r.bar(m, s) - max(r.curve(m, "badt", s, below=BEFORE_MOST + 1e-6)),
        )


def c7(r: Results) -> Iterator[Claim]:
    """No method corrects both manipulations while α ≤ 0.8."""

    def short(method: str, seed: int) -> float:
        return max(
            r.bar(m, seed) - max(r.curve(m, method, seed, below=BEFORE_MOST + 1e-6)) for m in (POISONING, CONFUSION)
        )

    for method in METHODS:
        yield r.each(f"what {method} lacks to 0.9 · gold in the worse of the two", lambda s, m=method: short(m, s))


def c8(r: Results) -> Iterator[Claim]:
    """SSD costs retain accuracy, the others keep it."""

    def change(method: str, manipulation: str, seed: int) -> float:
        after = statistics.fmean(r.curve(manipulation, method, seed, RETAIN))
        return after - r.value(manipulation, "original", None, seed, RETAIN)

    for manipulation in (POISONING, CONFUSION):
        for method in METHODS:
            if method == "ssd":
                yield r.each(
                    f"what ssd loses − {KEPT:g}, {manipulation}", lambda s, x=manipulation: -change("ssd", x, s) - KEPT
                )
            else:
                yield r.each(
                    f"{KEPT:g} − what {method} loses, {manipulation}",
                    lambda s, m=method, x=manipulation: change(m, x, s) + KEPT,
                )


def exceeded(counts: dict[str, float], part: float) -> float:
    """Return the lower edge of the bin that the largest ``part`` of a histogram reaches down to."""
    left = part * sum(counts.values())
    for edge in sorted(counts, key=float, reverse=True):
        left -= counts[edge]
        if left < 0:
            return float(edge)
    return 0.0


def c9(r: Results) -> Iterator[Claim]:
    """Importance ratios: a few outliers far higher for poisoning than for IC."""
    seed = r.seeds[0]

    def identified(manipulation: str, alpha: float) -> int:
        return int(r.records[manipulation, "ssd", alpha, seed]["identified"])

    # The ratio depends on how many samples S_f has, so equally many are compared.
    pairs = [(p, c) for p in r.alphas for c in r.alphas]
    p, c = min(pairs, key=lambda pair: (abs(identified(POISONING, pair[0]) - identified(CONFUSION, pair[1])), -pair[0]))

    def top(manipulation: str, alpha: float, s: int) -> float:
        return exceeded(r.records[manipulation, "ssd", alpha, s]["breakdowns"]["importance_ratio"], OUTLIERS)

    sizes = f"{identified(POISONING, p)} against {identified(CONFUSION, c)} identified"
    yield r.each(
        f"ratio that 0.1 % of the parameters exceed: poisoning / (2 · IC) − 1, {sizes}",
        lambda s: top(POISONING, p, s) / (2 * top(CONFUSION, c, s)) - 1,
    )


STATEMENTS = (c1, c2, c3, c4, c5, c6, c7, c8, c9)


def judged(claim: Claim) -> tuple[str, str]:
    """Return the word for a claim, and the numbers that it rests on."""
    n, mean = len(claim.values), statistics.fmean(claim.values)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(claim.values) / n**0.5 if n > 1 else float("inf")
    word = "holds" if mean - half > 0 else "does not hold" if mean + half < 0 else "undecided"
    return word, f"{claim.what}: {mean:+.3f} ±{half:.3f}"


def table(results: Results) -> str:
    """Return the statements as a Markdown table."""
    seeds = len(results.seeds)
    lines = [
        f"| | the paper's statement | here | measured: mean ± 95 % over {seeds} seeds |",
        "| --- | --- | --- | --- |",
    ]
    for statement in STATEMENTS:
        words, numbers = zip(*map(judged, statement(results)), strict=True)
        word = next((w for w in ("does not hold", "undecided") if w in words), "holds")
        told = [f"{number} ({w})" if len(words) > 1 else number for w, number in zip(words, numbers, strict=True)]
        lines.append(f"| {statement.__name__.upper()} | {statement.__doc__} | **{word}** | {'; '.join(told)} |")
    lines += [
        "",
        "| corrected accuracy, mean at each α | " + " | ".join((POISONING, CONFUSION)) + " |",
        "| --- | --- | --- |",
    ]
    for method in METHODS:
        lines.append(f"| {method} | {results.mean(POISONING, method)} | {results.mean(CONFUSION, method)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table for the document that is named."""
    print(table(Results(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["records"])))


if __name__ == "__main__":
    main()
