"""Studies that are killed at any moment go on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it forks, and looks into /proc"),
    pytest.mark.xdist_group("kills"),
]

# What a study adds to one that is there: a metric, for which a record is replaced; and grid points whose weights
# weren't kept, for which a run is.
MORE = ("--metric", "retain_class_accuracy", "--evaluate", "all")


@pytest.mark.parametrize("story", ["a new folder", "a folder that is added to"])
def test_a_study_that_is_killed_before_any_event_goes_on(story, bench, uninterrupted, soak):
    base = None if story == "a new folder" else uninterrupted().runs
    more = () if base is None else MORE
    bench.begin(base)
    whole = bench.run(*more)
    assert whole.status == 0, whole.said
    wanted = bench.results()
    whom, count = ("itself", whole.events) if soak else ("writer", whole.writes)
    assert count > 10
    for at in range(1, count + 1):
        bench.begin(base)
        assert bench.run(*more, kill=at, whom=whom).status == -signal.SIGKILL
        bench.resumed(wanted, *more)


def test_a_study_that_is_killed_at_any_moment_goes_on(executor, bench, uninterrupted, chance, soak):
    more = ("--executor", executor)
    whole = uninterrupted(*more)
    wanted = uninterrupted().results()
    assert whole.results() == wanted
    killed = []
    for turn in range(400 if soak else 20):
        bench.begin()
        at = chance.randint(1, whole.whole.events)
        ran = bench.run(*more, kill=at, whom=("group", "parent")[turn % 2])
        killed.append(ran.status == -signal.SIGKILL)
        bench.resumed(wanted, *more)
    assert sum(killed) > len(killed) / 2  # one or another was over before anybody heard of its last event


def test_real_processes_that_are_killed_go_on(executor, bench, uninterrupted, chance, soak):
    both = [os.kill, os.killpg]  # the parent alone, or all of them
    for whom in both * 10 if soak else both[:1]:
        bench.begin()
        pipe = bench.folder / f"events-{bench.turn}"
        os.mkfifo(pipe)
        bench.turn += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "cutk", *bench.ARGS, "--executor", executor, "-o", f"events.path={pipe}"],
            cwd=bench.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUTK_PLUGINS": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        at = chance.randint(2, 8)
        with pipe.open() as events:
            for number, _line in enumerate(events, 1):
                if number == at:
                    whom(process.pid, signal.SIGKILL)
                    break
            said = process.communicate()[1].decode()  # when no worker is left to hold it
        assert process.returncode == -signal.SIGKILL, said
        bench.resumed(uninterrupted().results(), "--executor", executor)


def test_a_study_that_is_killed_while_it_takes_notes_goes_on(bench, uninterrupted, soak):
    two = ("--seeds", "2")
    done = uninterrupted(*two)
    wanted = done.results()
    assert list(done.runs.glob("memo/*.json"))
    # Notes are what is written last.
    for at in range(done.whole.writes, done.whole.writes - (30 if soak else 12), -1):
        bench.begin()
        assert bench.run(*two, kill=at, whom="writer").status == -signal.SIGKILL
        bench.resumed(wanted, *two)
        bench.resumed(wanted, *two)


def test_a_resumed_study_that_is_killed_again_and_again_comes_to_its_end(bench, uninterrupted):
    wanted = uninterrupted().results()
    for turn in range(1, 30):
        ran = bench.run(kill=25 + turn % 3, whom="writer")
        if ran.status == 0:
            break
    assert ran.status == 0
    bench.resumed(wanted)
