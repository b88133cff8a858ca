from __future__ import annotations

import csv
import io
import json
import os
import re
import runpy
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cutk.report.naming import natural, slugs, told_apart
from cutk.report.style import marks_for

MADE = runpy.run_path(str(Path(__file__).with_name("stored_runs.py")))
write_all, write_run, write_record = (MADE[name] for name in ("write_all", "write_run", "write_record"))
attempt, grid = MADE["attempt"], MADE["grid"]
MINUS = "−"


@pytest.fixture
def runs(tmp_path):
    return write_all(tmp_path / "runs")


@pytest.fixture
def rows(run):
    """Report as CSV and return its rows."""

    def go(*args):
        ran = run("report", *args, "--format", "csv")
        assert ran.code == 0, ran.err
        return list(csv.DictReader(io.StringIO(ran.out)))

    return go


def error_of(ran):
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    return ran.err.removeprefix("Error: ").rstrip("\n")


def cells_of(text, first):
    """Return the cells of each printed line that begins with ``first``."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return [line[1:] for line in lines if line[0] == first]


# What is printed.


def test_means_and_standard_deviations_by_hand(runs, run):
    ran = run("report", runs)
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert "toy, tiny: badnet, 10 manipulated" in ran.out
    # sd of two values is their distance / √2: 0.2 / √2 = 0.141, 0.02 / √2 = 0.014.
    assert cells_of(ran.out, "original")[0] == ["2", "0.300 ±0.141", "0.910 ±0.014", "10.0 ±0.0"]
    assert cells_of(ran.out, "gold")[0] == ["2", "0.900 ±0.141", "0.920 ±0.014", "10.0 ±0.0"]
    assert ["5", "ssd", "2", "0.600 ±0.141", "0.900 ±0.028", "3.00 ±1.41*"] in cells_of(ran.out, "0.5")
    assert ["10", "ssd", "2", "0.850 ±0.071*", "0.870 ±0.014", "3.00 ±1.41*"] in cells_of(ran.out, "1")
    assert ["10", "cf", "2", "0.300 ±0.000", "0.930 ±0.014*", "8.00 ±0.00"] in cells_of(ran.out, "1")


def test_change_of_utility_by_hand(runs, run):
    """As the paper's table 1: mean ± sd over α of the change against the original, in points."""
    table = run("report", runs).out.partition("change of retain accuracy")[2]
    assert cells_of(table, "original")[0] == ["91.00"]
    # α = 0.5: (−2 + 0) / 2 = −1; α = 1: (−4 − 4) / 2 = −4; mean −2.5, sd 3 / √2 = 2.12.
    assert cells_of(table, "ssd")[0] == [f"{MINUS}2.50 ±2.12"]
    # 1 and 2: mean 1.5, sd 1 / √2 = 0.71.
    assert cells_of(table, "cf")[0] == ["+1.50 ±0.71*"]
    assert cells_of(table, "gold")[0] == ["+1.00"]


def test_cost_by_hand(runs, run):
    table = run("report", runs).out.partition("tiny: cost")[2]
    # ssd took 2, 4, 2 and 4 seconds: mean 3, sd √(4 / 3) = 1.15.
    assert cells_of(table, "ssd") == [["4", "2", "3.00 ±1.15*", "1.00 ±0.00*", "1.00 ±0.00*"]]
    assert cells_of(table, "original")[0][:3] == ["2", "1", "10.0 ±0.0"]


def test_installed_summaries_are_computed(runs, run):
    table = run("report", runs).out.partition("alpha star")[2]
    # 0.9 of gold's 0.9 is 0.81, which SSD reaches at α = 1 (0.85) and not at 0.5 (0.6).
    assert cells_of(table, "ssd")[0] == ["1*"]
    assert cells_of(table, "cf")[0] == ["not reached"]


