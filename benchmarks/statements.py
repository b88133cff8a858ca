"""Puts each statement of the paper beside what was measured.

    cutk bench --preset laptop/digits --runs digits
    python benchmarks/statements.py digits

or of what ``cutk bench --json`` printed: ``python benchmarks/statements.py results.json``.

The criteria stand here, in code, so that a verdict can be argued with. Each statement comes down to quantities that are
positive where it is true, one value for each seed. It **holds** where the 95 % interval of each mean (Student's
t over the seeds) lies above zero, **does not hold** where one of them lies below, and is **undecided** otherwise, as it
always is of one seed. Seeds and fractions count that are there for every method. What is said of all fractions up to
0.8 asks for 0.8 itself, what is said of those below for 0.5, and neither is judged before they are there.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from cutk.run.store import Store

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
# What is said of all smaller fractions takes at least one from here on.
MIDDLE = 0.5
TENTH = 0.1

POISONING, CONFUSION = "badnet", "interclass-confusion"
METHODS = ("rewod", "cf", "ssd", "badt", "scrub", "scrub:step")
SCRUBS = ("scrub", "scrub:step")
# Counted only where they lack nothing.
VARIANTS = ("scrub:step",)
# What seal may lose of its retain accuracy.
POINT = 0.01
SEALS = ("seal", "seal:retrain")
CORRECTED, RETAIN = "corrected_accuracy", "retain_accuracy"


class Claim(NamedTuple):
    """A quantity that is positive where a statement is true, for each seed."""

    what: str
    values: list[float]


Statement = Callable[["Results"], Iterator[Claim]]


class Results:
    """The selected records of a benchmark, looked up by manipulation, method, α and seed.

    ``alphas`` and ``seeds`` are those at which every method of the paper that is there at all was measured;
    ``methods`` are these, ``others`` those of no paper's statement, and ``fractions`` all that there are.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        selected = [record for record in records if record["selected"]]
        self.records = {(r["manipulation"], r["unlearner"] or r["role"], r["alpha"], r["seed"]): r for r in selected}
        alphas = self.fractions = sorted({r["alpha"] for r in selected if r["alpha"] is not None})
        there = {r["unlearner"] for r in selected}
        needed = [method for method in METHODS if method in there and method not in VARIANTS]
        complete = {
            seed: {a for a in alphas if all(self.has(method, a, seed) for method in needed)}
            for seed in sorted({r["seed"] for r in selected})
        }
        most = max(map(len, complete.values()))
        self.seeds = [seed for seed, found in complete.items() if len(found) == most]
        self.alphas = [a for a in alphas if all(a in complete[seed] for seed in self.seeds)]
        cells = [(a, seed) for a in self.alphas for seed in self.seeds]
        self.methods = needed + [m for m in VARIANTS if m in there and all(self.has(m, *cell) for cell in cells)]
        self.others = sorted(name for name in there if name and name not in METHODS)

    @classmethod
    def of(cls, path: Path) -> Results:
        """Read a runs folder, or what ``cutk bench --json`` printed."""
        if not path.is_dir():
            return cls(json.loads(path.read_text(encoding="utf-8"))["records"])
        return cls([run.record.model_dump() for run in Store(path).runs()])

    def has(self, method: str, alpha: float, seed: int) -> bool:
        """Say whether a method was measured under both manipulations."""
        return all((m, method, alpha, seed) in self.records for m in (POISONING, CONFUSION))

    def value(self, manipulation: str, method: str, alpha: float | None, seed: int, metric: str = CORRECTED) -> float:
        """Return one measured value."""
        return float(self.records[manipulation, method, alpha, seed]["metrics"][metric])

    def curve(
        self, manipulation: str, method: str, seed: int, metric: str = CORRECTED, below: float = 2.0
    ) -> list[float]:
        """Return the metric at each α below a limit; a ``LookupError`` if what is there doesn't come near it."""
        alphas = [a for a in self.alphas if a < below - 1e-9]
        least = 0.0 if below > 1 else BEFORE_MOST if below > BEFORE_MOST else MIDDLE
        if not alphas or alphas[-1] < least:
            raise LookupError
        return [self.value(manipulation, method, a, seed, metric) for a in alphas]

    def each(self, what: str, quantity: Callable[[int], float]) -> Claim:
        """Return a claim from what it comes to for a seed; one without values where something wasn't measured."""
        try:
            return Claim(what, [quantity(seed) for seed in self.seeds])
        except LookupError:
            return Claim(what, [])

    def bar(self, manipulation: str, seed: int) -> float:
        """Return the corrected accuracy from which on a method has recovered."""
        return PART * self.value(manipulation, "gold", None, seed)

    def mean(self, manipulation: str, method: str) -> str:
        """Return a method's mean curve, for people to read."""
        texts = []
        for alpha in self.fractions:
            found = [self.records.get((manipulation, method, alpha, seed)) for seed in self.seeds]
            values = [record["metrics"][CORRECTED] for record in found if record]
            texts.append(f"{statistics.fmean(values):.2f}" if len(values) == len(self.seeds) else "–")
        return " ".join(texts)


