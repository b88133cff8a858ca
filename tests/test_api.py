"""The Python API, against what the command line gives."""

from __future__ import annotations

import json
import sys

import pytest

import cutk

TINY = {
    "dataset": "fake",
    "unlearners": ["cf", "ssd"],
    "alphas": [0.5, 1.0],
    "seeds": 1,
    "precision": "fp32",
    "recipe": {"steps": 20, "batch_size": 32},
    "options": {
        "ssd": {"selection_weight": [1, 10], "dampening": 1},
        "convnet-small": {"width": 4},
        "cf": {"steps": 5},
    },
}


@pytest.fixture(autouse=True)
def built_ins_alone(monkeypatch):
    monkeypatch.setenv("CUTK_PLUGINS", "")


@pytest.fixture
def report(tmp_path):
    return cutk.bench(TINY, runs=tmp_path / "runs")


def test_a_report_is_what_the_command_line_prints(report, run, tmp_path):
    (tmp_path / "mine.toml").write_text(
        """
        dataset = "fake"
        unlearners = ["cf", "ssd"]
        alphas = [0.5, 1.0]
        seeds = 1
        precision = "fp32"
        recipe = {steps = 20, batch_size = 32}
        [options]
        ssd = {selection_weight = [1, 10], dampening = 1}
        convnet-small = {width = 4}
        cf = {steps = 5}
        """
    )
    printed = run("bench", "--preset", "mine.toml", "--runs", tmp_path / "runs", "--json").json
    assert json.loads(json.dumps(report.document())) == printed
    assert report.failures == []
    assert {record["unlearner"] for record in report.records} == {"none", "gold", "cf", "ssd"}
    assert [summary["unlearner"] for summary in report.summaries] == ["cf", "ssd"]
    assert repr(report) == "<cutk.Report: 6 records>"


def test_entries_go_over_the_plan_and_a_plan_may_be_a_preset(tmp_path):
    report = cutk.bench(
        "laptop/digits", runs=None, **{**TINY, "manipulations": ["badnet"], "unlearners": ["none"], "options": {}}
    )
    assert report.plan["dataset"] == "fake"
    assert report.plan["alphas"] == [0.5, 1.0]
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(tmp_path):
    told = []
    plan = {**TINY, "unlearners": ["none"], "options": {}}
    cutk.bench(plan, runs=None, progress=lambda *what: told.append(what))
    assert told[0] == (0, 4, "badnet, seed 0: original")
    assert told[-1] == (4, 4, "badnet, seed 0: none at α = 1")


def test_mistakes_are_usage_errors(tmp_path):
    with pytest.raises(cutk.UsageError, match="Unknown unlearner 'sdd'"):
        cutk.bench(TINY, unlearners=["sdd"], options={}, runs=tmp_path)
    with pytest.raises(cutk.UsageError, match="Which unlearner"):
        cutk.bench(dataset="fake")
    with pytest.raises(cutk.UsageError, match="Unknown entry 'unlearner' in the plan"):
        cutk.bench(TINY, unlearner="ssd")
    assert list(tmp_path.iterdir()) == []


def test_a_data_frame_has_a_row_for_each_record(report):
    pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert len(frame) == len(report.records)
    ssd = frame[(frame.unlearner == "ssd") & (frame.alpha == 1.0)].iloc[0]
    (record,) = [r for r in report.records if (r["unlearner"], r["alpha"]) == ("ssd", 1.0)]
    assert ssd.corrected_accuracy == record["metrics"]["corrected_accuracy"]
    assert json.loads(ssd.options) == record["options"]


def test_without_pandas_there_is_a_way_to_get_it(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(cutk.CutkError, match=r"pip install 'cutk\[pandas\]'"):
        report.to_pandas()


def test_notebooks_show_tables_and_a_figure(report):
    shown = report._repr_html_()
    for text in ("<table>", "<svg", "<figure>", "ssd", "Corrected accuracy"):
        assert text in shown
    assert "<script" not in shown
    page = report.html()
    assert page.startswith("<!DOCTYPE html>")
    assert "records" in page


def test_an_inline_plugin_may_come_along(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import cutk\n\nclass Mine(cutk.Unlearner):\n    'Does nothing.'\n    name = 'mine'\n\n"
        "    def unlearn(self, task, state=None):\n        return task.original\n\n"
        "@cutk.hookimpl\ndef cutk_unlearners():\n    return [Mine]\n"
    )
    report = cutk.bench(TINY, unlearners=["mine"], options={}, runs=None, plugins=[tmp_path / "mine.py"])
    assert report.records[-1]["unlearner"] == "mine"
