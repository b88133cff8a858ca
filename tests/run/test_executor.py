"""What a study asks of an executor: never more than it can do, each cell when it can start, whatever is lost."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import pytest

import cutk
from cutk.run import jobs
from cutk.run.cells import Training
from cutk.run.memo import Memo
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
        cancels: str = cutk.option("", help="part of the name of the cell that is cancelled")

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
                        elif executor.options.cancels and executor.options.cancels in str(job_.cell):
                            future_.cancel()
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


def test_a_cell_that_is_cancelled_has_failed(study):
    made, _ = study(cancels="none at α = 1")
    results = made.run()
    assert [r.role for r in results.records] == ["original", "gold", "unlearned"]
    assert [failure.reason for failure in results.failures] == ["Its job was cancelled."]


def test_no_data_stay_behind(study):
    made, watcher = study()
    made.run()
    assert jobs._OPEN == []
    again, watcher = study()
    assert len(again.run().records) == 4
    assert watcher.trained == []


def test_the_executor_is_closed_when_the_study_is_given_up(study):
    made, watcher = study()

    def interrupt(*_):
        raise KeyboardInterrupt

    watcher.cell_finished = interrupt
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert Later.closed


def nothing(_self, _hear):
    return None


@contextmanager
def fails_to_open(_self, _hear):
    raise OSError("no such cluster")
    yield


@contextmanager
def has_no_slots(_self, _hear):
    yield object()


@contextmanager
def gives_results(_self, _hear):
    class Pool:
        slots = 1

        def submit(self, function, job, /):
            return function(job)

    yield Pool()


@contextmanager
def takes_nothing(_self, _hear):
    class Pool:
        slots = 1

        def submit(self, _function, _job, /):
            raise OSError("the queue is full")

    yield Pool()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (nothing, r"open\(\) failed: expected a context manager \(@contextmanager\), got NoneType\. Mend it"),
        (fails_to_open, r"open\(\) failed: OSError: no such cluster"),
        (has_no_slots, r"open\(\) failed: expected a pool with slots.*, got slots = None\."),
        (gives_results, r"submit\(\) failed: expected a concurrent.futures.Future, got Done\."),
        (takes_nothing, r"submit\(\) failed: OSError: the queue is full"),
    ],
)
def test_an_executor_that_is_at_fault_is_named(study, monkeypatch, method, said):
    monkeypatch.setattr(Later, "open", method)
    made, _ = study()
    with pytest.raises(cutk.UsageError, match=rf"^The executor 'later' of mine==1: {said}"):
        made.run()


def test_one_without_open_is_no_executor():
    class Lacking(cutk.Executor):
        name = "lacking"

    assert Lacking().sharing == 1
    with pytest.raises(NotImplementedError, match=r"Lacking has no open\(\)"):
        Lacking().open(print)


class Away(cutk.Executor):
    """Does each job at once, as a process elsewhere would that doesn't see the runs folder, or sees another one."""

    name = "away"
    alive = ()

    class Options(cutk.Options):
        """What it sees."""

        sees: bool = cutk.option(False, help="whether it is another folder of this name")
        workers: int = cutk.option(0, help="how many take turns, and outlive the study; else one")
        bf16: str = cutk.option("", help="what the names of cells hold that come to workers which choose bf16")

    @property
    def sees_runs(self):
        return self.options.sees

    @contextmanager
    def open(self, hear):
        elsewhere, workers, bf16 = self.options.sees, [[]], self.options.bf16
        if self.options.workers:
            Away.alive = workers = Away.alive or [[] for _ in range(self.options.workers)]

        class Pool:
            slots = 1

            def submit(self, function, job, /):
                workers.append(workers.pop(0))
                here, jobs._OPEN = jobs._OPEN, workers[0]
                future = Future()
                try:
                    job = pickle.loads(pickle.dumps(job))  # noqa: S301
                    if bf16 and bf16 in str(job.cell):
                        job = job._replace(plan=job.plan.model_copy(update={"precision": "bf16"}))
                    if elsewhere:
                        there = job.runs.parent / "elsewhere"
                        there.mkdir(exist_ok=True)
                        job = job._replace(runs=there)
                    future.set_result(pickle.loads(pickle.dumps(function(job, hear))))  # noqa: S301
                finally:
                    jobs._OPEN = here
                return future

        yield Pool()


