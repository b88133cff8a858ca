from __future__ import annotations

from dataclasses import replace

import pytest

from cutk.report.dry_run import print_dry_run
from cutk.report.estimate import CellCost
from cutk.report.naming import duration
from cutk.run.cells import Training, Unlearning

COSTS = [
    CellCost(Training("badnet", 0, "original"), 1, 10.0, 0.4, False, (0,)),
    CellCost(Training("badnet", 0, "gold"), 1, 10.0, 0.4, True, (0,)),
    CellCost(Unlearning("badnet", 0, "mine", 0.5), 3, None, 0.4, False, (0,)),
]


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


def test_cells_and_their_cost(capsys):
    print_dry_run(COSTS, 380, 0.5, "a machine, 1 thread")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["badnet", "0", "original", "1", "10.0", "0.4", "to", "do"] in lines
    assert ["badnet", "0", "gold", "1", "10.0", "0.4", "stored"] in lines
    assert ["badnet", "0", "mine", "0.5", "3", "unknown", "0.4", "to", "do"] in lines
    assert [" ".join(line) for line in lines[-3:]] == [
        "2 of 3 cells to compute, 1 of them trainings of an original or gold model.",
        "About 11 passes, forward and backward, over 380 training samples, evaluation included, and 1 cells whose "
        "unlearner does not tell.",
        "A pass takes about 0.5 s here (a machine, 1 thread; measured just now), so all of it about 5.4 s.",
    ]


def test_what_costs_the_same_for_several_seeds_is_one_row(capsys):
    print_dry_run([replace(COSTS[0], seeds=(0, 1, 2, 4)), replace(COSTS[2], seeds=(7, 9))], 380, 0.5, "a machine")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "badnet 0–2, 4 original 1 10.0 0.4 to do" in lines
    assert "badnet 7, 9 mine 0.5 3 unknown 0.4 to do" in lines
    assert "6 of 6 cells to compute, 4 of them trainings of an original or gold model." in lines
    assert lines[-2].startswith("About 42 passes, ")  # 4 · 10.4 + 2 · 0.4
    assert lines[-2].endswith(", and 2 cells whose unlearner does not tell.")


def test_what_is_stored_costs_nothing(capsys):
    print_dry_run([replace(cost, stored=True, work=1.0) for cost in COSTS], 380, 0.0, "a machine")
    out = capsys.readouterr().out
    assert "0 of 3 cells to compute" in out
    assert "A pass takes" not in out


def test_names_steer_no_terminal(capsys):
    print_dry_run([replace(COSTS[0], cell=Training("a\x1b[2J[red]", 0, "gold"))], 380, 0.5, "a machine")
    assert r"a\x1b[2J[red]" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "words"), [(59, "59 s"), (61, "1 min"), (7200, "2 h"), (259200, "3.0 days")])
def test_lengths_of_time(seconds, words):
    assert duration(seconds) == words
