from __future__ import annotations

import re

import pytest

from cutk.report.tables import best_row, mean_and_spread


def test_mean_and_sample_standard_deviation_by_hand():
    assert mean_and_spread([0.5]) == "0.500"
    assert mean_and_spread([0.1, 0.3]) == "0.200 ±0.141"  # √(2 · 0.1² / 1)
    assert mean_and_spread([]) == "–"


def test_the_best_is_found_in_its_direction_and_ties_are_all_best():
    assert best_row([0.1, 0.9, 0.5], higher_is_better=True) == {1}
    assert best_row([0.1, 0.9, 0.5], higher_is_better=False) == {0}
    assert best_row([0.3, 0.3], higher_is_better=True) == {0, 1}
    assert best_row([None, None], higher_is_better=True) == set()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_table_fits_its_width_and_loses_no_metric(run, monkeypatch, width):
    monkeypatch.setattr("cutk.report.console.PIPE_WIDTH", width)
    monkeypatch.setenv("COLUMNS", str(width))
    ran = run(
        *("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "2"),
        *("--recipe", "steps=3", "-o", "convnet-small.width=2"),
    )
    assert ran.code == 0, ran.err
    tables = [line for line in ran.out.splitlines() if "original" in line]
    assert len(tables) == {60: 3, 80: 2, 140: 1}[width]
    assert all(len(line) <= width for line in tables)
    cells = sum(len(re.findall(r"±|–", line)) for line in tables)
    assert cells == 6
