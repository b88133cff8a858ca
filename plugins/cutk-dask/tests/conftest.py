"""One cluster for all tests, and a method that does what it is told to the process that it is in."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest
from dask.distributed import LocalCluster

import cutk

LEAST = {
    "dataset": "fake",
    "alphas": [0.5, 1.0],
    "seeds": 1,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "recipe": {"steps": 3},
}
METHOD = '''
import os
import pathlib
import signal
import sys
import time

import cutk


class Wild(cutk.Unlearner):
    """Does what it is told to the process that it is in."""

    name = "wild"

    class Options(cutk.Options):
        """What."""

        how: str = cutk.option("nothing", help="what it does")
        mark: str = cutk.option("", help="a file by which it is told")

    def unlearn(self, task, state=None):
        print("printed by a method")
        for step in range(3):
            task.log.progress(step, 3)
            task.log.scalar("loss", 0.5)
        mark, few = pathlib.Path(self.options.mark), len(task.identified) <= 10
        if self.options.how == "warn":
            os.environ["WILD"] = "1"
        if self.options.how == "always" and few:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.how == "once" and few and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.how == "wait":
            with mark.open("a") as file:
                print(os.getpid(), file=file)
            while True:
                time.sleep(0.05)
                task.log.progress(1, 2)
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Wild]
'''


@pytest.fixture(scope="session")
def cluster():
    """Two worker processes with a GPU each, so to speak, of which a task may lose one."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        resources={"GPU": 1},
        scheduler_kwargs={"allowed_failures": 1},
    ) as found:
        yield found


@pytest.fixture
def address(cluster):
    """Return where its scheduler is, once both workers are there: one that was killed takes a while to come back."""
    cluster.wait_for_workers(2)
    return cluster.scheduler_address


@pytest.fixture(autouse=True)
def wild(tmp_path, monkeypatch):
    """The file with the method, in the folder in which a test works."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "wild.py"
    file.write_text(METHOD, encoding="utf-8")
    return file


@pytest.fixture
def bench(wild, tmp_path):
    """Run a benchmark with the method."""

    def go(executor="serial", how="nothing", *, plugins=(wild,), runs="runs", **more):
        mark = {} if how in ("nothing", "warn") else {"mark": str(tmp_path / "mark")}
        options = {"wild": {"how": how, **mark}, **more.pop("options", {})}
        return cutk.bench(
            LEAST, unlearners=["wild"], executor=executor, options=options, plugins=plugins, runs=runs, **more
        )

    return go


@pytest.fixture
def started(wild, tmp_path):
    """Start the command as a process; one that hangs says where each of its threads is, and ends."""
    begun = []

    def go(how, *more):
        mark = f"wild.mark={tmp_path / 'mark'}"
        command = [sys.executable, "-m", "cutk", "bench", "-d", "fake", "--seeds", "1", "--recipe", "steps=3"]
        command += ["--alpha", "0.5,1", "--plugin", str(wild), "-u", "wild", "-o", f"wild.how={how}", "-o", mark]
        process = subprocess.Popen(
            [*command, "--json", *more],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests themselves run in the background, they were told to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # It takes a tenth of this, and several times as long where others are at work.
        limit = threading.Timer(180, os.killpg, (process.pid, signal.SIGABRT))
        limit.daemon = True
        limit.start()
        begun.append((process, limit))
        return process

    yield go
    for process, limit in begun:
        limit.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def records():
    """What a benchmark found, without what a clock or a gauge measured."""

    def strip(found):
        plain = [r if isinstance(r, dict) else r.model_dump(mode="json") for r in found]
        kept = json.loads(json.dumps(plain))
        for record in kept:
            record.pop("seconds")
            record["metrics"].pop("unlearn_seconds", None)
        return kept

    return strip


@pytest.fixture
def weights():
    return lambda folder: {p.parent.name: p.read_bytes() for p in folder.glob("*/*/weights.safetensors")}
