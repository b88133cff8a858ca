"""The command line as a whole: its commands, how it ends, and what it prints where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import cutk
from cutk.cli.messages import python_warnings, warn

ROOT = Path(__file__).parents[2]
CUTK = (sys.executable, "-m", "cutk")
CLEAN = {"CUTK_PLUGINS": ""}
QUICK = ("bench", "-d", "fake", "--alpha", "1", "--seeds", "1", "--precision", "fp32", "--device", "cpu")
TINY = (*QUICK, "--alpha", "0.5", "-o", "convnet-small.width=4", "--recipe", "steps=5", "batch_size=32")


def test_the_version(run):
    assert run("--version").out.startswith(f"cutk {cutk.__version__} (plugin API {cutk.API_VERSION}, torch ")


def test_the_version_names_who_provides_plugins(run, monkeypatch, tmp_path):
    folder = tmp_path / "third_party-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[cutk]\nmine = third_party.mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "third-party 1.0" in run("--version").out.splitlines()


def test_an_unknown_command_is_a_usage_error(run, error_of):
    assert "No such command 'benhc'" in error_of(run("benhc"))


def test_without_a_command_there_is_help_and_no_error(run):
    for command in ((), ("plugins",), ("presets",)):
        ran = run(*command)
        assert ran.code == 2
        assert ran.out.startswith("Usage: cutk")
        assert ran.err == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ((*TINY, "-u", "none"), 0),
        ((*TINY, "-u", "none", "--recipe", "lr=1e30"), 1),
        ((*TINY, "-u", "sdd"), 2),
        ((*TINY, "-u", "none", "--runs", ""), 2),
    ],
)
def test_how_it_ends(run, command, code):
    ran = run(*command)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert bool(ran.out) == (code == 0)


def test_its_process_ends_with_the_same_code(shell, tmp_path):
    ran = shell(*CUTK, *TINY, "-u", "none", "--recipe", "lr=1e30", cwd=tmp_path, env=CLEAN)
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_a_closed_pipe_is_no_traceback(tmp_path):
    pipe = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m cutk plugins list | head -n 1"],
        cwd=tmp_path,
        env={**os.environ, **CLEAN},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert "Traceback" not in pipe.stderr


def test_a_terminal_without_greek_gets_a_table_all_the_same(shell, tmp_path):
    env = {**CLEAN, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    ran = shell(*CUTK, *TINY, "-u", "none", cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    assert "corrected accuracy" in ran.stdout
    full = shell("sh", "-c", f"'{sys.executable}' -m cutk plugins list > /dev/full", cwd=tmp_path)
    assert full.returncode == 1
    assert "Error: OSError: [Errno 28]" in full.stderr
    assert "Traceback" not in full.stderr


def test_colours_are_for_terminals_and_for_who_wants_them(run, monkeypatch):
    # The reason of a broken plugin is red, where there are colours.
    monkeypatch.syspath_prepend(str(ROOT / "tests/broken_plugins/bad_name"))
    monkeypatch.setenv("CUTK_PLUGINS", "cutk-test-bad-name")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in run("plugins", "list").out
    coloured = re.compile(r"\x1b\[[\d;]*3\dm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert coloured.search(run("plugins", "list").out)
    # NO_COLOR takes the colours; bold type is none.
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(run("plugins", "list").out)


def test_python_warnings_are_a_line_each_and_said_once(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with python_warnings():
            for text in ("careful", "careful", "more\ncareful \x1b[31m"):
                warnings.warn(text, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r":\d+\)", ":0)", line) for line in lines] == [
        "Warning: careful (test_main.py:0)",
        r"Warning: more careful \x1b[31m (test_main.py:0)",
    ]


def test_deprecations_of_ours_are_said_and_others_are_their_authors_business(capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with python_warnings():
            warnings.warn("it is called otherwise since cutk 0.2.", DeprecationWarning, stacklevel=1)
            warnings.warn("numpy will drop this", DeprecationWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "since cutk 0.2" in lines[0]


def test_what_a_plugin_warns_of_is_a_line_of_stderr(shell, tmp_path, write):
    file = write("for _ in range(3): warnings.warn('mind the gap')", imports="warnings")
    command = (*CUTK, *TINY, "-u", "mine", "--plugin", file)
    ran = shell(*command, cwd=tmp_path, env=CLEAN)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("mind the gap") == 1
    assert "Warning: mind the gap (mine.py:" in ran.stderr


def test_who_tells_python_what_to_do_with_warnings_is_obeyed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["ignore"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with python_warnings():
            warnings.warn("it is called otherwise since cutk 0.2.", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


def test_what_comes_from_elsewhere_cannot_command_a_terminal(capsys):
    warn("a \x1b]0;title\x07 and\na line")
    assert capsys.readouterr().err == r"Warning: a \x1b]0;title\x07 and a line" + "\n"