def test_csv_is_one_tidy_table(runs, rows):
    found = rows(runs)
    assert list(found[0])[1:] == [
        *(
            "dataset",
            "model",
            "manipulation",
            "manipulated",
            "method",
            "alpha",
            "identified",
            "metric",
            "mean",
            "sd",
            "n",
        )
    ]
    (row,) = [r for r in found if (r["method"], r["alpha"], r["metric"]) == ("ssd", "0.5", "corrected_accuracy")]
    assert (row["dataset"], row["model"], row["manipulation"]) == ("toy", "tiny", "badnet")
    assert (row["manipulated"], float(row["identified"]), row["n"]) == ("10", 5, "2")
    assert float(row["mean"]) == pytest.approx(0.6)
    assert float(row["sd"]) == pytest.approx(0.2 / 2**0.5)
    (star,) = [r for r in found if (r["method"], r["metric"]) == ("ssd", "alpha_star")]
    assert (star["mean"], star["sd"], star["alpha"]) == ("1.0", "", "")
    # Three metrics of four rows at two α … (2 methods · 2 α + 2 references) · 3, and a summary for each method.
    numbers = [r for r in found if "[" not in r["metric"]]
    assert len(numbers) == 6 * 3 + 2
    # A breakdown has a row for each of its labels.
    (row,) = [r for r in found if (r["method"], r["alpha"], r["metric"]) == ("ssd", "0.5", "ratio[1]")]
    assert (float(row["mean"]), row["n"]) == (30.0, "2")