def c1(r: Results) -> Iterator[Claim]:
    """Poisoning: RewoD stays flat until at least 80 % is identified, and is best at α = 1."""
    others = [method for method in r.methods if method != "rewod"]

    def flat(seed: int) -> float:
        highest = max(r.curve(POISONING, "rewod", seed, below=BEFORE_MOST))
        return r.value(POISONING, "original", None, seed) + 2 * MARGIN - highest

    def best(seed: int) -> float:
        last = {method: r.value(POISONING, method, 1.0, seed) for method in r.methods}
        return last["rewod"] - max(last[method] for method in others)

    yield r.each(f"original + {2 * MARGIN:g} − RewoD's highest below 0.8", flat)
    yield r.each("RewoD − best other at α = 1", best)


def c2(r: Results) -> Iterator[Claim]:
    """Poisoning: SSD recovers Acc_corr at α = 0.1."""
    yield r.each("SSD at α = 0.1 − 0.9 · gold", lambda s: r.value(POISONING, "ssd", TENTH, s) - r.bar(POISONING, s))


def c3(r: Results) -> Iterator[Claim]:
    """Poisoning: CF and BadT do not recover below 80 %; SCRUB does better than CF."""
    for method in ("cf", "badt"):
        yield r.each(
            f"0.9 · gold − {method}'s highest below 0.8",
            lambda s, m=method: r.bar(POISONING, s) - max(r.curve(POISONING, m, s, below=BEFORE_MOST)),
        )
    yield from _better(r, POISONING, SCRUBS, "cf")


