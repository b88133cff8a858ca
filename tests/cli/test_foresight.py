"""What is said of a run of hours, and of no other."""

from __future__ import annotations

import re

import pytest

from cutk.cli.foresight import Foresight, remark_if_long
from cutk.run.cells import Training, Unlearning
from cutk.run.observer import Observer
from cutk.run.store import Store
from cutk.run.study import Study


@pytest.fixture
def pass_takes(monkeypatch):
    """Let a pass over the training data take so many seconds, whatever the machine."""
    asked = []

    def set_to(seconds):
        def measured(study, cell, enough=0.0):
            asked.append(enough)
            return seconds

        monkeypatch.setattr("cutk.report.estimate.seconds_per_pass", measured)
        return asked

    return set_to


@pytest.fixture
def study(setup_of, tmp_path):
    def make(**over):
        return Study(setup_of(**over), Store(tmp_path / "runs"))

    return make


def test_a_run_of_over_an_hour_says_so_and_what_would_make_it_short(study, pass_takes):
    asked = pass_takes(1800.0)
    said = remark_if_long(study(seeds=2, recipe={"steps": 100, "batch_size": 32}))
    assert re.match(
        r"This takes about [\d.]+ (h|days) here, as far as a quick measurement tells: 8 cells, \d+ passes", said
    )
    assert "Shorter: --recipe steps=10, --search default, fewer --seeds, fewer --alpha, a smaller --model." in said
    assert "\n" not in said
    # What a few samples show to be quick enough needn't be measured better.
    assert 0 < asked[0] < 3600


def test_only_what_there_is_more_than_one_of_is_to_be_made_fewer(study, pass_takes):
    pass_takes(36000.0)
    said = remark_if_long(study(alphas=[1.0], unlearners=["none"], options={}, recipe={"steps": 50}))
    assert "Shorter: a smaller --model." in said


def test_a_short_run_says_nothing(study, pass_takes):
    pass_takes(0.5)
    assert remark_if_long(study()) == ""


def test_what_is_there_takes_no_time(study, pass_takes):
    study(alphas=[1.0]).run()
    pass_takes(36000.0)
    assert remark_if_long(study(alphas=[1.0])) == ""
    assert ": 1 cell, " in remark_if_long(study(options={"ssd": {"selection_weight": 2}}, alphas=[1.0]))


def test_a_run_of_many_seeds_is_looked_ahead_without_making_their_data(study, pass_takes, monkeypatch):
    pass_takes(1800.0)
    many = study(seeds=5000)
    seeds = set()
    scenario = many.worker.scenario
    monkeypatch.setattr(many.worker, "scenario", lambda m, seed: seeds.add(seed) or scenario(m, seed))
    assert ": 20000 cells," in remark_if_long(many)
    assert len(seeds) <= 20


def test_a_broken_model_is_left_to_its_cells(study, monkeypatch):
    broken = study()

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("cutk.report.estimate.synchronise", fail)
    assert remark_if_long(broken) == ""


class Hearing(Observer):
    name = "hearing"

    def __init__(self):
        super().__init__()
        self.said = []

    def warning(self, text):
        self.said.append(text)


@pytest.fixture
def watched(study, monkeypatch):
    """Watch two workers elsewhere, at a training each, of which a step takes so long."""

    def go(seconds, started=True, **over):
        clock, hearing = [100.0], Hearing()
        monkeypatch.setattr("cutk.cli.foresight.time.monotonic", lambda: clock[0])
        foresight = Foresight(hearing)
        foresight.study = study(executor="processes:2", recipe={"steps": 100, "batch_size": 32}, **over)
        cells = [Training("badnet", 0, role) for role in ("original", "gold")]
        if not started:
            cells = [Unlearning("badnet", 0, "ssd", alpha) for alpha in (0.5, 1.0)]
        for cell in cells:
            foresight.cell_started(cell)
        for done in range(1, 100):
            clock[0] += seconds
            for cell in cells:
                foresight.progress(cell, done, 100)
        return hearing.said

    return go


def test_where_others_compute_a_training_tells_how_long_it_takes(watched, study, monkeypatch):
    def measured(*_, **__):
        raise AssertionError("it was measured here")

    monkeypatch.setattr("cutk.report.estimate.timed_pass", measured)
    (said,) = watched(600.0, seeds=2)
    assert re.match(
        r"This takes about [\d.]+ (h|days) on 2 workers, as far as a training tells: 8 cells, \d+ passes", said
    )
    assert watched(600.0, started=False, seeds=2) == []  # how much of a method is done says less
    # Twice 2 trainings of 100 steps are the least: what they take, shared by two.
    hours = float(re.search(r"([\d.]+) (h|days)", said)[1]) * (24 if " days " in said[:30] else 1)
    assert hours > 2 * 2 * 100 * 600 / 3600 / 2


def test_a_short_run_elsewhere_opens_no_data_here(watched, monkeypatch):
    def opened(*_):
        raise AssertionError("it was opened here")

    monkeypatch.setattr("cutk.run.study.Study.sizes", opened)
    assert watched(0.01, seeds=2) == []
