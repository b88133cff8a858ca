"""The committed evidence: its tables, figures and numbers are what ``cutk report`` makes of its records."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import cutk
from cutk.report.contents import Contents
from cutk.run.store import Store

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
FOLDERS = sorted(path.parent for path in (BENCHMARKS / "results").glob("*/evidence.toml"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def evidence():
    """The script, with its neighbours."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("evidence", BENCHMARKS / "evidence.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module", params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def folder(request):
    return request.param


def test_there_is_some():
    assert {folder.name for folder in FOLDERS} == {
        "cifar10",
        "cifar10-fp32",
        "detection",
        "digits",
        "placement",
        "seal",
    }


def test_tables_are_what_report_prints(folder, run):
    ran = run("report", folder / "runs", "--format", "markdown", "--any-code")
    assert ran.code == 0, ran.err
    assert ran.out == (folder / "tables.md").read_text(encoding="utf-8")


def test_figures_show_what_the_records_hold(folder, evidence):
    """Each point's value and where it is from; how matplotlib sets them is its own affair."""
    shown, wanted = evidence.options(folder), tomllib.loads((folder / "evidence.toml").read_text())["figures"]["names"]
    contents = Contents(Store(folder / "runs").runs(), {}, (), (), unlearners=shown["unlearners"], any_code=True)
    paths = {path.stem: path for path in (folder / "figures").glob("*.svg")}
    assert set(paths) == {f"{experiment.slug}-{name}" for experiment in contents.experiments for name in wanted}
    for drawing in (drawing for experiment in contents.experiments for drawing in contents.figures(experiment)):
        if not paths:
            return
        if drawing.name in paths:
            root = ElementTree.parse(paths.pop(drawing.name)).getroot()  # noqa: S314  # our own file
            assert root.find(f"{SVG}desc").text == drawing.origin
            assert {title.text for title in root.iter(f"{SVG}title")} == set(drawing.tips.values())
    assert not paths, f"not drawn: {', '.join(paths)}"


def test_the_statements_are_those_that_the_records_give(folder, evidence):
    text = (folder / "README.md").read_text(encoding="utf-8")
    judged = evidence.statements(folder)
    assert ("<!-- statements -->" in text) == bool(judged)
    if judged:
        start, end = evidence.part(text, "statements")
        assert text[start:end] == judged
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (folder / link).exists(), link


def test_pages_show_the_same_figures(evidence):
    drawn = {path.name: path.read_bytes() for folder in FOLDERS for path in (folder / "figures").glob("*.svg")}
    shown = {path.name: path.read_bytes() for path in evidence.PAGES.iterdir()}
    asked = {name for folder in FOLDERS for name in evidence.described(folder)["figures"].get("pages", ())}
    assert shown.items() <= drawn.items()
    assert set(shown) == {f"{name}.svg" for name in asked}
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"figures/([\w.-]+\.svg)", pages)) == set(shown)


def test_the_page_shows_seeds_as_the_records_give_them(folder, evidence):
    page = evidence.described(folder).get("page")
    assert (page is None) == (folder.name != "cifar10")
    if page is None:
        return
    text, results = (ROOT / page).read_text(encoding="utf-8"), evidence.judged_by(folder)
    for called in evidence.SHOWN:
        start, end = evidence.part(text, f"{folder.name}, {called}")
        assert text[start:end] == evidence.by_seed(results, called)


def test_the_project_opens_with_what_the_records_give(evidence):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"<!-- evidence: (\w+) -->", text)
    start, end = evidence.part(text, f"evidence: {name}")
    assert text[start:end] == evidence.opening(BENCHMARKS / "results" / name)
    (figure,) = re.findall(r"!\[.*\]\((benchmarks/.*\.svg)\)", text)
    assert (ROOT / figure).exists()


def test_records_are_whole_and_tell_of_no_machine(folder, evidence):
    about = tomllib.loads((folder / "evidence.toml").read_text())
    runs = Store(folder / "runs").runs(lambda text: pytest.fail(text))
    assert {run.labels.seed for run in runs} <= set(about["seeds"])
    assert {run.labels.unlearner for run in runs} <= {None, *about["unlearners"]}
    assert len({evidence.place(run) for run in runs}) == len(runs)
    for path in (folder / "runs").rglob("*"):
        assert path.is_dir() or path.name == "record.json"
        if path.is_file():
            evidence.require_no_folder(path)
    assert not any(attempt.traceback for run in runs for attempt in run.attempts.failed())


