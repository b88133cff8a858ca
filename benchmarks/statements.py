"""Puts each statement of the paper beside what was measured.

    cutk bench --preset laptop/digits --runs digits
    python benchmarks/statements.py digits

or of what ``cutk bench --json`` printed: ``python benchmarks/statements.py results.json``.

The criteria stand here, in code, so that a verdict can be argued with. Each statement comes down to quantities that are
positive where it is true, one value for each seed. It **holds** where the 95 % interval of each mean (Student's t over
the seeds) lies above zero, **does not hold** where one of them lies below, and is **undecided** otherwise, as it always
is of fewer than three seeds, and where one of the methods that it is about wasn't measured. A statement counts every
seed that has all of what it compares; where it is about curves, those seeds that have most fractions for its methods,
at the fractions that all of them have. What is said of all fractions up to 0.8 asks for 0.8 itself, what is said of
those below for 0.5, and neither is judged before they are there.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from bars import half_width
from measured import BEFORE_MOST, CONFUSION, METHODS, POISONING, RETAIN, Claim, Results
from published import beside
from scipy import stats

# Accuracies closer than this are called equal.
MARGIN = 0.05
# What a method may lose of its retain accuracy and still be said to keep it.
KEPT = 0.02
# Outliers are the largest so many of the importance ratios. The very largest say nothing: where a parameter hardly
# matters for the rest, its ratio is whatever rounding makes of it.
OUTLIERS = 0.001
TENTH = 0.1

SCRUBS = ("scrub", "scrub:step")
# Of fewer nothing is decided: two seeds may agree by chance.
ENOUGH = 3
# What seal may lose of its retain accuracy.
POINT = 0.01
SEALS = ("seal", "seal:retrain")

Statement = Callable[[Results], Iterator[Claim]]


def c1(r: Results) -> Iterator[Claim]:
    """Poisoning: RewoD stays flat until at least 80 % is identified, and is best at α = 1."""
    rewod = r.over("rewod")

    def flat(seed: int) -> float:
        highest = max(rewod.curve(POISONING, "rewod", seed, below=BEFORE_MOST))
        return r.value(POISONING, "original", None, seed) + 2 * MARGIN - highest

    def best(seed: int) -> float:
        last = {method: r.value(POISONING, method, 1.0, seed) for method in METHODS}
        return last.pop("rewod") - max(last.values())

    yield rewod.each(f"original + {2 * MARGIN:g} − RewoD's highest below 0.8", flat)
    yield r.each("RewoD − best other at α = 1", best)


def c2(r: Results) -> Iterator[Claim]:
    """Poisoning: SSD recovers Acc_corr at α = 0.1."""
    yield r.each("SSD at α = 0.1 − 0.9 · gold", lambda s: r.value(POISONING, "ssd", TENTH, s) - r.bar(POISONING, s))


def c3(r: Results) -> Iterator[Claim]:
    """Poisoning: CF and BadT do not recover below 80 %; SCRUB does better than CF."""
    for method in ("cf", "badt"):
        part = r.over(method)
        yield part.each(
            f"0.9 · gold − {method}'s highest below 0.8",
            lambda s, m=method, part=part: r.bar(POISONING, s) - max(part.curve(POISONING, m, s, below=BEFORE_MOST)),
        )
    yield from _better(r, POISONING, SCRUBS, "cf")


def _listed(alphas: Sequence[float]) -> str:
    return ", ".join(f"{alpha:g}" for alpha in alphas) or "any"


def _better(r: Results, manipulation: str, these: tuple[str, ...], other: str, sign: int = 1) -> Iterator[Claim]:
    for method in (one for one in these if one in r.methods):
        first, second = (method, other) if sign > 0 else (other, method)
        part = r.over(method, other)
        yield part.each(
            f"{first} − {second}, mean over α = {_listed(part.alphas)}",
            lambda s, first=first, second=second, part=part: (
                statistics.fmean(part.curve(manipulation, first, s))
                - statistics.fmean(part.curve(manipulation, second, s))
            ),
        )


def c4(r: Results) -> Iterator[Claim]:
    """IC: RewoD improves steadily with α."""
    rewod = r.over("rewod")

    def steps(seed: int) -> list[float]:
        if len(rewod.alphas) < 3:
            raise LookupError
        return rewod.curve(CONFUSION, "rewod", seed)

    yield rewod.each(
        "RewoD's rank correlation with α − 0.8",
        lambda s: float(stats.spearmanr(rewod.alphas, steps(s)).statistic) - 0.8,
    )
    yield rewod.each(
        "RewoD at the largest α − at the smallest",
        lambda s: steps(s)[-1] - steps(s)[0],
    )


def c5(r: Results) -> Iterator[Claim]:
    """IC: SSD gives no improvement at any α."""
    ssd = r.over("ssd")
    yield ssd.each(
        f"original + {MARGIN:g} − SSD's highest",
        lambda s: r.value(CONFUSION, "original", None, s) + MARGIN - max(ssd.curve(CONFUSION, "ssd", s)),
    )


def c6(r: Results) -> Iterator[Claim]:
    """IC: CF does better than SCRUB; BadT is poor in both settings."""
    yield from _better(r, CONFUSION, SCRUBS, "cf", sign=-1)
    badt = r.over("badt")
    for manipulation in (POISONING, CONFUSION):
        yield badt.each(
            f"0.9 · gold − badt's highest up to 0.8, {manipulation}",
            lambda s, m=manipulation: r.bar(m, s) - max(badt.curve(m, "badt", s, below=BEFORE_MOST + 1e-6)),
        )


def c7(r: Results) -> Iterator[Claim]:
    """No method corrects both manipulations while α ≤ 0.8."""

    def short(part: Results, method: str, seed: int) -> float:
        return max(
            r.bar(m, seed) - max(part.curve(m, method, seed, below=BEFORE_MOST + 1e-6)) for m in (POISONING, CONFUSION)
        )

    for method in r.methods:
        yield (part := r.over(method)).each(
            f"what {method} lacks to 0.9 · gold in the worse of the two",
            lambda s, m=method, part=part: short(part, m, s),
        )


def c8(r: Results) -> Iterator[Claim]:
    """SSD costs retain accuracy, the others keep it."""
    for manipulation in (POISONING, CONFUSION):
        for method in r.methods:
            sign = -1 if method == "ssd" else 1
            what = f"what ssd loses − {KEPT:g}" if method == "ssd" else f"{KEPT:g} − what {method} loses"
            yield (part := r.over(method)).each(
                f"{what}, {manipulation}",
                lambda s, m=method, x=manipulation, part=part, sign=sign: sign * (part.retained(x, m, s) + KEPT),
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
    ssd = r.over("ssd")

    def identified(manipulation: str, alpha: float) -> int:
        return int(r.records[manipulation, "ssd", alpha, ssd.seeds[0]]["identified"])

    # The ratio depends on how many samples S_f has, so equally many are compared.
    what = "ratio that 0.1 % of the parameters exceed: poisoning / (2 · IC) − 1"
    sizes = {(p, c): (identified(POISONING, p), identified(CONFUSION, c)) for p in ssd.alphas for c in ssd.alphas}
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


def judged(claim: Claim, usual: int = 0) -> tuple[str, str]:
    """Return the word for a claim, and the numbers that it rests on, with how many if they aren't the usual."""
    n = len(claim.values)
    if not n:
        return "not measured", f"{claim.what}: not measured"
    mean = statistics.fmean(claim.values)
    seeds = f", n = {n}" if usual not in (0, n) else ""
    if n == 1:
        return "undecided", f"{claim.what}: {mean:+.3f}{seeds}"
    half = half_width(claim.values)
    word = "holds" if mean - half > 0 else "does not hold" if mean + half < 0 else "undecided"
    word = word if n >= ENOUGH else "undecided"
    return word, f"{claim.what}: {mean:+.3f} ±{half:.3f}{seeds}"


