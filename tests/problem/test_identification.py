"""What holds of S_f, whoever identifies it."""

from __future__ import annotations

import pytest
import torch

import cutk


class Finding(cutk.Identification):
    """Finds what it is told to."""

    name = "finding"

    def __init__(self, what):
        super().__init__()
        self.what = what

    def identify(self, truth, alpha, generator):
        return self.what(truth, alpha, generator)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_alpha_outside_its_range_is_refused_whoever_identifies(scenario_of, alpha):
    scenario = scenario_of(identification=Finding(lambda *_: torch.arange(3)))
    with pytest.raises(cutk.UsageError, match="above 0 and at most 1"):
        scenario.identified(alpha)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1, 2], "got list"),
        (torch.tensor([2, 1]), "sorted indices without repeats"),
        (torch.tensor([1, 1]), "sorted indices without repeats"),
        (torch.tensor([1.0]), r"got float32 \[1\]"),
        (torch.zeros(0, dtype=torch.int64), "with n ≥ 1"),
        (torch.tensor([-1, 3]), "from 0 to 189, got -1 to 3"),
        (torch.tensor([0, 190]), "from 0 to 189, got 0 to 190"),
    ],
)
def test_something_else_than_indices_is_refused(scenario_of, found, message):
    scenario = scenario_of(identification=Finding(lambda *_: found))
    with pytest.raises(cutk.CellError, match=f"'finding': expected.*{message}"):
        scenario.identified(0.5)


def test_clean_samples_may_be_identified(scenario_of):
    clean = scenario_of(identification=Finding(lambda truth, *_: torch.arange(len(truth.train))))
    task = clean.task(clean.build(), 0.3)
    assert len(task.identified) == 190
    assert len(task.retained) == 0


def test_every_alpha_starts_with_the_same_chance_and_is_asked_once(scenario_of):
    drawn = []

    def find(truth, alpha, generator):
        drawn.append((alpha, int(torch.randint(2**40, (), generator=generator)), float(torch.rand(()))))
        return torch.arange(3)

    scenario = scenario_of(identification=Finding(find))
    for alpha in (0.1, 0.5, 0.1, 0.5):
        scenario.identified(alpha)
    assert [alpha for alpha, *_ in drawn] == [0.1, 0.5]
    assert drawn[0][1:] == drawn[1][1:]


def test_what_is_done_to_one_answer_changes_no_other(scenario):
    scenario.identified(0.5).zero_()
    assert scenario.identified(0.5).any()