def test_every_record_is_what_the_plan_gives_with_the_options_and_code_of_today(folder, evidence):
    about = evidence.described(folder)
    assert {reason for _, reason in evidence.evidence_of(folder / "runs", about)} == {""}
    # Code that is said to do the same is another, and was used, wherever that is said.
    (today, *_) = evidence.setups(about)
    current = {unlearner.identity.name: unlearner.identity.source for unlearner in today.unlearners}
    used = [run for run in Store(folder / "runs").runs() if run.unlearner]
    for each in about.get("alike", []):
        for name, code in each["code"].items():
            assert current[name] != code
            there = [run.labels for run in used if (run.unlearner.name, run.unlearner.source) == (name, code)]
            there = [of for of in there if evidence.covers(each, of)]
            assert {of.manipulation for of in there} >= set(each.get("manipulations", [])), (name, code)
            assert {of.alpha for of in there} >= set(each.get("alphas", [])), (name, code)
            assert {of.unlearner for of in there} >= set(each.get("unlearners", [])), (name, code)
            assert there, (name, code)


# What was varied row by row.


@pytest.fixture(scope="module", params=["robustness", "ablation"])
def varied(request, evidence):
    """Such a script: its name, its studies, and what makes tables of runs and of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "evidence", evidence)
        module = importlib.import_module(request.param)
    return request.param, list(module.STUDIES.values()), module.tables


def test_rows_are_what_their_records_give(varied, evidence):
    name, studies, tables = varied
    text = (BENCHMARKS / "results" / name / "README.md").read_text(encoding="utf-8")
    start, end = evidence.part(text, name)
    assert text[start:end] == tables(Store(BENCHMARKS / "results" / name / "runs").runs(), studies)


def test_every_record_belongs_to_a_row_and_every_row_is_whole(varied, evidence):
    name, studies, _ = varied
    home = BENCHMARKS / "results" / name / "runs"
    runs = Store(home).runs(lambda text: pytest.fail(text))
    found = [[*study.belonging(runs)] for study in studies]
    assert {run.key for each in found for _, run in each} == {run.key for run in runs}
    for study, each in zip(studies, found, strict=True):
        for row, setup in study.setups().items():
            there = [run.labels for of, run in each if of == row]
            wanted = {
                (composed.name, unlearner.name, alpha, seed)
                for composed in setup.manipulations
                for unlearner in setup.unlearners
                for alpha in setup.plan.alphas
                for seed in setup.plan.seed_list
            }
            cells = [(of.manipulation, of.unlearner, of.alpha, of.seed) for of in there if of.unlearner]
            assert sorted(cells) == sorted(wanted), row
            models = {(of.manipulation, of.role, of.seed) for of in there if not of.unlearner}
            assert models == {(m, role, seed) for m, _, _, seed in wanted for role in ("original", "gold")}, row
    for path in home.rglob("record.json"):
        evidence.require_no_folder(path)
    assert not any(run.chosen is None or attempt.traceback for run in runs for attempt in run.attempts)


# How it is collected.

PLAN = """
dataset = "fake"
manipulations = ["badnet"]
unlearners = ["cf"]
precision = "fp32"
device = "cpu"
metrics = ["corrected_accuracy", "retain_accuracy"]

[recipe]
steps = 4
batch_size = 32

[options.convnet-small]
width = 4
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """A plan, and a runs folder with what belongs to it and what doesn't."""
    home = tmp_path_factory.mktemp("computed")
    (home / "plan.toml").write_text(PLAN)
    (home / "evidence.toml").write_text(
        f"presets = [{json.dumps(str(home / 'plan.toml'))}]\nunlearners = ['cf']\nalphas = [0.5]\nseeds = [1]\n"
    )
    plan = str(home / "plan.toml")
    also = ["corrected_accuracy", "retain_accuracy", "passes"]
    cutk.bench(plan, seeds=[1], alphas=[0.5], metrics=also, runs=home / "runs")
    cutk.bench(plan, seeds=[2], alphas=[0.5], runs=home / "runs")
    cutk.bench(plan, seeds=[1], alphas=[0.5], options={"cf": {"steps": 3}}, runs=home / "runs")
    return home


@pytest.fixture
def kept(computed, tmp_path):
    (tmp_path / "evidence.toml").write_text((computed / "evidence.toml").read_text())
    return tmp_path


def test_what_belongs_to_it_is_copied_without_weights(computed, kept, evidence, capsys):
    evidence.collect(computed / "runs", kept)
    runs = Store(kept / "runs").runs()
    assert [run.labels.role for run in runs] == ["original", "gold", "unlearned"]
    assert {metric.name for run in runs for metric in run.measured.values()} == {
        "corrected_accuracy",
        "retain_accuracy",
    }
    assert {path.name for path in (kept / "runs").rglob("*") if path.is_file()} == {"record.json"}
    there = {run.key: run for run in Store(computed / "runs").runs()}
    for run in runs:
        values = {name: there[run.key].chosen.metrics[name] for name in run.measured}
        assert run.chosen.metrics == values
        assert run.decided_by == there[run.key].decided_by
    assert capsys.readouterr().out.splitlines() == [
        f"3 records are new in {kept / 'runs'}.",
        "  left out, of other data, seeds or fractions: 3",
        "  left out, computed with other options of cf: 1",
    ]
    evidence.collect(computed / "runs", kept)
    assert capsys.readouterr().out.startswith("0 records are new")