SECTIONS = ("paper", "seal")


def table(results: Results, sections: Collection[str] = SECTIONS) -> str:
    """Return Markdown tables: each section's statements, as far as its methods are there, and the paper's numbers."""
    usual, tables = len(results.core.seeds), []
    if "paper" in sections:
        tables.append(_judgements(results, STATEMENTS, "the paper's statement", usual))
    if "seal" in sections and any(name in results.others for name in SEALS):
        tables.append(_judgements(results, OF_SEAL, "what `seal` is asked for", usual))
    if "paper" in sections:
        tables += [beside(results), _curves(results)]
    return "\n\n".join("\n".join(lines) for lines in tables)


def _curves(results: Results) -> list[str]:
    usual, alphas = len(results.core.seeds), ", ".join(f"{alpha:g}" for alpha in results.fractions)
    what = f"mean over {usual} seeds" if usual > 1 else f"seed {results.core.seeds[0]}"
    shown = [method for method in (*results.methods, *results.others) if results.has_any(method)]
    lines = [
        f"| corrected accuracy, {what}, at α = {alphas} | " + " | ".join((POISONING, CONFUSION)) + " |",
        "| --- | --- | --- |",
    ]
    for method in shown:
        part = results.over(method)  # the seeds of which most is there
        curves = [part.mean(manipulation, method) for manipulation in (POISONING, CONFUSION)]
        seeds = "" if part.seeds == results.core.seeds else f" ({_seeds(part.seeds)})"
        if not any(mark.isdigit() for curve in curves for mark in curve):
            continue  # some seed lacks each of its points
        lines.append(f"| {method}{seeds} | {' | '.join(curves)} |")
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _judgements(results: Results, statements: Sequence[Statement], what: str, usual: int) -> list[str]:
    how = f"mean ± 95 % over {usual} seeds" if usual > 1 else f"seed {results.core.seeds[0]} alone"
    how += " if nothing else is said" if set(results.seeds) - set(results.core.seeds) else ""
    lines = [f"| | {what} | here | measured: {how} |", "| --- | --- | --- | --- |"]
    for statement in statements:
        words, numbers = zip(*(judged(claim, usual) for claim in statement(results)), strict=True)
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
