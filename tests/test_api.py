"""The Python API, against what the command line gives."""

from __future__ import annotations

import gc
import inspect
import json
import re
import shutil
import sys
import tempfile
import typing

import pytest

import cutk
from cutk.run.plan import Plan

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
    assert {(record["role"], record["unlearner"]) for record in report.records} == {
        *(("original", None), ("gold", None), ("unlearned", "cf"), ("unlearned", "ssd")),
    }
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
        cutk.bench({**TINY, "unlearner": "ssd"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"unlearner": ["ssd"]}, r"cutk.bench\(\) has no argument 'unlearner'. Did you mean 'unlearners'?"),
        ({"alpha": 1}, "no argument 'alpha'. Did you mean 'alphas'?"),
        ({"unlearners": {"ssd": 1}}, "Plan entry 'unlearners': expected a list, each a text, got {'ssd': 1}"),
        ({"unlearners": ["ssd"], "alphas": "half"}, "Plan entry 'alphas': expected a list"),
        ({"unlearners": ["ssd"], "seeds": 0}, "Plan entry 'seeds'"),
        ({"unlearners": ["ssd"], "recipe": ["sgd"]}, "Plan entry 'recipe'"),
    ],
)
def test_what_an_argument_may_be_is_said(arguments, words):
    with pytest.raises(cutk.UsageError, match=words):
        cutk.bench(TINY, runs=None, **arguments)


def test_one_may_stand_where_several_are_expected():
    report = cutk.bench(
        dataset="fake",
        manipulations="badnet",
        unlearners="none",
        metrics="passes",
        alphas=1,
        seeds=[4],
        recipe="adamw",
        device="cpu",
        options={"convnet-small": {"width": 4}},
        runs=None,
    )
    plan = report.plan
    assert (plan["manipulations"], plan["unlearners"], plan["alphas"]) == (["badnet"], ["none"], [1.0])
    assert (plan["metrics"], plan["seeds"], plan["recipe"]["name"]) == (["passes"], [4], "adamw")


def test_every_entry_of_a_plan_is_an_argument():
    taken = set(inspect.signature(cutk.bench).parameters)
    assert set(Plan.model_fields) - {"summary"} <= taken
    hints = typing.get_type_hints(cutk.bench)
    assert all(hints[name] is not typing.Any for name in taken)


def test_a_data_frame_has_a_row_for_each_record(report):
    pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert len(frame) == len(report.records)
    ssd = frame[(frame.unlearner == "ssd") & (frame.alpha == 1.0)].iloc[0]
    (record,) = [r for r in report.records if (r["unlearner"], r["alpha"]) == ("ssd", 1.0)]
    assert list(frame.role) == [record["role"] for record in report.records]
    assert ssd.corrected_accuracy == record["metrics"]["corrected_accuracy"]
    assert json.loads(ssd.options) == record["options"]


def test_without_pandas_nothing_is_lost(report, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(cutk.CutkError, match=r"pip install 'cutk\[pandas\]'") as caught:
        report.to_pandas()
    assert f"runs='{tmp_path / 'runs'}'" in str(caught.value)
    with pytest.raises(cutk.CutkError) as caught:
        cutk.bench(TINY, unlearners=["none"], options={}, alphas=[1.0], runs=None).to_pandas()
    (kept,) = re.findall(r"runs='(.+)'\)", str(caught.value))
    gc.collect()
    told = []
    cutk.bench(TINY, unlearners=["none"], options={}, alphas=[1.0], runs=kept, progress=lambda *w: told.append(w))
    assert len(told) == 3  # a cell that is computed is told when it starts, too
    shutil.rmtree(kept)


def test_without_a_folder_nothing_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = cutk.bench(TINY, unlearners=["none"], options={}, alphas=[1.0], runs=None)
    assert len(list(tmp_path.iterdir())) == 1
    del report
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(cutk.UsageError):
        cutk.bench(TINY, options={"fake": {"samples": 2}}, runs=None)
    assert list(tmp_path.iterdir()) == []


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