def _better(r: Results, manipulation: str, these: tuple[str, ...], other: str, sign: int = 1) -> Iterator[Claim]:
    for method in (one for one in these if one in r.methods):
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

    def steps(seed: int) -> list[float]:
        if len(r.alphas) < 3:
            raise LookupError
        return r.curve(CONFUSION, "rewod", seed)

    yield r.each(
        "RewoD's rank correlation with α − 0.8",
        lambda s: float(stats.spearmanr(r.alphas, steps(s)).statistic) - 0.8,
    )
    yield r.each(
        "RewoD at the largest α − at the smallest",
        lambda s: steps(s)[-1] - steps(s)[0],
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

    for method in r.methods:
        yield r.each(f"what {method} lacks to 0.9 · gold in the worse of the two", lambda s, m=method: short(m, s))


def c8(r: Results) -> Iterator[Claim]:
    """SSD costs retain accuracy, the others keep it."""

    def change(method: str, manipulation: str, seed: int) -> float:
        after = statistics.fmean(r.curve(manipulation, method, seed, RETAIN))
        return after - r.value(manipulation, "original", None, seed, RETAIN)

    for manipulation in (POISONING, CONFUSION):
        for method in r.methods:
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
    what = "ratio that 0.1 % of the parameters exceed: poisoning / (2 · IC) − 1"
    sizes = {(p, c): (identified(POISONING, p), identified(CONFUSION, c)) for p in r.alphas for c in r.alphas}
    alike = [pair for pair, (one, other) in sizes.items() if max(one, other) <= 2 * min(one, other)]
    if not alike:
        yield Claim(what, [])
        return
    p, c = min(alike, key=lambda pair: (abs(sizes[pair][0] - sizes[pair][1]), -pair[0]))

    def top(manipulation: str, alpha: float, s: int) -> float:
        return exceeded(r.records[manipulation, "ssd", alpha, s]["breakdowns"]["importance_ratio"], OUTLIERS)

    yield r.each(
        f"{what}, {sizes[p, c][0]} against {sizes[p, c][1]} identified",
        lambda s: top(POISONING, p, s) / (2 * top(CONFUSION, c, s)) - 1,
    )


def s1(r: Results) -> Iterator[Claim]:
    """A tenth identified, it corrects both manipulations: 0.9 of gold."""
    for name in SEALS:
        for m in (POISONING, CONFUSION):
            yield r.each(
                f"{name} − 0.9 · gold, {m}", lambda s, name=name, m=m: r.value(m, name, TENTH, s) - r.bar(m, s)
            )


def s2(r: Results) -> Iterator[Claim]:
    """A tenth identified, it keeps the retain accuracy within a point."""
    for name in SEALS:
        for m in (POISONING, CONFUSION):
            yield r.each(
                f"{POINT:g} − what {name} loses, {m}",
                lambda s, name=name, m=m: (
                    r.value(m, name, TENTH, s, RETAIN) - r.value(m, "original", None, s, RETAIN) + POINT
                ),
            )


STATEMENTS = (c1, c2, c3, c4, c5, c6, c7, c8, c9)
OF_SEAL = (s1, s2)


def judged(claim: Claim) -> tuple[str, str]:
    """Return the word for a claim, and the numbers that it rests on."""
    n = len(claim.values)
    if not n:
        return "not measured", f"{claim.what}: not measured"
    mean = statistics.fmean(claim.values)
    if n == 1:
        return "undecided", f"{claim.what}: {mean:+.3f}"
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(claim.values) / n**0.5
    word = "holds" if mean - half > 0 else "does not hold" if mean + half < 0 else "undecided"
    return word, f"{claim.what}: {mean:+.3f} ±{half:.3f}"


def table(results: Results) -> str:
    """Return the statements as a Markdown table."""
    seeds, alphas = len(results.seeds), ", ".join(f"{alpha:g}" for alpha in results.fractions)
    how = f"mean ± 95 % over {seeds} seeds" if seeds > 1 else f"seed {results.seeds[0]} alone"
    lines = _judgements(results, STATEMENTS, "the paper's statement", how)
    if any(name in results.others for name in SEALS):
        lines += ["", *_judgements(results, OF_SEAL, "what `seal` is asked for", how)]
    lines += [
        "",
        f"| corrected accuracy, mean at α = {alphas} | " + " | ".join((POISONING, CONFUSION)) + " |",
        "| --- | --- | --- |",
    ]
    for method in (*results.methods, *results.others):
        lines.append(f"| {method} | {results.mean(POISONING, method)} | {results.mean(CONFUSION, method)} |")
    return "\n".join(lines)


def _judgements(results: Results, statements: Sequence[Statement], what: str, how: str) -> list[str]:
    lines = [f"| | {what} | here | measured: {how} |", "| --- | --- | --- | --- |"]
    for statement in statements:
        words, numbers = zip(*map(judged, statement(results)), strict=True)
        all_of = set(words)
        word = words[0] if len(all_of) == 1 else "does not hold" if "does not hold" in all_of else "undecided"
        told = [f"{number} ({w})" if len(words) > 1 else number for w, number in zip(words, numbers, strict=True)]
        told = ["–"] if word == "not measured" else [text.removesuffix(" (not measured)") for text in told]
        lines.append(f"| {statement.__name__.upper()} | {statement.__doc__} | **{word}** | {'; '.join(told)} |")
    return lines


def main() -> None:
    """Print the table for the folder or document that is named."""
    print(table(Results.of(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