def test_what_newer_code_computed_takes_the_place(computed, kept, evidence, monkeypatch):
    evidence.collect(computed / "runs", kept)
    (old,) = (kept / "runs" / "unlearn").iterdir()
    (run,) = (run for run in Store(kept / "runs").runs() if run.unlearner is not None)
    changed = run.decided_by.model_copy(update={"unlearner": run.unlearner.model_copy(update={"source": "older"})})
    setups = evidence.setups(evidence.described(kept))
    assert evidence.lacking(run, setups[0], []) == ""
    older = run.model_copy(update={"decided_by": changed, "key": "0" * 64})
    does_the_same = {"code": {"rewod": "other", "cf": "older"}}
    for each in (
        {"code": {"rewod": "older"}},
        {"code": {"cf": "oldest"}},
        does_the_same | {"manipulations": ["interclass-confusion"]},
        does_the_same | {"alphas": [0.1]},
        does_the_same | {"datasets": ["digits"]},
        does_the_same | {"seeds": [2]},
        does_the_same | {"unlearners": ["cf:other"]},
    ):
        assert evidence.lacking(older, setups[0], [each]) == "computed with other code of cf"
    assert evidence.lacking(older, setups[0], [does_the_same]) == ""
    there = {"manipulations": ["badnet"], "alphas": [0.5], "datasets": ["fake"], "seeds": [1], "unlearners": ["cf"]}
    assert evidence.lacking(older, setups[0], [does_the_same | there]) == ""
    assert evidence.public(older, setups[0]).unlearner.source == "older"
    evidence.write_record(old / "record.json", older)
    old.rename(old.with_name("0" * 64))
    evidence.collect(computed / "runs", kept)
    assert [path.name for path in (kept / "runs" / "unlearn").iterdir()] == [run.key]
    # And stays there when what the older computed comes by, in a folder that has both, in whichever order.
    with (kept / "evidence.toml").open("a") as file:
        file.write("[[alike]]\n[alike.code]\ncf = 'older'\n")
    both = kept / "both"
    for each in (older, run):
        home = both / "unlearn" / each.key
        home.mkdir(parents=True)
        evidence.write_record(home / "record.json", each)
    evidence.collect(both, kept)
    assert [path.name for path in (kept / "runs" / "unlearn").iterdir()] == [run.key]
    shutil.rmtree(kept / "runs")
    evidence.collect(both, kept)
    assert [path.name for path in (kept / "runs" / "unlearn").iterdir()] == [run.key]
    # What is no evidence any more gives way to what is, of whichever code.
    shutil.rmtree(both / "unlearn" / run.key)
    oldest = older.decided_by.model_copy(update={"unlearner": run.unlearner.model_copy(update={"source": "oldest"})})
    stale = older.model_copy(update={"decided_by": oldest, "key": "1" * 64})
    shutil.rmtree(kept / "runs" / "unlearn" / run.key)
    (kept / "runs" / "unlearn" / stale.key).mkdir()
    evidence.write_record(kept / "runs" / "unlearn" / stale.key / "record.json", stale)
    evidence.collect(both, kept)
    assert [path.name for path in (kept / "runs" / "unlearn").iterdir()] == [older.key]


def test_a_record_that_names_a_folder_is_refused(kept, evidence):
    record = kept / "runs" / "train" / "x" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"error": "/home/someone/data is not there"}')
    with pytest.raises(SystemExit, match="'/home/someone/data'"):
        evidence.require_no_folder(record)
    assert not record.parent.exists()


# What the criteria make of results that aren't all there.


def test_nothing_is_said_of_what_was_not_measured(evidence):
    runs = [run.record.model_dump() for run in Store(BENCHMARKS / "results" / "digits" / "runs").runs()]
    few = [record for record in runs if record["alpha"] in (None, 0.1)]
    results = evidence.Results(few)
    assert results.alphas == [0.1]
    lines = evidence.table(results).splitlines()
    words = {line.split(" | ")[0].strip("| "): line.split("**")[1] for line in lines if "**" in line}
    assert words["C1"] == words["C4"] == "not measured"
    assert words["C2"] in ("holds", "undecided", "does not hold")


def test_an_unfinished_seed_does_not_count(evidence):
    runs = [run.record.model_dump() for run in Store(BENCHMARKS / "results" / "digits" / "runs").runs()]
    whole = evidence.Results(runs)
    cut = [r for r in runs if not (r["seed"] == whole.seeds[-1] and r["unlearner"] == "badt")]
    assert evidence.Results(cut).core.seeds == whole.core.seeds[:-1]
    assert evidence.Results(cut).core.alphas == whole.core.alphas
