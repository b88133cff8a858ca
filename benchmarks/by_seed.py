"""What ``seal`` has seed by seed, as the page about it shows it."""

from __future__ import annotations

from contextlib import suppress

from measured import CONFUSION, POISONING, RETAIN, Results

__all__ = ["SHOWN", "by_seed"]

# How people call the manipulations on that page.
SHOWN = {"trigger": POISONING, "confusion": CONFUSION}
METHODS, ALPHAS = ("seal", "seal:retrain"), (0.1, 0.02)


def by_seed(results: Results, called: str) -> str:
    """Return a manipulation's models and ``seal`` seed by seed as a Markdown table; a dash where it wasn't measured."""
    manipulation, cells = SHOWN[called], [(method, alpha) for alpha in ALPHAS for method in METHODS]

    def value(method: str, alpha: float | None, seed: int, *metric: str) -> str:
        with suppress(LookupError):
            return f"{results.value(manipulation, method, alpha, seed, *metric):.3f}"
        return "–"

    head = " | ".join(f"{alpha:g}: {' | '.join(METHODS)}" for alpha in ALPHAS)
    kept_head = "; ".join(f"{alpha:g}: {', '.join(METHODS)}" for alpha in ALPHAS)
    lines = [
        f"| {called} | original | {head} | gold | retain accuracy: original; {kept_head} |",
        f"| --- |{' --: |' * (len(cells) + 3)}",
    ]
    for seed in results.seeds:
        corrected = [value(method, alpha, seed) for method, alpha in cells]
        if set(corrected) == {"–"}:
            continue
        kept = [value("original", None, seed, RETAIN)]
        kept += [", ".join(value(method, alpha, seed, RETAIN) for method in METHODS) for alpha in ALPHAS]
        models = value("original", None, seed), value("gold", None, seed)
        lines.append(f"| seed {seed} | {models[0]} | {' | '.join(corrected)} | {models[1]} | {'; '.join(kept)} |")
    return "\n".join(lines)
