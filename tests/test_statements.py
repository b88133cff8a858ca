"""The criteria by which the paper's statements are judged."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "statements.py"
MODULE = runpy.run_path(str(SCRIPT))
Claim, judged, Results, table = (MODULE[name] for name in ("Claim", "judged", "Results", "table"))
ALPHAS = (0.1, 0.5, 0.8, 1.0)


def records(corrected, *, seeds=5, spread=0.0):
    """Make records; ``corrected`` maps manipulation, method and α to a corrected accuracy."""
    made = []
    for manipulation in ("badnet", "interclass-confusion"):
        for seed in range(seeds):
            off = spread * (seed - (seeds - 1) / 2)
            rows = [("original", None, None), ("gold", None, None)]
            rows += [("unlearned", method, alpha) for method in MODULE["METHODS"] for alpha in ALPHAS]
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
                        "metrics": {"corrected_accuracy": value, "retain_accuracy": 0.9 - 0.1 * (unlearner == "ssd")},
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
    ],
)
def test_the_interval_is_students(values, word):
    found, told = judged(Claim("x", values))
    assert found == word
    if len(values) == 3:
        assert "±2.484" in told


def test_the_script_reads_what_bench_prints(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"records": records(as_in_the_paper)}))
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "results.json"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("| **") == 9