def test_markdown_tables_have_one_shape(runs, run):
    ran = run("report", runs, "--format", "markdown")
    tables = re.findall(r"(?:^\|.*\|\n)+", ran.out, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1
        assert re.fullmatch(r"\|( (--:|:--) \|)+", table.splitlines()[1])
    assert "| 0.5 | 5 | ssd | 2 | 0.600 ±0.141 |" in ran.out
    assert "**0.850 ±0.071**" in ran.out


def test_latex_is_escaped_and_balanced(runs, run):
    write_run(runs, "a&b_50%", 0.5, 0, [attempt(0.1, 0.1)])
    text = run("report", runs, "--format", "latex").out
    assert r"a\&b\_50\%" in text
    assert r"\textbf{0.850 $\pm$0.071}" in text
    assert r"$-$2.50 $\pm$2.12" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 4
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    text.encode("ascii")


def test_json_is_one_document(runs, run):
    document = run("report", runs, "--format", "json").json
    assert list(document) == ["cutk", "experiments", "values", "tables"]
    (experiment,) = document["experiments"]
    assert experiment["recipe"] == {"steps": 20, "lr": 0.1}
    assert experiment["manipulations"][0] == {
        "manipulation": "badnet",
        "options": {"size": 2},
        "manipulated": "10",
        "seeds": [0, 1],
    }
    assert {value["metric"] for value in document["values"]} >= {"corrected_accuracy", "alpha_star"}
    assert len(document["tables"]) == 4


def test_help_shows_examples_line_by_line(run):
    ran = run("report", "--help")
    assert "\n  cutk report runs --html report.html --figures figures\n" in ran.out


# How runs are put in order.


def test_one_method_with_two_grids_is_named_apart(runs, rows):
    write_run(runs, "ssd", 0.5, 0, [attempt(0.1, 0.1, options={"weight": 100.0, "batch": 8})])
    assert {r["method"] for r in rows(runs)} == {"original", "gold", "cf", "ssd [weight=1|10]", "ssd [weight=100]"}


def test_sizes_are_settings_of_one_experiment(runs, rows):
    write_run(runs, "none", None, 0, [attempt(0.1, 0.9)], manipulated=20, mangling={"count": 20})
    found = rows(runs)
    assert {(r["experiment"], r["manipulation"], r["manipulated"]) for r in found} == {
        ("toy, tiny", "badnet", "10"),
        ("toy, tiny", "badnet", "20"),
    }


def test_settings_of_one_size_are_named_apart_by_their_options(runs, rows):
    write_run(runs, "none", None, 0, [attempt(0.1, 0.9)], mangling={"size": 3})
    assert {r["manipulation"] for r in rows(runs)} == {"badnet [size=2]", "badnet [size=3]"}


@pytest.mark.parametrize(
    ("over", "difference"),
    [({"precision": "bf16"}, "precision=bf16"), ({"recipe": {"steps": 30, "lr": 0.1}}, "steps=30")],
)
def test_other_trainings_are_other_experiments(runs, rows, over, difference):
    write_run(runs, "none", None, 0, [attempt(0.1, 0.9)], **over)
    names = {r["experiment"] for r in rows(runs)}
    assert len(names) == 2
    assert f"toy, tiny [{difference}]" in names


def test_told_apart_only_as_far_as_needed():
    traits = {1: {"a": "1", "provider": "x"}, 2: {"a": "2", "provider": "y"}, 3: {"a": "2", "provider": "z"}}
    assert told_apart({1: "m", 2: "m", 3: "n"}, traits, last=("provider",)) == {1: "m [a=1]", 2: "m [a=2]", 3: "n"}
    named = told_apart(dict.fromkeys((1, 2, 3), "m"), traits, last=("provider",))
    assert named == {1: "m [a=1, provider=x]", 2: "m [a=2, provider=y]", 3: "m [a=2, provider=z]"}
    assert told_apart({1: "m", 2: "m"}, {1: {}, 2: {}}) == {1: "m", 2: "m #2"}


def test_names_sort_as_people_count():
    assert sorted(["c10", "c9", "2", "1e1", "0.5"], key=natural) == ["0.5", "2", "1e1", "c9", "c10"]
    assert slugs(["a b", "a|b", "c"]) == {"a b": "a-b", "a|b": "a-b-2", "c": "c"}


def test_filters(runs, run, rows):
    write_run(runs, "none", None, 0, [attempt(0.1, 0.9)], manipulation="label-swap")
    assert {r["manipulation"] for r in rows(runs, "--manipulation", "label-swap")} == {"label-swap"}
    assert len(rows(runs, "--dataset", "toy")) == len(rows(runs))
    assert error_of(run("report", runs, "--manipulation", "badnett")) == (
        "No run is of the manipulation 'badnett'. Did you mean 'badnet'? The runs are of: badnet, label-swap."
    )
    assert "No run is of the dataset 'x'." in error_of(run("report", runs, "--dataset", "x"))


# What is wrong with a folder.


def contents_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_damaged_record_is_left_out_and_the_folder_stays_as_it_is(runs, run):
    good = run("report", runs).out
    cut = write_run(runs, "cf", 0.1, 0, [attempt(0.1, 0.1)])
    text = (cut / "record.json").read_text()
    (cut / "record.json").write_text(text[: len(text) // 2])
    bad = write_run(runs, "cf", 0.2, 0, [attempt(0.1, 0.1)])
    record = json.loads((bad / "record.json").read_text())
    write_record(bad, {**record, "labels": {**record["labels"], "seed": "first"}})
    edited = write_run(runs, "cf", 0.4, 0, [attempt(0.1, 0.1)])
    (edited / "record.json").write_text((edited / "record.json").read_text().replace("0.1", "0.9"))
    moved = write_run(runs, "cf", 0.3, 0, [attempt(0.1, 0.1)])
    moved.rename(moved.with_name("0" * 64))
    (runs / "train" / "empty").mkdir()
    (runs / "train" / ".tmp-1").mkdir()
    before = contents_of(runs)
    ran = run("report", runs)
    assert (ran.code, ran.out) == (0, good)
    lines = ran.err.splitlines()
    assert len(lines) == 5, ran.err
    assert all(line.startswith(f"Warning: {runs}") for line in lines)
    reasons = ("JSONDecodeError", "labels.seed: ", "not the record of this run", "its checksum differs")
    for words in ("record.json is missing", *reasons):
        assert words in ran.err
    assert contents_of(runs) == before


def test_what_failed_is_counted(runs, run):
    broken = attempt(None, None, options={"weight": 5.0}, metrics={}, breakdowns={}, error="it broke")
    write_run(runs, "cf", 0.2, 0, [attempt(0.3, 0.9), broken])
    ran = run("report", runs)
    assert ran.code == 0
    assert "Warning: 1 models or metrics gave no number" in ran.err


def test_folders_without_runs(tmp_path, run):
    assert error_of(run("report", tmp_path / "nowhere")).startswith(f"Runs folder '{tmp_path}/nowhere' is not there.")
    assert error_of(run("report", tmp_path)).startswith(f"No runs in '{tmp_path}'.")
    (tmp_path / "train" / "x").mkdir(parents=True)
    ran = run("report", tmp_path)
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == f"Error: None of the 1 runs in '{tmp_path}' can be read."


# Figures.

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"


def test_every_figure_is_there_and_leads_to_records(runs, run, tmp_path):
    write_run(runs, "none", None, 0, [attempt(0.1, 0.9)], manipulated=20, mangling={"count": 20})
    write_run(runs, "cf", 0.5, 0, [attempt(0.2, 0.9)], manipulated=20, mangling={"count": 20})
    before = contents_of(runs)
    ran = run("report", runs, "--figures", tmp_path / "figures", "--html", tmp_path / "page" / "page.html")
    assert ran.code == 0, ran.err
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {
        f"toy-tiny-{name}"
        for name in (
            *("corrected_accuracy-alpha", "retain_accuracy-alpha"),
            *("corrected_accuracy-size-badnet", "retain_accuracy-size-badnet"),
            *("trade-off-corrected_accuracy-retain_accuracy", "corrected_accuracy-grid-ssd"),
            *("class_accuracy", "ratio"),
        )
    }
    assert ran.err.splitlines()[1] == f"Wrote 8 figures, as SVG and PNG each, to '{tmp_path / 'figures'}'."
    for name in names:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        text = (tmp_path / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)  # noqa: S314  # our own file
        assert "currentColor" in text
        assert "#010203" not in text
        links = [a.get(f"{XLINK}href") for a in root.iter(f"{SVG}a")]
        assert all(re.fullmatch(r"\.\./page/page\.html#record-[0-9a-f]{16}-\d+", link) for link in links)
        assert links or name.endswith("ratio")
    assert contents_of(runs) == before


def test_a_figure_says_what_its_points_are(runs, run, tmp_path):
    assert run("report", runs, "--figures", tmp_path, "--html", tmp_path / "page.html").code == 0
    root = ElementTree.parse(tmp_path / "toy-tiny-corrected_accuracy-alpha.svg").getroot()  # noqa: S314
    titles = {a.find(f"{SVG}title").text for a in root.iter(f"{SVG}a")}
    assert "ssd, α = 0.5: 0.600 ±0.141 (n = 2)" in titles
    assert "gold: 0.900 ±0.141 (n = 2)" in titles
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"cf", "ssd", "original", "gold", "Corrected accuracy", "10 manipulated"} <= words


def test_figures_are_the_same_each_time(runs, run, tmp_path):
    for folder in ("a", "b"):
        assert run("report", runs, "--figures", tmp_path / folder).code == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_name_has_its_mark_in_every_report():
    many = marks_for(f"method-{i}" for i in range(32))
    assert len({tuple(map(str, mark)) for mark in many.values()}) == 32
    assert len({mark.colour for mark in marks_for(["badt", "cf", "none", "rewod", "scrub", "ssd"]).values()}) == 6
    assert marks_for(["ssd", "cf"])["ssd"] == marks_for(["rewod", "ssd"])["ssd"] == marks_for(["ssd"])["ssd"]


@pytest.mark.parametrize("option", ["--html", "--figures"])
def test_a_place_that_cannot_be_written(runs, run, tmp_path, option):
    (tmp_path / "file").write_text("x")
    message = error_of(run("report", runs, option, tmp_path / "file" / "below"))
    assert re.fullmatch(r"'.*file.below.*' cannot be written \(.+\)\. Choose another place\.", message)
    assert not list(tmp_path.glob(".*tmp"))


def test_a_folder_that_may_not_be_written(runs, run, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot be written (Permission denied)" in error_of(run("report", runs, "--html", locked / "page.html"))


def test_the_wheel_holds_the_page(tmp_path, shell, python):
    pytest.importorskip("hatchling")
    source = Path(__file__).parents[1]
    build = f"WheelBuilder({str(source)!r}).build(directory={str(tmp_path)!r})"
    code = f"from hatchling.builders.wheel import WheelBuilder; print(*{build})"
    done = shell(python, "-c", code, cwd=source)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(done.stdout.strip()).namelist())
    assert {"cutk/report/page.html.j2", "cutk/report/page.css", "cutk/report/page.js"} <= names


def test_failed_cells_are_told(runs, run):
    (runs / "failed").mkdir()
    (runs / "failed" / "0.txt").write_text("badnet, seed 0: cf at α = 1 failed: it was a test")
    ran = run("report", runs)
    assert ran.code == 0
    assert "Warning: badnet, seed 0: cf at α = 1 failed: it was a test; it is in no table." in ran.err


def test_figures_without_a_page_lead_nowhere_and_say_where_they_are_from(runs, run, tmp_path):
    run("report", runs, "--figures", tmp_path / "figures")
    for path in (tmp_path / "figures").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert "<a " not in text
        assert "#record-" not in text
        assert re.search(r"<desc>toy, tiny: .*seeds 0, 1.*torch", text)
    picture = Image.open(next((tmp_path / "figures").glob("*.png")))
    assert picture.text["Description"].startswith("toy, tiny: ")
