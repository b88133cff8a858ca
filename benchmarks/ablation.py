"""What each part of ``seal`` is worth: one part changed at a time, everything else as it is.

    python benchmarks/ablation.py --alpha 0.1 --seed 5 --seed 6 --runs runs-of-ablation

Prints a Markdown table: means over seeds, with standard deviations. Finished cells are read from the runs folder.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import cutk

# What is changed, and to what.
VARIANTS: dict[str, dict[str, Any]] = {
    "seal": {},
    "nothing after the rounds": {"final": "tune"},
    "a whole training after the rounds": {"final": "retrain"},
    "two rounds": {"rounds": 2},
    "no round: one look at the original": {"rounds": 0},
    "five rounds": {"rounds": 5},
    "the probe learns from S_f alone": {"refinements": 0},
    "a weaker penalty": {"penalty": 1.0},
    "no transition: suspects learn no class": {"threshold": 1.0},
    "restart from new weights": {"kept": 0.0},
    "restart from the learned weights": {"kept": 1.0},
    "restart for half a training": {"restart_part": 0.5},
}
METRICS = ("corrected_accuracy", "retain_accuracy", "detection_average_precision", "detection_alpha_error")


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop/digits")
    parser.add_argument("--manipulation", action="append")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--variant", action="append", help="the beginning of a name; all if not given")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs-of-ablation"))
    return parser.parse_args()


def shown(values: list[float], digits: int = 3) -> str:
    """Return a mean with the standard deviation: ``0.962 ±0.004``."""
    spread = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}" if values else "–"


def main() -> None:
    """Compute what isn't there, and print the table."""
    arguments = asked()
    plan: dict[str, Any] = {"seeds": arguments.seed or [5, 6, 7, 8, 9], "alphas": [arguments.alpha]}
    plan["metrics"] = list(METRICS)
    if arguments.manipulation:
        plan["manipulations"] = arguments.manipulation
    if arguments.threads:
        plan["threads"] = arguments.threads
    wanted = tuple(arguments.variant or [""])
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, options in VARIANTS.items():
        if not name.startswith(wanted):
            continue
        own = {"unlearners": ["seal"], "options": {"seal": options}}
        records = cutk.bench(arguments.preset, runs=str(arguments.runs), **plan, **own).records
        for record in records:
            row = name if record["role"] == "unlearned" else record["role"]
            of = rows.setdefault(record["manipulation"], {}).setdefault(row, {})
            if row == name or name == next(iter(VARIANTS)):  # the originals are the same for all
                for metric in METRICS:
                    value = record["metrics"].get(metric)
                    of.setdefault(metric, []).extend([] if value is None else [value])
        print(f"<!-- {name}: done -->", flush=True)
    for manipulation, variants in rows.items():
        print(f"\n**{manipulation}, α = {arguments.alpha:g}, seeds {', '.join(map(str, plan['seeds']))}**\n")
        heads = [metric.replace("_", " ") for metric in METRICS]
        print(f"| changed | {' | '.join(heads)} |\n| :-- |{' --: |' * len(heads)}")
        for name, values in variants.items():
            print(f"| {name} | {' | '.join(shown(values.get(metric, [])) for metric in METRICS)} |")


if __name__ == "__main__":
    main()