@pytest.fixture
def away(setup_of, having, tmp_path, watcher_class, monkeypatch):
    """Run a study elsewhere."""
    monkeypatch.setenv("CUTK_PLUGINS", "")
    monkeypatch.setattr(Away, "alive", [])

    def run(**options):
        setup = setup_of(unlearners=["none"], options={}, recipe={"steps": 3})
        setup = replace(setup, executor=having(setup, selector=(Away, options)).selector)
        watcher = watcher_class()
        return Study(setup, Store(tmp_path / "runs"), watcher).run(), watcher

    return run


def test_runs_that_travel_lie_where_they_would_lie_otherwise(away, study, stripped, tmp_path):
    here = study(runs="here")[0].run()
    results, watcher = away()
    assert stripped(results.records) == stripped(here.records)
    assert results.computed == 4

    def weights(name):
        return {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).glob("*/*/weights*")}

    assert weights("runs") == weights("here")
    assert len(weights("runs")) == 4
    results, watcher = away()
    assert (results.computed, len(watcher.read)) == (0, 4)


@pytest.mark.parametrize(("bf16", "count"), [("", 4), ("gold", 3)])
def test_what_workers_of_this_environment_called_their_runs_is_noted_here(away, monkeypatch, bf16, count):
    noted, note = {}, Memo.note
    monkeypatch.setattr(
        Memo, "note", lambda memo, cell, key: (noted.setdefault(memo, {}).update({cell: key}), note(memo, cell, key))
    )
    kept = []
    monkeypatch.setattr(Memo, "keep", lambda memo: kept.append(memo))
    results, _ = away(bf16=bf16)
    (mine,) = kept
    assert set(noted[mine].values()) <= {run.key for run in results.runs}
    assert len(noted[mine]) == count


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_in_turns_train_each_model_once(away, study, stripped, workers):
    here = study(runs="here")[0].run()
    results, watcher = away(workers=workers)
    assert stripped(results.records) == stripped(here.records)
    assert sorted(watcher.computed) == sorted(watcher.trained)
    assert len(watcher.trained) == 4
    again, _ = away(workers=workers)
    assert again.records == results.records  # to the second: what is told is what is stored


def test_workers_give_again_what_they_hold_and_the_folder_has_lost(away, tmp_path):
    results, _ = away(workers=2)
    shutil.rmtree(tmp_path / "runs")
    again, _ = away(workers=2)
    assert again.failures == []
    assert [record.key for record in again.records] == [record.key for record in results.records]
    assert len(list((tmp_path / "runs").glob("*/*/weights.safetensors"))) == 4


def test_workers_that_compute_differently_are_not_mixed(away):
    results, _ = away(bf16="α = 1")
    assert [(run.labels.role, run.labels.alpha) for run in results.runs] == [
        *(("original", None), ("gold", None), ("unlearned", 0.5)),
    ]
    (failure,) = results.failures
    assert "would begin with another original model than the study's (precision bf16, there fp32)" in failure.reason


def test_a_failure_is_forgotten_whatever_the_cell_is_called_elsewhere(away, study, tmp_path):
    failed, _ = study(loses="original")
    failed.run()
    assert Store(tmp_path / "runs").failures()
    results, _ = away(bf16="seed")
    assert results.failures == []
    assert Store(tmp_path / "runs").failures() == []


def test_a_damaged_run_is_set_aside_here_and_computed_there(away, tmp_path):
    results, _ = away()
    original = tmp_path / "runs" / "train" / results.records[0].key / "weights.safetensors"
    whole = original.read_bytes()
    original.write_bytes(bytes(len(whole)))
    results, watcher = away()
    assert [warning for warning in watcher.warnings if "set aside" in warning]
    assert watcher.computed == ["badnet, seed 0: original"]
    assert original.read_bytes() == whole


def test_a_run_that_cannot_be_kept_here_costs_its_cell(away, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    results, _ = away()
    assert results.records == []
    assert results.failures[0].reason.startswith("OSError: [Errno 28] No space left on device")


def test_another_folder_of_the_same_name_is_noticed(away, tmp_path):
    results, _ = away(sees=True)
    assert results.records == []
    said = f"The run isn't in the folder '{tmp_path / 'runs'}': its worker writes to another one of this name."
    assert results.failures[0].reason.startswith(said)


def test_nothing_is_written_where_there_are_no_workers(away, monkeypatch, tmp_path):
    def refuse(*_):
        raise cutk.UsageError("no workers")

    monkeypatch.setattr(Away, "open", refuse)
    with pytest.raises(cutk.UsageError, match="no workers"):
        away()
    assert not (tmp_path / "runs").exists()
