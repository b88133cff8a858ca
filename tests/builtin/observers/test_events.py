"""Events as lines of JSON."""

from __future__ import annotations

import json

import pytest

from cutk.run.cells import Training, Unlearning
from cutk.testing.observers import run_of

CELL = Unlearning("badnet", 0, "ssd", 0.5)


@pytest.fixture
def events(registry, tmp_path):
    component = registry.get("observer", "events").component
    return component(component.Options(path=str(tmp_path / "events.jsonl")))


@pytest.fixture
def lines(tmp_path):
    def read():
        text = (tmp_path / "events.jsonl").read_text(encoding="utf-8")
        return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]

    return read


def test_each_event_is_a_line_as_soon_as_it_happens(events, lines):
    events.started(2)
    assert [line["cells"] for line in lines()] == [2]
    events.cell_started(CELL)
    events.progress(CELL, 1, 3)
    events.scalar(CELL, "loss", 0, 0.5)
    events.scalar(CELL, "loss", 1, float("nan"))
    assert len(lines()) == 5  # and the study goes on
    events.warning("of α and \ud800")
    events.cell_finished(CELL, run_of(CELL), False)
    events.cell_failed(Training("badnet", 0, "gold"), "it broke")
    events.finished()
    found = lines()
    assert [line.pop("order") for line in found] == list(range(9))
    seconds = [line.pop("seconds") for line in found]
    assert seconds == sorted(seconds)
    labels = {"role": "unlearned", "manipulation": "badnet", "seed": 0, "unlearner": "ssd", "alpha": 0.5}
    gold = {"role": "gold", "manipulation": "badnet", "seed": 0}
    assert found == [
        {"event": "started", "cells": 2},
        {"event": "cell_started", "cell": labels},
        {"event": "progress", "cell": labels, "done": 1, "total": 3},
        {"event": "scalar", "cell": labels, "name": "loss", "step": 0, "value": 0.5},
        {"event": "scalar", "cell": labels, "name": "loss", "step": 1, "value": None},
        {"event": "warning", "text": "of α and ?"},
        {"event": "cell_finished", "cell": labels, "key": run_of(CELL).key, "read": False, "seconds_taken": 0.5},
        {"event": "cell_failed", "cell": gold, "reason": "it broke"},
        {"event": "finished"},
    ]


def test_another_study_adds_to_the_file_and_counts_anew(events, lines):
    for _ in range(2):
        events.started(0)
        events.finished()
    assert [(line["order"], line["event"]) for line in lines()] == [(0, "started"), (1, "finished")] * 2


def test_the_command_writes_them_and_a_file_that_cannot_be_written_costs_a_warning(run, tmp_path):
    least = ("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "1", "--recipe", "steps=3")
    ran = run(*least, "--observer", "events")
    assert ran.code == 0, ran.err
    found = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in found if line["event"] != "progress"] == [
        *("started", *("cell_started", "cell_finished") * 3, "finished"),
    ]
    assert {line["key"] for line in found if "key" in line} == {
        p.parent.name for p in tmp_path.glob("runs/*/*/record.json")
    }
    refused = run(*least, "--observer", "events", "-o", "events.path=missing/events.jsonl")
    assert refused.code == 0
    assert "Warning: The observer 'events' failed, and is told no more: FileNotFoundError" in refused.err


def test_warnings_are_written_whenever_they_come(events, lines):
    events.warning("early")
    events.started(0)
    events.finished()
    events.warning("late")
    assert [(line["event"], line.get("text")) for line in lines()] == [
        *(("started", None), ("warning", "early"), ("finished", None), ("warning", "late")),
    ]
