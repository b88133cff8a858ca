"""A cell as plain data, computed by whoever has what the plan names."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

import cutk
from cutk.run import jobs
from cutk.run.cells import Training, Unlearning
from cutk.run.jobs import Failed, Job, work
from cutk.run.store import Store

ORIGINAL = Training("badnet", 0, "original")


@pytest.fixture
def job_of(setup_of, tmp_path, monkeypatch):
    """Make a job as it reaches another process: nothing of it is known here."""
    monkeypatch.setenv("CUTK_PLUGINS", "")
    monkeypatch.setattr(jobs, "_OPEN", [])

    def make(cell=ORIGINAL, *, plan=None, inline=(), providers=None, **over):
        setup = setup_of(unlearners=["none"], options={}, recipe={"steps": 3}, alphas=[1.0], **over)
        found = setup.plan.model_copy(update=plan or {})
        job = Job(found, tuple(inline), tmp_path / "runs", providers or setup.providers(), cell)
        return pickle.loads(pickle.dumps(job))  # noqa: S301

    return make


@pytest.fixture
def answered():
    """Do a job that is sent the runs that it asks for."""
    return lambda job, *parcels: work(job._replace(asked=work(job).runs, parcels=parcels))


def test_a_plan_is_opened_once_and_what_happens_is_sent(job_of, tmp_path):
    sent = []
    Store(tmp_path / "runs").open()
    done = work(job_of(), lambda *what: sent.append(what))
    assert (done.run.labels.role, done.read) == ("original", False)
    assert sent[0] == ("cell_started", (ORIGINAL,))
    assert ("progress", (ORIGINAL, 3, 3)) in sent
    ((_, opened),) = jobs._OPEN
    last = Unlearning("badnet", 0, "none", 1.0)
    assert work(job_of(last)).run.unlearner.name == "none"
    assert work(job_of()).read
    assert [worker for _, worker in jobs._OPEN] == [opened]


def test_what_a_worker_lacks_is_named(job_of):
    failed = work(job_of(plan={"unlearners": ("nobodys",)}))
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("The worker on '")
    assert "can't carry out the plan: Unknown unlearner 'nobodys'." in failed.reason


def test_a_worker_with_another_version_is_named(job_of):
    failed = work(job_of(providers={"cutk": "0.0.1"}))
    assert f"has cutk {cutk.__version__}, and the study has 0.0.1. Install the same on both." in failed.reason


def test_a_cell_that_fails_is_a_value_with_its_traceback(job_of, tmp_path):
    Store(tmp_path / "runs").open()
    failed = work(job_of(Unlearning("badnet", 0, "nobodys", 1.0)))
    assert isinstance(failed, Failed)
    assert "Traceback" in failed.traceback


LAST = Unlearning("badnet", 0, "none", 1.0)


def test_a_worker_that_does_not_see_the_runs_folder_says_so(job_of, tmp_path):
    failed = work(job_of())
    assert isinstance(failed, Failed)
    assert f"doesn't see the runs folder '{tmp_path / 'runs'}'" in failed.reason
    assert not (tmp_path / "runs").exists()


def test_runs_come_with_a_job_and_leave_with_its_result(job_of, answered, tmp_path):
    away, store = {"runs": None}, Store(tmp_path / "runs")
    lacking = work(job_of()._replace(**away))
    (asked,) = lacking.runs
    assert asked[0] == "train"
    done = answered(job_of()._replace(**away))
    (original,) = done.parcels
    assert (done.read, original.run, original.run.key) == (False, done.run, asked[1])
    assert not store.root.exists()
    # An original is kept, where unlearning follows, until another one is.
    assert [kind for kind, _ in work(job_of(LAST)._replace(**away)).runs] == ["unlearn"]
    assert len(answered(job_of(LAST)._replace(**away)).parcels) == 1
    answered(job_of(replace(ORIGINAL, role="gold"))._replace(**away))
    assert [kind for kind, _ in work(job_of(LAST)._replace(**away)).runs] == ["unlearn", "train"]
    # What was sent is read, and what is read isn't sent back.
    again = answered(job_of()._replace(**away), original)
    assert (again.read, again.parcels, again.run) == (True, (), original.run)
    # It is what a worker would have written that sees the folder.
    store.open()
    there = work(job_of()).run
    assert store.parcel("train", there.key).weights == original.weights
    assert there.weights_sha256 == original.run.weights_sha256


def test_a_worker_that_was_not_asked_before_asks_for_what_it_lacks(job_of, answered, monkeypatch):
    away = {"runs": None}
    (original,) = answered(job_of()._replace(**away)).parcels
    asked = work(job_of(LAST)._replace(**away)).runs
    job = job_of(LAST)._replace(runs=None, asked=asked)
    monkeypatch.setattr(jobs, "_OPEN", [])  # another worker
    (missing,) = work(job).runs
    assert missing == ("train", original.run.key)
    done = work(job._replace(asked=(*asked, missing), parcels=(original,)))
    assert [parcel.run.key for parcel in done.parcels] == [done.run.key]  # the original wasn't trained anew


@pytest.mark.parametrize("kept", [False, True])
def test_a_worker_that_would_begin_with_another_original_does_nothing(job_of, answered, kept):
    runs = {} if kept else {"runs": None}
    if kept:
        Store(job_of().runs).open()
    there = (work if kept else answered)(job_of()._replace(**runs)).run.trained
    assert (work if kept else answered)(job_of(LAST)._replace(original=there, **runs)).run.trained == there
    for _ in range(2):  # whether or not it has noted what its own would be
        other = there.model_copy(update={"precision": "bf16", "data": "others"})
        failed = (work if kept else answered)(job_of(LAST)._replace(original=other, **runs))
        assert isinstance(failed, Failed)
        assert f"(precision fp32, there bf16; data {there.data}, there others)" in failed.reason
        assert failed.reason.endswith("Give --device and --precision, and let all workers have the same data.")


def test_a_run_that_is_held_and_was_lost_elsewhere_is_sent_again(job_of, answered):
    away = {"runs": None}
    (original,) = answered(job_of()._replace(**away)).parcels
    again = answered(job_of()._replace(**away))
    assert (again.read, again.parcels) == (True, (original,))
    assert answered(job_of()._replace(**away), original).parcels == ()


def test_a_record_that_is_completed_leaves_with_its_weights(job_of, answered):
    (original,) = answered(job_of(metrics=["corrected_accuracy"])._replace(runs=None)).parcels
    more = job_of(metrics=["corrected_accuracy", "retain_class_accuracy"])
    done = answered(more._replace(runs=None), original)
    (parcel,) = done.parcels
    assert done.read
    assert parcel.weights == original.weights
    assert len(parcel.run.chosen.metrics) > len(original.run.chosen.metrics)
    assert parcel.run.weights_bytes == len(original.weights)
