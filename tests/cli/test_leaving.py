"""A process that leaves at once has done all that one does that ends as usual, but for taking its memory apart."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEFORE = """
import atexit, sys, threading, time
class Last:
    def __del__(self): print("taken apart", flush=True)
last = Last()
last.itself = last  # goes when the interpreter does
atexit.register(print, "registered")
sys.modules['torch'] = sys
from cutk.cli.leaving import leave
print("printed")
"""


def ends(code):
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + code], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.split("\n"), done.stderr


def test_what_is_registered_is_done_and_what_is_printed_is_printed():
    assert ends("leave(3)") == (3, ["printed", "registered", ""], "")
    # The usual way does that, too, and takes longer.
    assert ends("sys.exit(3)") == (3, ["printed", "registered", "taken apart", ""], "")


@pytest.mark.parametrize(
    "code",
    [
        "del sys.modules['torch']",
        "threading.Thread(target=lambda: (time.sleep(0.2), print('in time'))).start()",
        "sys.setprofile(lambda *_: None)",
        "sys.settrace(lambda *_: None)",
    ],
)
def test_it_returns_where_the_usual_way_is_needed(code):
    code, printed, said = ends(f"{code}\nleave(3)\nprint('usual')")
    assert (code, said) == (0, "")
    assert printed[:2] == ["printed", "usual"]
    assert set(printed[2:]) <= {"in time", "registered", "taken apart", ""}
    assert "registered" in printed


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="this Python has none")
def test_it_returns_where_a_tool_watches():
    assert ends("sys.monitoring.use_tool_id(1, 'coverage')\nleave(3)\nprint('usual')")[1][1] == "usual"


def test_output_that_cannot_be_written_is_left_to_the_usual_way():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", BEFORE + "leave(3)"],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 120  # what Python says of it
    assert "No space left on device" in done.stderr


def test_the_command_leaves_that_way(tmp_path):
    code = (
        "import atexit, sys; atexit.register(lambda: print('registered')); "
        "sys.argv[1:] = ['plugins', 'show', 'nothing-of-this-name']; from cutk.__main__ import run; run()"
    )
    before = BEFORE.replace("sys.modules['torch'] = sys", "").partition("atexit.register")[0]
    done = subprocess.run(
        [sys.executable, "-c", before + code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == "registered\n"
    assert done.stderr.startswith("Error: ")
