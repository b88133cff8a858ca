"""Cells in this process and in others: the same results, whatever happens to the others."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

import cutk
from cutk.cli import main
from cutk_builtin.executors import processes
from cutk_builtin.executors.processes import Ear, Processes, Workers

ENV = {"CUTK_PLUGINS": "", "OMP_NUM_THREADS": "1"}
CUTK = (sys.executable, "-m", "cutk")
LEAST = ("bench", "-d", "fake", "--seeds", "1", "--recipe", "steps=3", "--alpha", "0.5,1")
# What a method does to its process, where it is told to; a test waits for an event, none for a time.
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

    def unlearn(self, task, state=None):
        print("printed by a method")
        task.log.progress(1, 2)
        task.log.scalar("loss", 0.5)
        few = len(task.identified) <= 10
        if self.options.how == "warn":
            os.environ["WILD"] = "1"
        if self.options.how == "kill" and few:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.how == "kill" and not pathlib.Path("killed once").exists():
            pathlib.Path("killed once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.how == "wait":
            sys.stderr.write(f"waiting {os.getpid()}\\n")  # in one piece, whatever the other one writes
            signal.pause()
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Wild]
'''


@pytest.fixture
def wild(tmp_path, monkeypatch, capfd):
    """Run the command in this process, with a method of which the built-in plugins know nothing."""
    (tmp_path / "wild.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)

    def go(how, *more, runs="runs"):
        command = (*LEAST, "--plugin", "wild.py", "-u", "wild", "-o", f"wild.how={how}", "--runs", runs, *more)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*command, "--json"])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=out, err=err)

    return go


def records(done):
    """Return what a command printed, without what a clock or a gauge measured."""
    found = json.loads(done.out)
    for record in found["records"]:
        record.pop("seconds")
        record["metrics"].pop("unlearn_seconds", None)
    return {record["key"]: record for record in found["records"]}


def weights(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/*/weights.safetensors")}


def test_processes_give_what_one_process_gives_bit_for_bit_and_tell_it(wild, tmp_path):
    serial = wild("warn", "-u", "cf", runs="one")
    both = wild("warn", "-u", "cf", "--executor", "processes:2", "--observer", "events", runs="two")
    assert (serial.code, both.code) == (0, 0), serial.err + both.err
    assert records(both) == records(serial)
    assert len(records(both)) == 6
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    # What a worker prints is no result, and what it has to say is said here.
    assert both.err.count("printed by a method") == 2
    assert "Warning: The unlearner 'wild' changed the environment variables; that was put back." in both.err
    assert "[6/6] " in both.err
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = {"role": "unlearned", "manipulation": "badnet", "seed": 0, "unlearner": "wild", "alpha": 1.0}
    assert [event["event"] for event in events if event.get("cell") == mine] == [
        *("cell_started", "progress", "scalar", "cell_finished"),
    ]
    assert any(event["event"] == "warning" for event in events)


def test_a_worker_that_is_killed_is_replaced_and_a_method_that_does_it_every_time_costs_its_own_cell(wild, tmp_path):
    done = wild("kill", "--executor", "processes:2")
    assert done.code == 1, done.err
    (failure,) = json.loads(done.out)["failures"]
    assert (failure["unlearner"], failure["alpha"]) == ("wild", 0.5)
    assert failure["reason"].startswith("Its worker process was killed 3 times")
    assert (tmp_path / "killed once").exists()
    assert [record["alpha"] for record in records(done).values() if record["unlearner"]] == [1.0]
    assert len(records(done)) == 3


SCRIPT = """
from cutk_builtin.executors.processes import Processes

with Processes(Processes.Options(workers=1)).open(print) as workers:
    print(workers.submit(max, 1).exception())
"""


def test_a_script_that_every_worker_would_start_again_is_told_how_to_begin(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command, env = [sys.executable, "script.py"], os.environ | ENV
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.stdout.splitlines()[-1] == (
        'No worker process could begin. In a script, what runs a study has to stand below if __name__ == "__main__":'
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing is killed so there")
def test_a_study_that_is_killed_leaves_no_folder_of_its_method(started, tmp_path):
    (tmp_path / "wild.py").write_text(METHOD)
    folders = tmp_path / "temporary"
    folders.mkdir()
    command = (*CUTK, *LEAST, "--plugin", "wild.py", "-u", "wild", "-o", "wild.how=wait", "--isolate")
    study = started(*command, cwd=tmp_path, env={**ENV, "TMPDIR": str(folders)})
    study.until(r"waiting (\d+)\n")
    assert [path.name[:12] for path in folders.glob("cutk-method-*")] == ["cutk-method-"]
    study.process.kill()
    study.end()  # when the method's process has ended, too
    assert list(folders.glob("cutk-method-*")) == []


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for is over nevertheless.
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        return file.read().rpartition(") ")[2][0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_ctrl_c_ends_the_workers(started, tmp_path):
    (tmp_path / "wild.py").write_text(METHOD)
    command = (*CUTK, *LEAST, "--plugin", "wild.py", "-u", "wild", "-o", "wild.how=wait", "--executor", "processes:2")
    study = started(*command, cwd=tmp_path, env=ENV)
    waiting = [int(process) for process in study.until(r"waiting (\d+)\n", 2)]
    study.interrupt()
    assert study.end() == (130, ""), study.said
    assert "Interrupted. Finished cells are in 'runs'; the same command goes on from there." in study.said
    assert "Traceback" not in study.said
    assert [each for each in waiting if is_there(each)] == []


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")]
)
def test_a_worker_that_cannot_be_started_costs_its_job_alone(error, monkeypatch):
    workers = Workers(2, SimpleNamespace(heard=True))

    def none(self):
        raise error

    monkeypatch.setattr(Workers, "_new", none)
    reason = workers.submit(print, "job").exception(timeout=1)
    assert isinstance(reason, cutk.CellError)
    assert str(reason) == f"No worker process could be started ({error}). Try fewer workers."


def lingers(job, send):
    """Leave a thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_worker_with_a_thread_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    with Processes(Processes.Options(workers=1)).open(lambda *_: None) as workers:
        process = workers.submit(lingers, "job").result(timeout=60)
        assert is_there(process)
    assert not is_there(process)


@pytest.mark.skipif(sys.platform == "win32", reason="workers call through a pipe there")
def test_a_worker_that_is_lost_while_it_calls_holds_up_no_end():
    ear = Ear(print)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(ear.address)
        closing = threading.Thread(target=ear.close, daemon=True)
        closing.start()
        closing.join(0.2)
    closing.join(20)
    assert not closing.is_alive()
