"""``cutk report``; what it prints and draws is tested part by part in tests/report."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cutk.run.records import Failure
from cutk.run.store import Store

MADE = runpy.run_path(str(Path(__file__).parents[1] / "report" / "conftest.py"))
made, write = MADE["made"], MADE["write"]  # fixtures
XLINK = "{http://www.w3.org/1999/xlink}"


def contents_of(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture
def runs(made, write):
    return write(made.everything())


def test_help_shows_examples_line_by_line(run):
    assert "\n  cutk report runs --html report.html --figures figures\n" in run("report", "--help").out


def test_tables_are_printed_and_nothing_else(runs, run):
    before = contents_of(runs)
    ran = run("report", runs)
    assert (ran.code, ran.err) == (0, "")
    for title in ("badnet, 10 manipulated", "alpha star", "change of retain accuracy", "cost"):
        assert f"toy, tiny: {title}" in ran.out
    assert contents_of(runs) == before


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "json"])
def test_every_format(runs, run, form):
    ran = run("report", runs, "--format", form)
    assert (ran.code, ran.err) == (0, "")
    assert "corrected" in ran.out


def test_methods_of_any_code_are_one_and_their_code_is_told(made, write, run):
    runs = made.everything()
    how = runs[-1].decided_by
    other = how.model_copy(update={"unlearner": how.unlearner.model_copy(update={"source": "t" * 64})})
    folder = write([*runs[:-1], runs[-1].model_copy(update={"decided_by": other})])
    assert "cf [source=tttttt]" in run("report", folder, "--format", "csv").out
    ran = run("report", folder, "--any-code", "--html", "page.html", "--format", "csv")
    assert "source=" not in ran.out
    assert f"'cf' was computed by 2 versions of its code: {'s' * 64}, {'t' * 64}.\n" in ran.err
    assert "Code of several versions" in Path("page.html").read_text(encoding="utf-8")
    (told,) = json.loads(run("report", folder, "--any-code", "--format", "json").out)["experiments"]
    assert told["code_of_several_versions"] == {"cf": ["s" * 64, "t" * 64]}


def test_filters(made, write, run, error_of):
    folder = write([*made.everything(), *made.everything(manipulation="label-swap")])
    ran = run("report", folder, "-m", "label-swap", "-d", "toy", "--format", "csv")
    assert "badnet" not in ran.out
    assert error_of(run("report", folder, "--manipulation", "badnett")) == (
        "No run is of the manipulation 'badnett'. Did you mean 'badnet'? The runs are of: badnet, label-swap."
    )


def test_single_unlearners_with_what_they_are_measured_against(runs, run, error_of):
    table = run("report", runs, "-u", "cf", "--format", "csv").out
    assert {line.split(",")[6] for line in table.replace('"toy, tiny"', "x").splitlines()[1:]} == {
        "original",
        "cf",
        "gold",
    }
    assert error_of(run("report", runs, "-u", "cff")) == (
        "No run is of the unlearner 'cff'. Did you mean 'cf'? The runs are of: cf, ssd."
    )


def test_only_what_is_shown_can_be_highlighted(runs, run, error_of):
    assert run("report", runs, "-u", "cf", "--highlight", "cf").code == 0
    assert error_of(run("report", runs, "-u", "cf", "--highlight", "ssd")) == (
        "No unlearner 'ssd' to highlight. There are: cf."
    )


def test_records_alone_are_enough(runs, run):
    whole = run("report", runs).out
    weights = list(runs.rglob("weights.safetensors"))
    assert weights
    for path in weights:
        path.unlink()
    ran = run("report", runs)
    assert (ran.code, ran.out, ran.err) == (0, whole, "")


def test_figures_lead_to_the_page(runs, run, tmp_path):
    figures, page = tmp_path / "figures", tmp_path / "page" / "page.html"
    ran = run("report", runs, "--figures", figures, "--html", page)
    assert ran.code == 0, ran.err
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {path.stem for path in figures.glob("*.png")}
    assert ran.err.splitlines() == [
        f"Wrote '{page}'.",
        f"Wrote {len(names)} figures, as SVG and PNG each, to '{figures}'.",
    ]
    text = page.read_text(encoding="utf-8")
    for path in figures.glob("*.svg"):
        root = ElementTree.parse(path).getroot()  # noqa: S314  # our own file
        addresses = (element.get(f"{XLINK}href", "") for element in root.iter())
        links = [address for address in addresses if "record" in address]
        assert links or path.stem.endswith("ratio")
        for link in links:
            assert re.fullmatch(r"\.\./page/page\.html#record-[0-9a-f]{16}-\d+", link)
            assert f'id="{link.partition("#")[2]}"' in text


def test_figures_without_a_page_lead_nowhere_and_say_where_they_are_from(runs, run, tmp_path):
    run("report", runs, "--figures", tmp_path / "figures")
    for path in (tmp_path / "figures").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert "#record-" not in text
        assert re.search(r"<desc>toy, tiny: .*seeds 0, 1.*torch", text)


@pytest.mark.parametrize("option", ["--html", "--figures"])
def test_a_place_that_cannot_be_written(runs, run, tmp_path, option, error_of):
    (tmp_path / "file").write_text("x")
    message = error_of(run("report", runs, option, tmp_path / "file" / "below"))
    assert re.fullmatch(r"'.*file.below.*' cannot be written \(.+\)\. Choose another place\.", message)


def test_folders_without_runs(tmp_path, run, error_of):
    assert error_of(run("report", tmp_path / "nowhere")).startswith(f"Runs folder '{tmp_path}/nowhere' is not there.")
    assert error_of(run("report", tmp_path)).startswith(f"No runs in '{tmp_path}'.")


def test_what_is_damaged_is_left_aside_and_told(runs, run):
    good = run("report", runs).out
    (Store(runs).root / "train" / ("0" * 64)).mkdir()
    before = contents_of(runs)
    ran = run("report", runs)
    assert (ran.code, ran.out) == (0, good)
    assert re.fullmatch(r"Warning: .*0000 is left out: record\.json is missing\n", ran.err)
    assert contents_of(runs) == before


def test_records_of_another_version_say_so(runs, run, tmp_path):
    old = {"labels": {"unlearner": "none"}, "decided_by": {}, "sha256": "0" * 64}
    for folder in (runs, tmp_path / "old"):
        place = folder / "train" / ("0" * 64)
        place.mkdir(parents=True)
        (place / "record.json").write_text(json.dumps(old, indent=1), encoding="utf-8")
    ran = run("report", runs)
    assert ran.code == 0
    assert re.search(r"Warning: 1 run is left out in .*cutk 0\.1", ran.err)
    ran = run("report", tmp_path / "old")
    assert ran.code == 2
    assert "cutk 0.1" in ran.err


def test_what_failed_is_told(made, write, run):
    broken = made.attempt(None, None, options={"weight": 5.0}, metrics={}, error="it broke")
    folder = write([*made.everything(), made.run("cf", 0.2, 0, [made.attempt(0.3, 0.9), broken])])
    about = {
        "what": "cell",
        "role": "unlearned",
        "dataset": "toy",
        "manipulation": "badnet",
        "model": "tiny",
        "seed": 0,
    }
    Store(folder).note_failure("0" * 64, Failure(**about, unlearner="cf", alpha=1.0, reason="it was a \x1b[2J test"))
    ran = run("report", folder)
    assert ran.code == 0
    assert ran.err.splitlines() == [
        r"Warning: badnet, seed 0: cf at α = 1: it was a \x1b[2J test; it is in no table. The same cutk bench tries it "
        "again",
        "Warning: 1 models or metrics gave no number; the records on the page (--html) say why",
    ]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"environment": {"threads": 2}, "threads": 2}, "threads: 1, 2"),
        ({"environment": {"precision": "bf16"}, "precision": "bf16"}, "precision: bf16, fp32"),
        ({"environment": {"capability": "AVX512"}}, "capability: AVX2, AVX512"),
        ({"environment": {"torch": "2.5.0"}}, "torch: 2.4.0, 2.5.0"),
    ],
)
def test_mixed_environments_are_warned_of(made, write, run, over, words):
    folder = write([*made.everything(), made.run("cf", 0.2, 0, [made.attempt(0.3, 0.9)], **over)])
    assert run("report", folder).err == (
        f"Warning: the runs come from different environments, which changes results ({words})\n"
    )


def test_the_terminals_width_is_kept_to(runs, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("report", runs).out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("toy")) <= 60
