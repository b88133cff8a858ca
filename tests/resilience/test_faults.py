"""Disks, clocks and neighbours that fail a study: it says so in a line, loses nothing, and goes on where it can."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it forks, and looks into /proc"),
    pytest.mark.xdist_group("faults"),
]

ERRORS = (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EMFILE, errno.EACCES, errno.EROFS)
MORE = ("--metric", "retain_class_accuracy", "--evaluate", "all")
FOREVER = 10**9


def check(bench, ran, wanted, before):
    """It said what was wrong, and nothing that was there is lost or moved."""
    assert ran.status in (0, 1, 2), ran.said
    assert "Traceback" not in ran.said
    assert not (bench.runs / "damaged").exists(), ran.said
    there = bench.results()
    assert {key: there.get(key) for key in before} == {key: there[key] for key in before if key in there}
    assert set(before) <= set(there), ran.said
    assert all(content in (wanted.get(key), before.get(key)) for key, content in there.items())
    if ran.status == 2:
        (line,) = [line for line in ran.said.splitlines() if line.startswith("Error: ")]
        assert "Choose another with --runs DIR" in line, line
    elif ran.status == 1:
        assert "failed" in ran.said.lower() or "Error: " in ran.said, ran.said
    return there


@pytest.mark.parametrize("story", ["a new folder", "a folder that is added to"])
def test_an_error_at_any_event_costs_its_own_cell_at_most(story, bench, uninterrupted, soak, chance):
    base = None if story == "a new folder" else uninterrupted().runs
    more = () if base is None else MORE
    bench.begin(base)
    before = bench.results() if base else {}
    whole = bench.run(*more)
    wanted = bench.results()
    first = chance.randrange(12)
    for at in range(1, whole.events + 1) if soak else range(1 + first, whole.events + 1, 12):
        for error in ERRORS if soak else (ERRORS[chance.randrange(len(ERRORS))],):
            bench.begin(base)
            ran = bench.run(*more, fault={"at": at, "until": at, "errno": error})
            there = check(bench, ran, wanted, before)
            if ran.status == 0:
                assert there == wanted
            elif ran.status == 1:  # what fails is one cell, and what needs it
                assert len(there) >= 1, ran.said
                assert os.strerror(error) in ran.said or "No such file" in ran.said, ran.said
            bench.resumed(wanted, *more)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails_for_good_loses_nothing(error, bench, uninterrupted, soak):
    wanted = uninterrupted().results()
    last = uninterrupted().whole.events
    for at in range(1, last + 1, 1 if soak else 40):
        bench.begin()
        ran = bench.run(fault={"at": at, "until": FOREVER, "errno": error})
        check(bench, ran, wanted, {})
        bench.resumed(wanted)


@pytest.fixture
def small_disk(bench):
    """A disk of a few pages in the place of the runs folder."""
    bench.begin()
    bench.runs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(bench.runs)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("it takes a right to mount")
    yield bench.runs
    subprocess.run(["umount", str(bench.runs)], check=True)


def test_a_full_disk_is_said_and_what_fitted_stays(bench, uninterrupted, small_disk):
    wanted = uninterrupted().results()
    ran = bench.run()
    there = check(bench, ran, wanted, {})
    assert ran.status == 1
    assert "No space left on device" in ran.said
    assert 0 < len(there) < len(wanted)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    bench.resumed(wanted)


def test_a_folder_that_is_read_only_is_one_line(bench, uninterrupted, tmp_path):
    wanted = uninterrupted().results()
    bench.begin(uninterrupted().runs)
    bench.runs.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "--bind", str(bench.runs), str(bench.runs)], capture_output=True, check=False
    ).returncode:
        pytest.skip("it takes a right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(bench.runs)], check=True)
        ran = bench.run()
        assert ran.status == 2
        assert ran.said.startswith("Error: Runs folder ")
        assert ran.said.count("\n") == 1
        assert "Read-only file system" in ran.said
        assert bench.results() == wanted
    finally:
        subprocess.run(["umount", str(bench.runs)], check=True)


def test_a_folder_that_is_removed_in_the_middle_is_filled_again(bench, uninterrupted, chance, soak):
    wanted = uninterrupted().results()
    for _ in range(40 if soak else 2):
        bench.begin()
        at = chance.randint(1, uninterrupted().whole.events)
        ran = bench.run(remove=at)
        assert ran.status in (0, 1), ran.said
        assert "Traceback" not in ran.said
        assert not (bench.runs / "damaged").exists(), ran.said
        bench.resumed(wanted)


@pytest.mark.parametrize(("days", "jump"), [(-4000, 1), (-2, None), (2, 1), (4000, None)], ids=str)  # before, during
def test_a_clock_that_jumps_changes_nothing(days, jump, bench, uninterrupted, chance):
    wanted = uninterrupted().results()
    bench.begin()
    # Somebody on another machine is at work, and somebody was an age ago.
    ages = {"there.1-1-ab": 0, "there.1-2-cd": 29, "there.1-3-ef": 31}
    for name, age in ages.items():
        folder = bench.runs / "train" / f".tmp-{name}"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age * 24 * 3600,) * 2)
    ran = bench.run(jump=jump or chance.randint(2, uninterrupted().whole.events), days=days)
    assert (ran.status, "Warning" in ran.said) == (0, False), ran.said
    assert bench.results() == wanted
    assert sorted(path.name for path in bench.runs.glob("*/.tmp-*")) == [".tmp-there.1-1-ab", ".tmp-there.1-2-cd"]


def test_two_on_one_folder_lose_nothing(bench, uninterrupted, chance, soak):
    plain, more = uninterrupted().results(), uninterrupted(*MORE).results()
    for turn in range(40 if soak else 4):
        bench.begin(uninterrupted().runs if turn % 2 else None)
        other = {"kill": chance.randint(1, 100), "whom": "itself"} if turn >= 2 else {}
        first, second = bench.at_once(bench.order(*MORE), bench.order(**other))
        assert first.status == 0, first.said
        assert "Warning" not in first.said + second.said, first.said + second.said
        assert second.status == 0 or other, second.said
        bench.run(*MORE)
        assert bench.litter() == []
        assert bench.results() == more
    assert plain.keys() == more.keys()
