"""What is asked of a method, beside what was measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    bars, by_seed, measured = (importlib.import_module(name) for name in ("bars", "by_seed", "measured"))
finally:
    sys.path.remove(str(BENCHMARKS))
GOLD = {"method": "seal", "manipulation": "badnet", "alpha": 0.1, "gold": 0.9}
RETAIN = {"method": "seal", "manipulation": "badnet", "alpha": 0.1, "retain": 1}


def record(role, seed, corrected, retain):
    alpha = 0.1 if role == "seal" else None
    metrics = {"corrected_accuracy": corrected, "retain_accuracy": retain}
    about = {"manipulation": "badnet", "role": role, "unlearner": "seal" if alpha else None, "alpha": alpha}
    return {**about, "seed": seed, "selected": True, "metrics": metrics}


def rows(values, asked):
    """Return the cells of the row that ``asked`` gives; ``values`` are corrected and retain accuracy for each seed."""
    made = []
    for seed, (corrected, retain) in enumerate(values):
        made += [
            record("original", seed, 0.2, 0.9),
            record("gold", seed, 0.8, 0.9),
            record("seal", seed, corrected, retain),
        ]
    _, _, row = bars.bars(measured.Results(made), [asked])
    return [cell.strip() for cell in row.strip("|").split("|")][3:]


def test_a_bar_is_asked_of_the_mean_and_each_seed_is_told():
    # Ratios 1, 0.9, 0.85: mean 0.917; sd 0.0764, Student's t at 0.975 with two degrees of freedom 4.303: 0.190.
    asked, each, mean, met = rows([(0.8, 0.9), (0.72, 0.9), (0.68, 0.9)], GOLD)
    assert (asked, each, mean) == ("0.9 of gold", "1.000 0.900 0.850", "0.917 ±0.190")
    assert met == "**yes**; by 2 of 3 seeds alone"
    assert rows([(0.7, 0.9), (0.72, 0.9)], GOLD)[-1] == "**no**; by 1 of 2 seeds alone"


def test_points_are_lost_or_won():
    asked, each, mean, met = rows([(0.8, 0.89), (0.8, 0.905)], RETAIN)
    assert (asked, each) == ("-1 points of retain accuracy", "-1.00 +0.50")
    assert mean.startswith("-0.25 ±9.53")
    assert met.startswith("**yes**")
    assert rows([(0.8, 0.88)], RETAIN)[1:] == ["-2.00", "-2.00", "**no**; by 0 of 1 seeds alone"]


def test_what_was_not_measured_is_not_met():
    _, _, row = bars.bars(measured.Results([record("original", 0, 0.2, 0.9)]), [GOLD])
    assert row.endswith("| – | – | not measured |")


@pytest.mark.parametrize(("values", "half"), [([1.0], float("inf")), ([1.0, 2.0, 3.0], 2.484)])
def test_the_interval_is_students(values, half):
    assert bars.half_width(values) == pytest.approx(half, abs=1e-3)


def test_a_bar_may_be_asked_of_some_seeds():
    values = [(0.8, 0.9), (0.4, 0.9), (0.72, 0.9)]
    _, each, _, met = rows(values, {**GOLD, "seeds": [0, 2]})
    assert (each, met) == ("1.000 0.900", "**yes**; by 2 of 2 seeds alone")
    _, _, row = bars.bars(measured.Results([record("original", 0, 0.2, 0.9)]), [{**GOLD, "seeds": [0, 2]}])
    assert row.startswith("| `seal` | badnet, seeds 0, 2 | 0.1 |")


def test_seeds_are_told_with_what_was_measured_of_them():
    made = [record("original", seed, 0.2, 0.9) for seed in (1, 2)]
    made += [record("gold", 1, 0.8, 0.91), record("seal", 1, 0.75, 0.89)]
    _, _, *rows = by_seed.by_seed(measured.Results(made), "trigger").splitlines()
    assert rows == ["| seed 1 | 0.200 | 0.750 | – | – | – | 0.800 | 0.900; 0.890, –; –, – |"]
