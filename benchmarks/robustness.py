"""Where ``seal`` breaks: what is known is wrong, biased or little, other manipulations, and adversaries who know it.

    python benchmarks/robustness.py --runs runs-of-robustness [--keep benchmarks/results/robustness]
    python benchmarks/robustness.py --of benchmarks/results/robustness

On the embedded digits, at α = 0.1 unless said otherwise. Computes what isn't in the runs folder and prints a Markdown
table: corrected accuracies, means over seeds with standard deviations, and the retain accuracy of seal beside the
original's. ``--keep`` puts the records into a folder of evidence, and the table into its README; ``--of`` makes the
table of what is there and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from variations import Variations, conclude, parser, shown

from cutk.run.records import Run

HERE = Path(__file__).parent
PLUGINS = (HERE / "adversaries.py", HERE.parent / "examples/cutk-blended/cutk_blended/__init__.py")
TRIGGER, CONFUSION = {"manipulations": ["badnet"]}, {"manipulations": ["interclass-confusion"]}
# |S_m| of both on the digits, of the latter by a few more on some seeds: α follows where the number of known is given.
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
    "trigger, 10 known and 1 clean": found("false-positives", known(10, TRIGGER), share=0.1),
    "trigger, 10 known and 4 clean": found("false-positives", known(10, TRIGGER), share=0.3),
    "confusion, a tenth known and 1 or 2 clean": found("false-positives", CONFUSION, share=0.1),
    "confusion, a tenth known and 6 clean": found("false-positives", CONFUSION, share=0.3),
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


UNLEARNERS = ("rewod", "ssd", "seal", "seal:retrain")
RETAINED = ("original", "seal")
CORRECTED, RETAIN = "corrected_accuracy", "retain_accuracy"
COMMON = {
    "alphas": [0.1],
    "seeds": [5, 6, 7],
    "unlearners": list(UNLEARNERS),
    "metrics": [CORRECTED, RETAIN],
    "evaluate": "selected",
    "precision": "fp32",
    "threads": 1,
}
# ``seal`` kept all samples' features and had its losses in one function; it computes the same, bit for bit.
ALIKE = ({"code": {"seal": "5ff97e6748850890"}},)
STUDIES = {"digits": Variations("laptop/digits", COMMON, SETTINGS, PLUGINS, ALIKE)}


def tables(runs: Iterable[Run], studies: Sequence[Variations]) -> str:
    """Return a Markdown table of what belongs to the settings."""
    (study,) = studies
    found: dict[tuple[str, str, str], list[float]] = {}
    for name, run in study.belonging(runs):
        for metric in (CORRECTED, RETAIN):
            if (value := run.record.metrics.get(metric)) is not None:
                found.setdefault((name, run.labels.unlearner or run.labels.role, metric), []).append(value)
    heads = ["original", *UNLEARNERS, "gold"]
    lines = [f"| setting | {' | '.join(heads)} | retain: {' | '.join(RETAINED)} |"]
    lines.append(f"| :-- |{' --: |' * (len(heads) + len(RETAINED))}")
    for name in study.rows:
        row = [shown(found.get((name, who, CORRECTED), []), 2) for who in heads]
        row += [shown(found.get((name, who, RETAIN), []), 2) for who in RETAINED]
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Compute what isn't there, and print the table."""
    command = parser(__doc__, "runs-of-robustness")
    command.add_argument("--setting", action="append", help="the beginning of a name; all if not given")
    arguments = command.parse_args()
    study = STUDIES["digits"].beginning(arguments.setting)
    if arguments.of is None:
        study.compute(arguments.runs)
    conclude(arguments, [study], [*STUDIES.values()], "robustness", tables)


if __name__ == "__main__":
    main()
