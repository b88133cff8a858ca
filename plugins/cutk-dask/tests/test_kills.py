"""Workers and studies that are killed at any moment cost nothing that is finished, and change no result."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dask.distributed import LocalCluster

PATIENCE = 120
SOAK = int(os.environ.get("CUTK_SOAK", "0"))
MORE = {"alphas": [0.2, 0.4, 0.6, 0.8, 1.0], "seeds": 2}


class Workers:
    """Two workers of a scheduler that gives up on no cell; one that is killed is replaced."""

    def __init__(self, scheduler):
        self.scheduler, self.address, self.alive = scheduler, scheduler.scheduler_address, []

    def start(self):
        command = ("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.alive.append(process)

    @property
    def known(self):
        return len(self.scheduler.scheduler.workers)

    def kill(self, process):
        self.alive.remove(process)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def workers():
    with LocalCluster(
        n_workers=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 1000},
    ) as scheduler:
        found = Workers(scheduler)
        for _ in range(2):
            found.start()
        scheduler.wait_for_workers(2, timeout=PATIENCE)
        yield found
        for process in list(found.alive):
            found.kill(process)


class Killer(threading.Thread):
    """Kills one of two workers again and again, at random moments; the other one goes on."""

    def __init__(self, workers, chance):
        super().__init__(daemon=True)
        self.workers, self.chance, self.killed, self.over = workers, chance, 0, threading.Event()

    def run(self):
        while not self.over.wait(self.chance.uniform(0.05, 1)):
            if self.workers.known == 2:
                self.workers.kill(self.chance.choice(self.workers.alive))
                self.killed += 1
                self.workers.start()
                while self.workers.known == 2 and not self.over.wait(0.01):
                    pass  # until it is missed

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def test_workers_that_are_killed_at_many_moments_change_nothing(bench, workers, records, weights, tmp_path):
    alone, chance = bench(runs=tmp_path / "alone", **MORE), random.Random(SOAK)  # noqa: S311
    killed = turn = 0
    while killed < (400 if SOAK else 20):
        workers.scheduler.wait_for_workers(2, timeout=PATIENCE)
        with Killer(workers, chance) as killer:
            # Runs that travel are lost on their way, too.
            options = {"dask": {"shared": turn % 2 == 0}}
            found = bench(f"dask:{workers.address}", options=options, runs=f"runs-{turn}", **MORE)
        assert found.failures == []
        assert records(found.records) == records(alone.records)
        # A worker that was killed between the writing of a run and its move leaves what the next command clears away.
        again = bench(runs=f"runs-{turn}", **MORE)
        assert again.records == found.records  # down to seconds: nothing was computed
        assert weights(Path(f"runs-{turn}")) == weights(tmp_path / "alone")
        killed, turn = killed + killer.killed, turn + 1


def test_a_study_that_is_killed_goes_on_with_the_same_cluster(bench, started, workers, records, tmp_path):
    alone, chance = bench(runs=tmp_path / "alone"), random.Random(SOAK)  # noqa: S311
    executor = f"dask:{workers.address}"
    for turn in range(20 if SOAK else 2):
        workers.scheduler.wait_for_workers(2, timeout=PATIENCE)
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
