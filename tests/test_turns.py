"""Turns: processes that each want all processors compute one after the other, and none waits for good."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from cutk import turns as module
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.turns import Turns

# Takes turns for so many steps of 50 ms, and prints when each began and ended; "held" says that the first has begun.
COMPUTES = """
import sys, time
from pathlib import Path
from cutk.turns import Turns
steps = []
with Turns(Path(sys.argv[1])).taking() as before_step:
    while len(steps) < int(sys.argv[2]):
        before_step()
        began = time.monotonic()
        print(began, flush=True)
        while time.monotonic() < began + 0.05:
            pass
        steps.append(time.monotonic())
        print(steps[-1], flush=True)
"""


def computing(folder, steps):
    command = [sys.executable, "-c", COMPUTES, str(folder), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    """A process that has the turn for as long as the test lasts."""
    process = computing(tmp_path / "turns", 10**6)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_processes_compute_one_after_the_other_and_none_waits_until_another_has_ended(tmp_path):
    running = [computing(tmp_path / "turns", 30) for _ in range(3)]
    steps = []
    for number, process in enumerate(running):
        moments = [float(line) for line in process.communicate(timeout=60)[0].split()]
        assert process.returncode == 0
        assert len(moments) == 60
        steps += [(began, ended, number) for began, ended in zip(moments[::2], moments[1::2], strict=True)]
    steps.sort()
    assert all(ended <= began for (_, ended, _), (began, _, _) in itertools.pairwise(steps))
    # 1.5 s of computing each: with a turn of half a second, they alternate instead of ending one by one.
    order = [number for _, _, number in steps]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 3
    # Nobody is handed the processors for every step, which would cost more than it gains.
    assert changes < 20


def test_alone_a_process_never_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TURN", 0.0)
    alone = Turns(tmp_path / "turns")
    with alone.taking() as before_step:
        before_step()
        monkeypatch.setattr(alone._now, "release", lambda: pytest.fail("let go although nobody waits"))
        for _ in range(5):
            before_step()
        monkeypatch.undo()


def test_a_killed_process_leaves_its_turn_to_the_others(tmp_path, holder):
    other = Turns(tmp_path / "turns")
    os.kill(holder.pid, signal.SIGKILL)
    with other.taking() as before_step:
        before_step()
        assert other._now.is_locked


def test_the_turn_ends_with_the_last_computation_that_is_under_way(tmp_path):
    one, other = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    with one.taking() as before_step:
        with one.taking() as within:
            within()
        before_step()
        assert one._now.is_locked
    with other.taking() as before_step:
        before_step()
        assert other._now.is_locked


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes can't be stopped here")
def test_whoever_waits_for_a_stopped_process_goes_on_and_does_not_ask_at_every_step(
    tmp_path, holder, monkeypatch, caplog
):
    os.kill(holder.pid, signal.SIGSTOP)
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    other = Turns(tmp_path / "turns")
    with caplog.at_level("INFO", "cutk"), other.taking() as before_step:
        began = time.monotonic()
        before_step()
        assert 0.2 <= time.monotonic() - began < 10
        monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: pytest.fail("asked again"))
        before_step()
        monkeypatch.undo()
    assert "beside other studies" in caplog.text


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners here")
def test_a_folder_that_leads_elsewhere_is_not_written_to(tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "turns").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level("INFO", "cutk"), Turns(tmp_path / "turns").taking() as before_step:
        before_step()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "Expected a folder of this user's" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes can't be forked here")
def test_a_forked_process_waits_for_its_parent_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_folder", lambda: tmp_path / "turns")
    monkeypatch.setattr(module, "processors", lambda: torch.get_num_threads())
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    module._of.cache_clear()
    try:
        with module.turns() as before_step:
            before_step()
            child = os.fork()
            if not child:
                try:
                    with module.turns() as its_own:
                        its_own()
                    waited = module._of(os.getpid())._again > 0
                finally:
                    os._exit(0 if waited else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        module._of.cache_clear()


@pytest.mark.parametrize(
    ("threads", "cores", "takes"), [(1, 1, False), (1, 2, False), (2, 2, True), (4, 8, False), (5, 8, True)]
)
def test_turns_are_taken_by_those_that_leave_no_room_for_another(threads, cores, takes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(module, "processors", lambda: cores)
    monkeypatch.setattr(module, "_folder", lambda: tmp_path / "turns")
    module._of.cache_clear()
    try:
        with module.turns() as before_step:
            before_step()
            assert (tmp_path / "turns").exists() == takes
    finally:
        module._of.cache_clear()


def test_batches_that_lie_in_memory_wait_for_their_turn(monkeypatch):
    asked = []

    class Counting:
        def __enter__(self):
            return lambda: asked.append("step")

        def __exit__(self, *_):
            asked.append("end")

    monkeypatch.setattr("cutk.data.batches.turns", Counting)
    samples = Samples(torch.zeros(10, 3), torch.zeros(10, dtype=torch.int64), ("a", "b"))
    train = ResidentTrainSet(samples, Normalisation((0.0,) * 3, (1.0,) * 3))
    assert sum(len(batch.y) for batch in train.batches(None, 4)) == 10
    assert asked == ["step", "step", "step", "end"]
    asked.clear()
    assert len(next(train.batches(None, 4)).y) == 4  # nobody goes on with it
    assert asked == ["step", "end"]
