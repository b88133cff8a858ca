"""What a study asks of an executor: never more than it can do, each cell when it can start, whatever is lost."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import pytest

import cutk
from cutk.run.cells import Training
from cutk.run.store import Store
from cutk.run.study import Study


class Later(cutk.Executor):
    """Does the job that it was given last, as soon as it has been given as many as it can do at once, or all."""

    name = "later"
    here = True

    class Options(cutk.Options):
        """How many."""

        slots: int = cutk.option(2, ge=1, help="how many at once")
        loses: str = cutk.option("", help="part of the name of the cell that is lost")

    most = 0
    closed = False

    @contextmanager
    def open(self, hear):
        executor, waiting = self, []

        class Pool:
            slots = self.options.slots

            def submit(self, function, job, /):
                future = Future()
                waiting.append((future, function, job))
                Later.most = max(Later.most, len(waiting))
                # Trainings wait for each other; nothing else has been given yet.
                if len(waiting) == self.slots or not isinstance(job.cell, Training):
                    for future_, function_, job_ in reversed(waiting):
                        if executor.options.loses and executor.options.loses in str(job_.cell):
                            future_.set_exception(OSError("the node is gone"))
                        else:
                            future_.set_result(function_(job_))
                    waiting.clear()
                return future

        try:
            yield Pool()
        finally:
            Later.closed = True


@pytest.fixture
def study(setup_of, having, tmp_path, watcher_class):
    """Make a study whose cells are computed later, and who watches it."""

    def make(*, runs="runs", **options):
        Later.most, Later.closed = 0, False
        setup = setup_of(unlearners=["none"], options={}, recipe={"steps": 3})
        setup = replace(setup, executor=having(setup, selector=(Later, options)).selector)
        watcher = watcher_class()
        return Study(setup, Store(tmp_path / runs), watcher), watcher

    return make


def test_results_are_in_the_plans_order_whatever_came_first(study):
    made, watcher = study()
    results = made.run()
    assert [(r.role, r.alpha) for r in results.records] == [
        *(("original", None), ("gold", None), ("unlearned", 0.5), ("unlearned", 1.0)),
    ]
    assert watcher.trained[0] == "badnet, seed 0: gold"
    assert (Later.most, Later.closed) == (2, True)


def test_a_cell_that_the_executor_loses_has_failed_with_all_that_need_it(study):
    made, watcher = study(loses="original")
    results = made.run()
    assert [r.role for r in results.records] == ["gold"]
    reasons = [failure.reason for failure in results.failures]
    assert reasons == ["OSError: the node is gone", *["There is no original model: OSError: the node is gone"] * 2]
    assert len(watcher.failed) == 3


def test_the_executor_is_closed_when_the_study_is_given_up(study):
    made, watcher = study()

    def interrupt(*_):
        raise KeyboardInterrupt

    watcher.cell_finished = interrupt
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert Later.closed


def test_one_without_open_is_no_executor():
    class Lacking(cutk.Executor):
        name = "lacking"

    assert Lacking().sharing == 1
    with pytest.raises(NotImplementedError, match=r"Lacking has no open\(\)"):
        Lacking().open(print)
