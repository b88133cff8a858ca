"""The criteria by which the paper's statements are judged."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "statements.py"
sys.path.insert(0, str(SCRIPT.parent))
try:
    MODULE = runpy.run_path(str(SCRIPT))
    measured = importlib.import_module("measured")
finally:
    sys.path.remove(str(SCRIPT.parent))
Claim, Results, METHODS = measured.Claim, measured.Results, measured.METHODS
judged, table = MODULE["judged"], MODULE["table"]
ALPHAS = (0.1, 0.5, 0.8, 1.0)


def records(corrected, *, seeds=5, spread=0.0):
    """Make records; ``corrected`` maps manipulation, method and α to a corrected accuracy."""
    made = []
    for manipulation in ("badnet", "interclass-confusion"):
        for seed in range(seeds):
            off = spread * (seed - (seeds - 1) / 2)
            rows = [("original", None, None), ("gold", None, None)]
            rows += [("unlearned", method, alpha) for method in (*METHODS, "scrub:step") for alpha in ALPHAS]
            for role, unlearner, alpha in rows:
                value = corrected(manipulation, unlearner or role, alpha) + off * (role == "unlearned")
                counts = {"0": 1000.0, "100": 2.0, "1000": 2.0 if manipulation == "badnet" else 0.0}
                made.append(
                    {
                        "manipulation": manipulation,
                        "role": role,
                        "unlearner": unlearner,
                        "alpha": alpha,
                        "seed": seed,
                        "selected": True,
                        "identified": None if alpha is None else round(100 * alpha),
                        "metrics": {
                            "corrected_accuracy": value,
                            "retain_accuracy": 0.9 - 0.1 * (unlearner == "ssd"),
                            "passes": 60.0 if unlearner == "rewod" else 15.0,
                        },
                        "breakdowns": {"importance_ratio": counts},
                    }
                )
    return made


def as_in_the_paper(manipulation, method, alpha):
    if method in ("original", "gold"):
        return {"original": 0.1, "gold": 1.0}[method]
    if manipulation == "badnet":
        poisoned = {"rewod": 0.1 if alpha < 0.8 else 0.99, "cf": 0.2, "badt": 0.2, "ssd": 0.95}
        return poisoned.get(method, 0.5)
    confused = {"rewod": alpha, "cf": 0.5, "badt": 0.2, "ssd": 0.1}
    return confused.get(method, 0.3)


def words(made):
    return [line.split("**")[1] for line in table(Results(made)).splitlines() if "**" in line]


def test_results_like_the_papers_make_every_statement_hold():
    assert words(records(as_in_the_paper)) == ["holds"] * 9


def test_each_statement_can_turn_out_otherwise():
    def otherwise(manipulation, method, alpha):
        if method in ("original", "gold"):
            return as_in_the_paper(manipulation, method, alpha)
        if manipulation == "badnet":
            return {"rewod": 0.95, "ssd": 0.5, "cf": 0.95}.get(method, 0.94)
        return {"rewod": 1.1 - alpha, "ssd": 0.9, "cf": 0.2, "badt": 0.95}.get(method, 0.9)

    assert words(records(otherwise))[:7] == ["does not hold"] * 7


def test_what_lies_within_the_noise_is_undecided():
    assert "undecided" in words(records(as_in_the_paper, spread=1.0))
    assert words(records(as_in_the_paper, spread=1.0))[1] == "undecided"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        # Student's t at 0.975 with two degrees of freedom is 4.303; of 1, 2, 3 the half width is 4.303 / √3 = 2.484.
        ([1.0, 2.0, 3.0], "undecided"),
        ([2.0, 3.0, 4.0], "holds"),
        ([-2.0, -3.0, -4.0], "does not hold"),
        ([5.0], "undecided"),
        ([5.0, 5.0], "undecided"),  # two may agree by chance
    ],
)
def test_the_interval_is_students(values, word):
    found, told = judged(Claim("x", values))
    assert found == word
    if len(values) == 3:
        assert "±2.484" in told


def without(made, **lacks):
    """Leave out the records of a method, fraction or seed."""
    return [record for record in made if any(record[key] != value for key, value in lacks.items())]


def told(made, number):
    lines = table(Results(made)).splitlines()
    return next(line for line in lines if line.startswith(f"| C{number} |"))


def test_a_seed_counts_for_what_it_has():
    made = records(as_in_the_paper, seeds=4)
    for alpha in (0.5, 0.8, 1.0):
        made = without(made, seed=3, alpha=alpha)
    assert "C2 | Poisoning: SSD recovers Acc_corr at α = 0.1. | **holds**" in told(made, 2)
    assert told(made, 2).endswith(": +0.050 ±0.000, n = 4 |")
    assert told(made, 5).endswith(": +0.050 ±0.000 |")  # over the three seeds that have whole curves
    assert words(made) == ["holds"] * 9


def test_one_method_that_lacks_a_fraction_takes_it_from_no_other():
    made = without(records(as_in_the_paper), unlearner="scrub", alpha=0.8)
    assert "0.9 · gold − badt's highest up to 0.8, badnet: +0.700 ±0.000 (holds)" in told(made, 6)
    assert "what scrub lacks" in told(made, 7)
    assert "not measured" in told(made, 7)
    whole, part = (Results(some) for some in (records(as_in_the_paper), made))
    assert (whole.core.alphas, part.core.alphas) == ([0.1, 0.5, 0.8, 1.0], [0.1, 0.5, 1.0])
    assert part.over("cf").alphas == part.over("cf", "ssd").alphas == [0.1, 0.5, 0.8, 1.0]


@pytest.mark.parametrize("there", [["cf", "badt"], ["cf"], ["rewod"], ["ssd"], ["scrub:step"]])
def test_nothing_holds_of_a_method_that_was_not_measured(there):
    made = [r for r in records(as_in_the_paper) if r["unlearner"] in (None, *there)]
    about = {
        "C1": ("rewod", "ssd"),
        "C2": ("ssd",),
        "C3": ("scrub", "cf"),
        "C4": ("rewod",),
        "C5": ("ssd",),
        "C6": ("scrub", "badt"),
        "C7": ("badt", "scrub"),
        "C8": ("ssd", "rewod"),
        "C9": ("ssd",),
    }
    missing = {number for number, methods in about.items() if not set(methods) <= set(there)}
    found = {line.split(" | ")[0].strip("| "): line for line in table(Results(made)).splitlines() if "**" in line}
    for number in missing:
        assert "**holds**" not in found[number]
        assert "not measured" in found[number]


def test_published_figures_stand_beside_what_was_measured():
    rows = [line.split(" | ") for line in table(Results(records(as_in_the_paper))).splitlines()]
    (ssd,) = (row for row in rows if row[0] == "| ssd" and len(row) == 8)
    assert ssd[1:] == ["0.1, 0.5, 0.8, 1; 0, 1, 2, 3, 4", "-8.94", "-10.00", "-1.63", "-10.00", "0.04", "0.25 |"]


def test_a_published_figure_stands_alone_where_nothing_was_measured():
    made = records(as_in_the_paper)
    of_one = table(Results([record for record in made if record["manipulation"] == "badnet"]))
    assert any(line.endswith("| -8.94 | – | -1.63 | – | 0.04 | – |") for line in of_one.splitlines())
    for record in made:
        del record["metrics"]["passes"]
    lines = table(Results(made)).splitlines()
    assert any(line.endswith("| -8.94 | -10.00 | -1.63 | -10.00 | 0.04 | – |") for line in lines)


def test_the_script_reads_what_bench_prints(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"records": records(as_in_the_paper)}))
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "results.json"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("| **") == 9
