from __future__ import annotations

import csv
import io
import json
import re

import pytest

from cutk.report.formats import as_csv, as_json, as_latex, as_markdown


@pytest.fixture
def sheets(made, contents_of):
    return contents_of(made.everything()).sheets[0]


def test_csv_is_one_tidy_table(made, contents_of):
    found = list(csv.DictReader(io.StringIO(as_csv(contents_of(made.everything()).rows()))))
    labels = ["experiment", "dataset", "model", "manipulation", "manipulated", "role", "method", "alpha", "identified"]
    assert list(found[0]) == [*labels, "metric", "mean", "sd", "n", "low", "high"]
    (row,) = [r for r in found if (r["method"], r["alpha"], r["metric"]) == ("ssd", "0.5", "corrected_accuracy")]
    assert (row["dataset"], row["model"], row["manipulation"], row["role"]) == ("toy", "tiny", "badnet", "unlearned")
    assert (row["manipulated"], float(row["identified"]), row["n"]) == ("10", 5, "2")
    assert float(row["mean"]) == pytest.approx(0.6)
    assert float(row["sd"]) == pytest.approx(0.2 / 2**0.5)
    assert (row["low"], row["high"]) == ("0.5", "0.7")
    (star,) = [r for r in found if (r["method"], r["metric"]) == ("ssd", "alpha_star")]
    assert (star["mean"], star["sd"], star["alpha"], star["low"], star["high"]) == ("1.0", "", "", "1.0", "1.0")
    # Three metrics of two methods at two α and of two references, and a summary for each method.
    assert len([r for r in found if "[" not in r["metric"]]) == 6 * 3 + 2
    # What is several numbers has a row for each of its labels.
    (row,) = [r for r in found if (r["method"], r["alpha"], r["metric"]) == ("ssd", "0.5", "ratio[1]")]
    assert (float(row["mean"]), row["n"]) == (30.0, "2")


def test_markdown_tables_have_one_shape(sheets):
    text = as_markdown(sheets)
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
        assert re.fullmatch(r"\|( (--:|:--) \|)+", table.splitlines()[1])
    assert "| 0.5 | 5 | cf | 2 | 0.300 ±0.000 |" in text
    assert "**0.850 ±0.071**" in text


def test_latex_is_escaped_and_balanced(made, contents_of):
    runs = [*made.everything(), made.run("a&b_50%", 0.5, 0, [made.attempt(0.1, 0.1)])]
    text = as_latex(contents_of(runs).sheets[0])
    assert r"a\&b\_50\%" in text
    assert r"\textbf{0.850 $\pm$0.071}" in text
    assert r"$-$2.50 $\pm$2.12" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 4
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    text.encode("ascii")


def test_json_is_one_document(made, contents_of):
    contents = contents_of(made.everything())
    sheets = [sheet for of_one in contents.sheets for sheet in of_one]
    document = json.loads(as_json("1", contents.experiments, list(contents.rows()), sheets))
    assert list(document) == ["cutk", "experiments", "values", "tables"]
    (experiment,) = document["experiments"]
    assert experiment["recipe"]["options"] == [{"steps": 20, "lr": 0.1}]
    options = {"size": 2}
    about = {"manipulation": "badnet", "options": options, "manipulated": "10", "seeds": [0, 1]}
    assert experiment["manipulations"] == [about]
    assert {value["metric"] for value in document["values"]} >= {"corrected_accuracy", "alpha_star"}
    assert {value["role"] for value in document["values"]} == {"original", "gold", "unlearned"}
    assert len(document["tables"]) == 4


def test_hostile_names_are_harmless_in_every_format(made, contents_of):
    evil = "a|b<script>\\`\x1b[2J\u202e\n$x$"
    runs = [
        made.original(0, 0.1, 0.9, manipulation=evil),
        made.run(evil, 0.5, 0, [made.attempt(0.1, 0.9)], manipulation=evil),
    ]
    contents = contents_of(runs)
    sheets, rows = contents.sheets[0], list(contents.rows())
    for text in (as_markdown(sheets), as_latex(sheets), as_csv(rows), as_json("1", contents.experiments, rows, sheets)):
        text.encode()
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in as_markdown(sheets)
    assert "$x$" not in as_latex(sheets)
    document = json.loads(as_json("1", contents.experiments, rows, sheets))
    assert document["values"][-1]["manipulation"] == evil
    tables = re.findall(r"(?:^\|.*\|\n)+", as_markdown(sheets), re.MULTILINE)
    assert len(tables) == len(sheets)
