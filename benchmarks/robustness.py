"""Where ``seal`` breaks: what is known is wrong, biased or little, other manipulations, and adversaries who know it.

    python benchmarks/robustness.py --seed 5 --seed 6 --seed 7 --runs runs-of-robustness

On the embedded digits, at α = 0.1 unless said otherwise. Prints a Markdown table: corrected accuracies, means over
seeds with standard deviations, and the retain accuracy of seal beside the original's. Finished cells are read from the
runs folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ablation import shown

import cutk

HERE = Path(__file__).parent
PLUGINS = (HERE / "adversaries.py", HERE.parent / "examples/cutk-blended/cutk_blended/__init__.py")
TRIGGER, CONFUSION = {"manipulations": ["badnet"]}, {"manipulations": ["interclass-confusion"]}
# |S_m| of both on the digits, from which α follows where the number of known samples is given.
SIZES = {"badnet": 41, "interclass-confusion": 134}


def known(count: int, setting: dict[str, Any]) -> dict[str, Any]:
    """Return ``setting`` with so many samples known."""
    return {**setting, "alphas": [count / SIZES[setting["manipulations"][0]]]}


def found(how: str, setting: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return ``setting`` with another identification."""
    return {**setting, "identification": how, "options": {how: options}}


def by(name: str, **options: Any) -> dict[str, Any]:
    """Return another manipulation."""
    return {"manipulations": [name], "options": {name: options}}


SETTINGS: dict[str, dict[str, Any]] = {
    "trigger": TRIGGER,
    "confusion": CONFUSION,
    "trigger, 1 known": known(1, TRIGGER),
    "trigger, 5 known": known(5, TRIGGER),
    "trigger, 20 known": known(20, TRIGGER),
    "confusion, 1 known": known(1, CONFUSION),
    "confusion, 5 known": known(5, CONFUSION),
    "confusion, 20 known": known(20, CONFUSION),
    "trigger, all known": {**TRIGGER, "alphas": [1.0]},
    "confusion, all known": {**CONFUSION, "alphas": [1.0]},
    "trigger, 10 known, 10 % of them clean": found("false-positives", known(10, TRIGGER), share=0.1),
    "trigger, 10 known, 30 % of them clean": found("false-positives", known(10, TRIGGER), share=0.3),
    "confusion, 10 % of the known are clean": found("false-positives", CONFUSION, share=0.1),
    "confusion, 30 % of the known are clean": found("false-positives", CONFUSION, share=0.3),
    "trigger, one clean class known first": found("biased", TRIGGER, by="class"),
    "confusion, one clean class known first": found("biased", CONFUSION, by="class"),
    "trigger, odd ones known first": found("biased", TRIGGER, by="ease"),
    "confusion, odd ones known first": found("biased", CONFUSION, by="ease"),
    "trigger and confusion at once": {"manipulations": ["badnet+interclass-confusion"]},
    "trigger, all to all, 10 %": by("badnet", targets="all-to-all", fraction=0.1),
    "blended trigger, 5 %": by("blended"),
    "warped trigger, 10 %": by("wanet"),
    "sinusoidal trigger, clean labels": by("sig", rate=0.5),
    "random label noise, 10 %": by("label-swap"),
    "asymmetric noise, 40 % of four classes": by("asymmetric-noise", map=["3:8", "8:3", "4:9", "1:7"]),
    "adversary: confusion at the boundary": by("boundary-confusion"),
    "adversary: trigger like its target": by("colliding"),
}


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--setting", action="append", help="the beginning of a name; all if not given")
    parser.add_argument("--unlearner", action="append")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs-of-robustness"))
    return parser.parse_args()


def main() -> None:
    """Compute what isn't there, and print the table."""
    arguments = asked()
    methods = arguments.unlearner or ["rewod", "ssd", "seal", "seal:retrain"]
    heads = ["original", *methods, "gold"]
    print(f"| setting | {' | '.join(heads)} | retain: original | seal |\n| :-- |{' --: |' * (len(heads) + 2)}")
    plan: dict[str, Any] = {"seeds": arguments.seed or [5, 6, 7], "unlearners": methods}
    if arguments.threads:
        plan["threads"] = arguments.threads
    for name, setting in SETTINGS.items():
        if not name.startswith(tuple(arguments.setting or [""])):
            continue
        own = {"alphas": [0.1], **setting}
        report = cutk.bench("laptop/digits", runs=str(arguments.runs), plugins=PLUGINS, **plan, **own)
        values: dict[str, list[float]] = {}
        retained: dict[str, list[float]] = {}
        for record in report.records:
            if record["selected"]:
                who = record["unlearner"] or record["role"]
                values.setdefault(who, []).append(record["metrics"]["corrected_accuracy"])
                if (kept := record["metrics"].get("retain_accuracy")) is not None:
                    retained.setdefault(who, []).append(kept)
        row = [shown(values.get(who, []), 2) for who in heads]
        row += [shown(retained.get(who, []), 2) for who in ("original", "seal")]
        print(f"| {name} | {' | '.join(row)} |", flush=True)
        for failure in report.failures:
            print(f"<!-- {failure['unlearner']}: {failure['reason']} -->", flush=True)


if __name__ == "__main__":
    main()
