"""``--log-level``."""

from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from cutk.cli import logs, messages
from cutk.cli.progress import RichObserver
from cutk.run.cells import Training

LEAST = ("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "1", "--recipe", "steps=3")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) \[\S+ \d+\] cutk(\.\w+)+: .*")


@pytest.mark.parametrize("at", ["before", "behind"])
def test_lines_of_the_level_and_above_reach_stderr(run, at):
    def asked(level):
        told = ("--log-level", level)
        return run(*told, *LEAST) if at == "before" else run(*LEAST, *told)

    def levels(ran):
        assert ran.code == 0, ran.err
        assert not LINE.search(ran.out)
        return {found[1] for line in ran.err.splitlines() if (found := LINE.fullmatch(line))}

    assert levels(asked("info")) == {"INFO"}
    assert levels(asked("DEBUG")) == {"DEBUG", "INFO"}
    assert levels(asked("warning")) == set()


def test_without_it_nothing_is_logged_and_nothing_stays_behind(run):
    logger = logging.getLogger("cutk")
    before = logger.level, list(logger.handlers), logger.propagate
    logged = run("--log-level", "info", *LEAST)
    assert LINE.search(logged.err)
    assert (logger.level, list(logger.handlers), logger.propagate) == before
    plain = run(*LEAST)
    assert not LINE.search(plain.err)
    said = [line for line in logged.err.splitlines() if not LINE.fullmatch(line)]
    assert [line + " (read)" for line in said] == plain.err.splitlines()


def test_given_twice_the_inner_one_counts_and_a_line_comes_once(run):
    ran = run("--log-level", "debug", *LEAST, "--log-level", "info")
    assert "DEBUG" not in ran.err
    assert ran.err.count("badnet, seed 0: gold: started") == 1


def test_an_unknown_level_is_refused(run, tmp_path):
    for words in (("--log-level", "loud", *LEAST), (*LEAST, "--log-level", "loud")):
        ran = run(*words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            "Error: Invalid value for '--log-level': 'loud' is not one of 'debug', 'info', 'warning', 'error'.\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_line_obeys_no_terminal(run, capsys):
    with logs.shown("info"):
        logging.getLogger("cutk.run").info("of \x1b[31m and \u202e")
    assert capsys.readouterr().err.endswith(": of \\x1b[31m and \\u202e\n")


def test_on_a_terminal_lines_stand_above_the_bars(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    for module in (logs, messages):
        monkeypatch.setattr(module, "stderr_console", lambda: terminal)
    with logs.shown("info"), RichObserver(terminal) as observer:
        observer.started(1)
        observer.cell_started(Training("badnet", 0, "gold"))
        logging.getLogger("cutk.run.worker").info("said [by] somebody")
    written = terminal.file.getvalue()
    assert "cutk.run.worker: said [by] somebody" in re.sub(r"\x1b\[[\d;]*m", "", written)
    assert "━" not in written.partition("somebody")[2].partition("\n")[0]
