"""Who watches a run from a terminal, and from elsewhere."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from rich.console import Console

from cutk.cli import progress
from cutk.cli.messages import say
from cutk.cli.progress import PlainObserver, RichObserver, watching
from cutk.run.cells import Training, Unlearning

CELLS = [Training("badnet", 0, "original"), Training("badnet", 0, "gold"), Unlearning("badnet", 0, "ssd", 0.5)]


def watch(observer):
    observer.started(len(CELLS))
    for cell in CELLS:
        observer.cell_started(cell)
        observer.progress(cell, 1, 2)
    observer.cell_finished(CELLS[0], None, True)
    observer.cell_failed(CELLS[1], "it broke \x1b[31m")
    observer.cell_finished(CELLS[2], None, False)
    observer.warning("mind the gap")


def test_elsewhere_there_is_a_line_for_each_cell(capsys):
    watch(PlainObserver())
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] badnet, seed 0: original (read)",
        r"[2/3] badnet, seed 0: gold: failed: it broke \x1b[31m",
        "[3/3] badnet, seed 0: ssd at α = 0.5",
        "Warning: mind the gap",
    ]


def test_a_long_cell_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    minutes = itertools.count(0.0, 60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    observer = PlainObserver()
    observer.started(2)
    observer.cell_started(CELLS[2])
    observer.progress(CELLS[2], 3, 50)
    observer.progress(CELLS[2], 50, 50)
    said = "[1/2] badnet, seed 0: ssd at α = 0.5: 3 of 50, 20 s each, about 16 min left\n"
    assert capsys.readouterr().err == said


def test_long_parts_say_how_fast_they_are_and_what_is_left(capsys, monkeypatch):
    minutes = itertools.count(0.0, 60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    monkeypatch.setattr(progress, "stderr_console", lambda: Console(file=io.StringIO(), force_terminal=False))
    with progress.telling() as tell:
        tell("training", 0, 900)
        tell("training", 600, 900)
        tell("training", 900, 900)
        tell("training", 10, 900)  # anew
        tell("training", 70, 900)
    assert capsys.readouterr().err.splitlines() == [
        "training: 600 of 900, 10 a second, about 30 s left",
        "training: 10 of 900",
        "training: 70 of 900, 1.17 a second, about 12 min left",
    ]


def test_bars_say_it_too(terminal, monkeypatch):
    monkeypatch.setattr(progress, "stderr_console", lambda: terminal)
    with progress.telling() as tell:
        tell("training", 0, 900)
        tell("training", 600, 900)
    assert "600/900" in terminal.file.getvalue()
    assert "a second" in terminal.file.getvalue()


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_on_a_terminal_whatever_is_said_stands_above_the_bars(terminal):
    with RichObserver(terminal) as observer:
        watch(observer)
        say("said by somebody")
    lines = terminal.file.getvalue()
    for text in ("badnet, seed 0: gold: it broke \\x1b[31m", "mind the gap", "said by somebody"):
        assert text in lines
        assert "━" not in lines.partition(text)[2].partition("\n")[0]


def test_the_bars_are_out_of_the_way_of_whoever_looks_at_an_error(terminal):
    seen = []

    def cursor_is_shown():  # which live bars hide
        written = terminal.file.getvalue()
        return written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")

    error = ValueError("wrong")
    with RichObserver(terminal, lambda error: seen.append((error, cursor_is_shown()))) as observer:
        assert not cursor_is_shown()
        observer.error(error)
        assert not cursor_is_shown()
    assert seen == [(error, True)]
    RichObserver(terminal).error(error)  # nobody to tell


def test_after_ctrl_c_it_is_said_how_to_go_on(capsys):
    with pytest.raises(click.exceptions.Abort), watching(Path("here")):
        raise KeyboardInterrupt
    assert "Interrupted. Finished cells are in 'here'; the same command goes on from there." in capsys.readouterr().err
