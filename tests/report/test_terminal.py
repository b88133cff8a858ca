from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cutk.report.terminal import described, print_failures, print_results, print_sheet
from cutk.run.records import Failure


def printed(draw, width=140):
    out = io.StringIO()
    draw(Console(file=out, width=width))
    return out.getvalue()


def test_results_as_a_benchmark_prints_them(made, contents_of):
    text = printed(lambda console: print_results(contents_of(made.everything()), console))
    assert text.startswith("toy, badnet, tiny: mean ± sd over 2 seeds; * best of the unlearners at its α\n")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert ["0.5", "ssd", "0.600", "±0.141*", "0.900", "±0.028", "3.00", "±1.41*"] in lines
    assert "ssd: alpha_star = 1\n" in text
    assert "cf: alpha_star = not reached\n" in text
    assert "cutk 0.2.0, torch 2.4.0, Python 3.11.7; cpu (A <fast> machine & more, AVX2, 1 thread), fp32\n" in text
    assert "environments differ" not in text


def test_a_row_says_that_seeds_are_missing(made, contents_of):
    runs = [run for run in made.everything() if (run.labels.unlearner, run.labels.seed) != ("cf", 1)]
    assert "cf (1 of 2 seeds)" in printed(lambda console: print_results(contents_of(runs), console))


def test_metrics_come_in_the_order_that_is_asked_for(made, contents_of):
    contents = contents_of(made.everything(), metrics={"r": "retain_accuracy", "u": "corrected_accuracy"})
    heading = next(line for line in printed(lambda c: print_results(contents, c)).splitlines() if "Unlearner" in line)
    assert heading.split() == ["α", "Unlearner", "retain", "accuracy", "↑", "corrected", "accuracy", "↑"]


def test_an_oracle_is_explained(made, contents_of):
    text = printed(lambda console: print_results(contents_of(made.everything(), oracle=True), console))
    assert "ssd (oracle)" in text
    assert "no method could have chosen it" in text


def test_nothing_to_correct_is_said(made, contents_of):
    runs = [made.original(0, 0.95, 0.9), made.gold(0, 0.97, 0.9), made.run("none", 0.5, 0, [made.attempt(0.95, 0.9)])]
    text = printed(lambda console: print_results(contents_of(runs), console))
    assert "Nothing to correct here" in text
    assert "alpha_star" not in text
    assert "*" not in text


def test_differing_environments_are_told(made, contents_of):
    runs = [*made.everything(), made.run("cf", 0.1, 0, [made.attempt(0.1, 0.9)], environment={"threads": 8})]
    text = printed(lambda console: print_results(contents_of(runs), console))
    assert "These environments differ (threads: 1, 8)" in text


@pytest.mark.parametrize(("width", "parts"), [(40, 3), (60, 2), (140, 1)])
def test_a_table_fits_its_width_and_loses_no_metric(made, contents_of, width, parts):
    text = printed(lambda console: print_results(contents_of(made.everything()), console), width)
    tables = [line for line in text.splitlines() if line.strip().startswith("original")]
    assert len(tables) == parts
    assert all(len(line) <= width for line in tables)
    assert sum(len(re.findall("±", line)) for line in tables) == 3


def test_a_sheet_says_how_to_read_it(made, contents_of):
    for sheet in contents_of(made.everything()).sheets[0]:
        text = " ".join(printed(lambda console, one=sheet: print_sheet(one, console)).split())
        assert text.startswith(sheet.title)
        assert text.endswith(sheet.note)


def failure(**over):
    about = {"what": "point", "role": "unlearned", "dataset": "toy", "manipulation": "badnet", "model": "tiny"}
    return Failure(**{**about, "unlearner": "ssd", "alpha": 0.5, "seed": 0, "reason": "no", **over})


def test_what_failed_is_described_in_a_line():
    assert described(failure(options={"weight": 1.0})) == "badnet, seed 0: ssd at α = 0.5 with weight=1: no"
    assert described(failure(what="metric", metric="x")) == "badnet, seed 0: ssd at α = 0.5, metric x: no"
    assert described(failure(what="summary", metric="x", alpha=None, seed=None)) == (
        "badnet, all seeds: ssd, summary x: no"
    )
    assert described(failure(what="cell", role="gold", unlearner=None, alpha=None)) == "badnet, seed 0: gold: no"


def test_failures_go_to_stderr_with_tracebacks_if_asked_for(capsys):
    print_failures([])
    print_failures([failure(traceback="where it was")])
    assert "where it was" not in capsys.readouterr().err
    print_failures([failure(traceback="where it was")], tracebacks=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["1 failed:", "  badnet, seed 0: ssd at α = 0.5: no", "where it was"]


def test_names_are_shown_and_steer_nothing(made, contents_of, capsys):
    evil = "x\x1b[2J[red]\u202e"
    runs = [
        made.original(0, 0.1, 0.9, manipulation=evil),
        made.run(evil, 0.5, 0, [made.attempt(0.1, 0.9)], manipulation=evil),
    ]
    text = printed(lambda console: print_results(contents_of(runs), console))
    print_failures([failure(reason=evil)])
    for shown in (text, capsys.readouterr().err):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert r"x\x1b[2J[red]\u202e" in shown
