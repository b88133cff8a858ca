"""A cell as plain data, computed by whoever has what the plan names."""

from __future__ import annotations

import pickle

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
