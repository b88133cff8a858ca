"""Ctrl-C in ``cutk unlearn``, and the same command again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch

from cutk.repair import repairing

from .test_unlearn import case, given  # noqa: F401  # a fixture

SLOW = '''
import time
import cutk


class Slow(cutk.Unlearner):
    """Never ends."""

    name = "slow"

    def unlearn(self, task, state=None):
        while True:
            time.sleep(0.01)


@cutk.hookimpl
def cutk_unlearners():
    return [Slow]
'''


def stopped(*_):
    raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for one process")
def test_what_is_finished_is_taken_up_by_the_same_command(case):  # noqa: F811
    (case / "slow.py").write_text(SLOW)
    command = given("-u", "slow", "--plugin", "slow.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUTK_PLUGINS": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "cutk", *command],
        cwd=case,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background, they were told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    left = case / "repaired-unfinished"
    until = time.monotonic() + 120
    while not (left.is_dir() and any(re.fullmatch("[0-9a-f]{64}", path.name) for path in left.iterdir())):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. 1 finished candidate is in 'repaired-unfinished'; the same command goes on" in said
    assert not (case / "repaired").exists()


def test_a_kept_candidate_is_the_one_that_was_made(run, case, monkeypatch):  # noqa: F811
    assert run(*given()).code == 0
    whole = json.loads((case / "repaired" / "report.json").read_text())
    state = safetensors.torch.load_file(case / "repaired" / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "verdict_of", stopped)  # behind the last candidate
        ran = run(*given("--force"))
        assert ran.code == 130
        assert "1 finished candidate is in 'repaired-unfinished'" in ran.err
    (folder,) = (case / "repaired-unfinished").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "_tried", stopped)
        ran = run(*given("--force", "--resume"))
    assert ran.code == 0, ran.err
    assert "Going on from 'repaired-unfinished': ssd is there." in ran.err
    again = json.loads((case / "repaired" / "report.json").read_text())
    for name in ("seconds", "peak_bytes"):  # of two computations
        for report in (whole, again):
            del report["candidates"][0][name]
    assert again["candidates"] == whole["candidates"]
    assert again["verdict"] == whole["verdict"]
    repaired = safetensors.torch.load_file(case / "repaired" / "model.safetensors")
    assert all((repaired[key] == value).all() for key, value in state.items())
    assert not folder.parent.exists()


def test_what_a_kept_candidate_suspects_is_kept(run, case, monkeypatch):  # noqa: F811
    command = given("-u", "ssd+seeded-probe", "--force", without=("-u",))
    assert run(*command).code == 0
    suspects = (case / "repaired" / "suspects.csv").read_text()
    assert "probability of being bad, by ssd+seeded-probe" in suspects
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "verdict_of", stopped)
        assert run(*command).code == 130
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "_tried", stopped)
        assert run(*command, "--resume").code == 0
    assert (case / "repaired" / "suspects.csv").read_text() == suspects


def test_other_options_are_another_repair(run, case, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "verdict_of", stopped)
        assert run(*given()).code == 130
    ran = run(*given("--resume", "--max-accuracy-loss", "0.1"))
    assert ran.code == 2
    assert "--resume: nothing is finished of this repair in 'repaired-unfinished'" in ran.err
    (folder,) = (case / "repaired-unfinished").iterdir()
    (folder / "weights.safetensors").write_bytes(b"damaged")
    ran = run(*given())
    assert ran.code == 0, ran.err
    assert not folder.parent.exists()
