"""Workers and studies that are killed at any moment cost nothing that is finished, and change no result."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from dask.distributed import LocalCluster

SOAK = int(os.environ.get("CUTK_SOAK", "0"))
MORE = {"alphas": [0.2, 0.4, 0.6, 0.8, 1.0], "seeds": 2}


@pytest.fixture(scope="module")
def patient():
    """Two workers, and a scheduler that gives up on no cell."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 1000},
    ) as found:
        yield found


class Killer(threading.Thread):
    """Kills one of a cluster's workers again and again, at random moments."""

    def __init__(self, cluster, chance):
        super().__init__(daemon=True)
        self.cluster, self.chance, self.killed, self.over = cluster, chance, 0, threading.Event()

    def run(self):
        while not self.over.wait(self.chance.uniform(0.5, 4)):
            self.cluster.scale(2)  # Dask replaces one that dies when it is known for long enough
            known = set(self.cluster.scheduler.workers)
            alive = [nanny.pid for nanny in self.cluster.workers.values() if nanny.worker_address in known]
            if alive:
                os.kill(self.chance.choice(alive), signal.SIGKILL)
                self.killed += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def test_workers_that_are_killed_at_many_moments_change_nothing(bench, patient, records, weights, tmp_path):
    alone, chance = bench(runs=tmp_path / "alone", **MORE), random.Random(SOAK)  # noqa: S311
    killed = turn = 0
    while killed < (400 if SOAK else 20):
        patient.wait_for_workers(2)
        with Killer(patient, chance) as killer:
            # Runs that travel are lost on their way, too.
            options = {"dask": {"shared": turn % 2 == 0}}
            found = bench(f"dask:{patient.scheduler_address}", options=options, runs=f"runs-{turn}", **MORE)
        assert found.failures == []
        assert records(found.records) == records(alone.records)
        assert weights(Path(f"runs-{turn}")) == weights(tmp_path / "alone")
        killed, turn = killed + killer.killed, turn + 1


def test_a_study_that_is_killed_goes_on_with_the_same_cluster(bench, started, patient, records, tmp_path):
    alone, chance = bench(runs=tmp_path / "alone"), random.Random(SOAK)  # noqa: S311
    executor = f"dask:{patient.scheduler_address}"
    for turn in range(20 if SOAK else 2):
        patient.wait_for_workers(2)
        process = started(
            "nothing", "--executor", executor, "--threads", "1", "--observer", "events", "--device", "cpu"
        )
        at = chance.randint(2, 14)
        told = Path("events.jsonl")
        while process.poll() is None and not (told.exists() and told.read_text(encoding="utf-8").count("\n") >= at):
            threading.Event().wait(0.01)
        process.kill()
        process.communicate()
        finished = {path.parent.name: path.stat().st_mtime_ns for path in Path("runs").glob("*/*/record.json")}
        # The command's method has a mark that isn't given here, so these are the trainings alone.
        found = bench(executor)
        assert found.failures == []
        assert records(found.records) == records(alone.records)
        after = {path.parent.name: path.stat().st_mtime_ns for path in Path("runs").glob("*/*/record.json")}
        assert {key: after[key] for key in finished} == finished, turn
        told.unlink(missing_ok=True)
