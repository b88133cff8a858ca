"""``cutk bench``: what it takes, what it refuses, what it prints, and how it stops."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.core import ParameterSource

import cutk
from cutk.cli import foresight
from cutk.cli.bench import _data_options
from cutk.plugins.registry import load_registry

FAKE = ("bench", "-d", "fake", "--precision", "fp32", "--device", "cpu")
BARE = (*FAKE, "--alpha", "0.5,1", "--seeds", "1")
SMALL = ("-o", "convnet-small.width=4", "--recipe", "steps=20", "batch_size=32")
TINY = (*BARE, *SMALL)
SSD = ("--unlearner", "ssd", "-o", "ssd.selection_weight=1,10", "-o", "ssd.dampening=1")
# The cheapest benchmark: three models, none of them of an unlearner that does anything.
LEAST = (*FAKE, *SMALL, "--alpha", "1", "-u", "none", "--recipe", "steps=5")
NONE = (*LEAST, "--seeds", "1")


def without(args, extra):
    """Return ``args`` without the options of one value that ``extra`` gives as well."""
    single = {"-d", "--precision", "--device", "--seeds"} & set(extra)
    return [arg for i, arg in enumerate(args) if not {arg, args[i - 1]} & single]


# What comes out.


def test_a_table_with_references(run):
    ran = run(*TINY, *SSD)
    assert ran.code == 0, ran.err
    for text in ("original", "gold", "corrected accuracy", "retain accuracy", "ssd: alpha_star", "fp32"):
        assert text in ran.out
    rows = [line.split() for line in ran.out.splitlines()]
    names = [
        row[0] if row[0] in ("original", "gold") else row[1] for row in rows if {"original", "gold", "ssd"} & set(row)
    ]
    assert names[:4] == ["original", "ssd", "ssd", "gold"]
    assert "[4/4] badnet, seed 0: ssd at α = 1" in ran.err


def test_json_is_one_document_on_stdout(run):
    ran = run(*TINY, *SSD, "--json")
    assert ran.code == 0, ran.err
    document = ran.json
    assert list(document) == ["cutk", "schema", "plan", "environment", "records", "failures", "summaries"]
    assert document["cutk"] == cutk.__version__
    environment = document["environment"]
    assert {"torch", "python", "device", "precision", "threads", "providers"} <= set(environment)
    assert environment["providers"] == {"cutk": cutk.__version__}
    assert (environment["device"], environment["precision"]) == ("cpu", "fp32")
    assert document["plan"]["recipe"]["name"] == "sgd"
    assert document["plan"]["recipe"]["steps"] == 20
    assert document["plan"]["recipe"]["batch_size"] == 32
    roles = [(record["role"], record["unlearner"]) for record in document["records"]]
    assert roles == [("original", None), ("gold", None), ("unlearned", "ssd"), ("unlearned", "ssd")]


def test_json_shows_options_as_they_are_used(run):
    ran = run(*TINY, *SSD, "-o", "badnet.size=1", "-o", "ssd.dampening=1,5", "--json")
    options = ran.json["plan"]["options"]
    assert options["badnet"]["size"] == 1
    assert options["badnet"]["target"] == 0
    assert len(options["ssd"]) > 1
    assert {point["dampening"] for point in options["ssd"]} == {1.0, 5.0}


def test_all_unlearners(run, registry):
    short = ("cf.steps=5", "badt.steps=5", "scrub.steps=5")
    options = [part for setting in short for part in ("-o", setting)]
    ran = run(*TINY, "--unlearner", "all", *options, "--search", "default", "--json")
    assert ran.code == 0, ran.err
    everyone = {entry.name for entry in registry.of_kind("unlearner")}
    assert {r["unlearner"] for r in ran.json["records"] if r["role"] == "unlearned"} == everyone


def test_what_a_method_or_a_dataset_prints_does_not_reach_stdout(run, monkeypatch, registry):
    for kind, name, method in (("unlearner", "none", "unlearn"), ("dataset", "fake", "load")):
        component = registry.get(kind, name).component
        quiet = getattr(component, method)

        def loud(self, *args, quiet=quiet, method=method):
            print("hello from", method)
            return quiet(self, *args)

        monkeypatch.setattr(component, method, loud)
    ran = run(*NONE, "--json")
    assert "records" in ran.json
    assert "hello from unlearn" in ran.err
    assert "hello from load" in ran.err


# What can be asked for.


def test_a_dry_run_lists_the_work_and_writes_nothing(run, tmp_path):
    ran = run(*TINY, "-u", "ssd", "-u", "rewod", "--dry-run")
    assert ran.code == 0, ran.err
    assert "6 of 6 cells to compute" in ran.out
    assert "over 380 training samples" in ran.out
    rows = [line.split() for line in ran.out.splitlines() if "badnet" in line]
    # 20 steps of 32 samples over 380: 1.7 passes a training; SSD: one pass for its 50 points. Evaluation takes forward
    # passes, a third each: over 2 · 200 test images for any model; for SSD 50 times over 20 validation samples and 10
    # identified ones, and twice over these.
    assert rows[0] == ["badnet", "0", "original", "1", "1.7", f"{400 / 380 / 3:.1f}", "to", "do"]
    assert rows[2] == ["badnet", "0", "ssd", "0.5", "50", "1.0", f"{(50 * 30 + 420) / 380 / 3:.1f}", "to", "do"]
    assert "2 of them trainings of an original or gold model" in ran.out
    assert re.search(
        r"A pass takes about \S+ \S+ here .*fp32; measured just now\), so all of it about \S+ \S+", ran.out
    )
    assert list(tmp_path.iterdir()) == []
    run(*TINY, "-u", "rewod")
    assert "2 of 6 cells to compute" in run(*TINY, "-u", "ssd", "-u", "rewod", "--dry-run").out


def test_seeds_are_counted_or_named(run):
    counted = run(*LEAST, "--seeds", "2", "--json").json
    assert {record["seed"] for record in counted["records"]} == {0, 1}
    named = run(*LEAST, "--seed", "11", "--seed", "1", "--json")
    assert [record["seed"] for record in named.json["records"]][::3] == [11, 1]
    assert named.json["plan"]["seeds"] == [11, 1]
    assert "seed 1: original (read)" in named.err


def test_a_recipe_is_named_and_told(run):
    document = run(*NONE, "--recipe", "adamw", "steps=3", "weight_decay=0.1", "--json").json
    told = document["plan"]["recipe"]
    assert (told["name"], told["steps"], told["weight_decay"], told["batch_size"]) == ("adamw", 3, 0.1, 32)
    assert {record["recipe"] for record in document["records"]} == {"adamw"}
    alone = run(*BARE, "-u", "none", "--recipe", "adamw", "--dry-run")
    assert alone.code == 0, alone.err


def test_an_identification_and_a_rule_are_chosen(run):
    chosen = ("--identification", "false-positives", "--select", "validation")
    document = run(*TINY, *SSD, *chosen, "--json").json
    plan = document["plan"]
    assert (plan["identification"], plan["select"]) == ("false-positives", "validation")
    assert document["records"][-1]["identified"] > document["records"][-1]["manipulated"]


def test_manipulations_compose(run):
    ran = run(*NONE, "-m", "badnet+interclass-confusion", "--json")
    assert ran.code == 0, ran.err
    assert {record["manipulation"] for record in ran.json["records"]} == {"badnet+interclass-confusion"}
    assert "corrected_accuracy[interclass-confusion]" in ran.json["records"][0]["metrics"]


def test_a_metric_that_applies_to_nothing_is_named(run):
    asked = ("--metric", "detection_recall", "--metric", "passes", "-m", "badnet+interclass-confusion")
    ran = run(*NONE, *asked, "--metric", "affected_class_accuracy")
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if "applies to none" in line]
    assert (
        line == "detection_recall applies to none of these models. What it asks for: cutk plugins show detection_recall"
    )
    (line,) = [line for line in ran.err.splitlines() if "several values" in line]
    assert line.startswith("affected_class_accuracy has several values for each model. cutk report shows them")


def test_a_summary_and_a_metric_by_its_providers_name_are_no_silence(run):
    ran = run(*NONE, "--metric", "alpha_star", "--metric", "cutk:passes")
    assert ran.code == 0, ran.err
    assert "applies to none" not in ran.err


def test_a_metric_comes_to_those_of_the_plan(run):
    metrics = run(*NONE, "--metric", "passes", "--json").json["records"][-1]["metrics"]
    assert {"passes", "corrected_accuracy"} <= set(metrics)


def test_a_plan_of_ones_own(run, tmp_path, error_of):
    plan = 'dataset = "fake"\nalphas = [1.0]\nseeds = 1\nunlearners = ["none"]\n[recipe]\nsteps = 3\n'
    (tmp_path / "mine.toml").write_text(plan)
    ran = run("bench", "--preset", "mine.toml", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["plan"]["recipe"]["steps"] == 3
    (tmp_path / "mine.toml").write_text(plan + "[options.convnet-smal]\nwidth = 3\n")
    assert "Unknown component 'convnet-smal'. Did you mean 'convnet-small'?" in error_of(
        run("bench", "--preset", "mine.toml")
    )
    (tmp_path / "mine.toml").write_text("alpha = [1]\n")
    message = error_of(run("bench", "--preset", "mine.toml", "-u", "ssd"))
    assert "Unknown entry 'alpha' in the plan." in message
    assert "Did you mean 'alphas'?" in message


# What is refused.

BAD = {
    "unknown unlearner": (("--unlearner", "sdd"), "Unknown unlearner 'sdd'. Did you mean 'ssd'? See: cutk plugins list"),
    "other case": (("--unlearner", "SSD"), "Unknown unlearner 'SSD'. Did you mean 'ssd'?"),
    "several in one": (("-u", "ssd,rewod"), "Give each by itself: --unlearner ssd --unlearner rewod"),
    "no unlearner": ((), "Which unlearner? Give --unlearner NAME"),
    "unknown dataset": ((*SSD, "-d", "digit"), "Unknown dataset 'digit'. Did you mean 'digits'?"),
    "unknown manipulation": ((*SSD, "-m", "badnets"), "Unknown manipulation 'badnets'. Did you mean 'badnet'?"),
    "unknown part": ((*SSD, "-m", "badnet+badnets"), "Unknown manipulation 'badnets'. Did you mean 'badnet'?"),
    "a part twice": ((*SSD, "-m", "badnet+badnet"), "Manipulation 'badnet+badnet': expected each part once."),
    "unknown identification": ((*SSD, "--identification", "unifrom"), "Unknown identification 'unifrom'. Did you mean 'uniform'?"),
    "unknown rule": ((*SSD, "--select", "papers"), "Unknown selector 'papers'. Did you mean 'paper'?"),
    "unknown model": ((*SSD, "--model", "x"), "Unknown model 'x'."),
    "a library's model": ((*SSD, "--model", "resnet18"), "torchvision:resnet18"),
    "unknown metric": ((*SSD, "--metric", "retain"), "Unknown metric 'retain'."),
    "unknown preset": ((*SSD, "--preset", "laptop"), "Unknown preset 'laptop'."),
    "unknown option": ((*SSD, "-o", "ssd.weight=3"), "Unknown option 'ssd.weight'. Expected one of: selection_weight,"),
    "ill-typed option": (
        ("-u", "ssd", "-o", "ssd.dampening=much"),
        "Option 'ssd.dampening': expected a number > 0, got 'much'.",
    ),
    "option of nobody": ((*SSD, "-o", "sdd.x=3"), "Unknown component 'sdd'. Did you mean 'ssd'?"),
    "option of another": ((*SSD, "-o", "rewod.x=3"), "Options for 'rewod' are given, but the plan does not use it."),
    "option without value": ((*SSD, "-o", "ssd.dampening"), "--option: expected COMPONENT.NAME=VALUE"),
    "option without component": ((*SSD, "-o", "dampening=3"), "--option: expected COMPONENT.NAME=VALUE"),
    "option without name": ((*SSD, "-o", "ssd.=3"), "--option: expected COMPONENT.NAME=VALUE"),
    "unknown recipe": ((*SSD, "--recipe", "adam"), "Unknown recipe 'adam'. Did you mean 'adamw'?"),
    "two recipes": ((*SSD, "--recipe", "sgd", "--recipe", "adamw"), "--recipe: expected the name of one recipe, got 'sgd' and 'adamw'."),
    "unknown recipe option": ((*SSD, "--recipe", "step=3"), "Unknown option 'sgd.step'."),
    "ill-typed recipe option": ((*SSD, "--recipe", "steps=0"), "Option 'sgd.steps': expected an integer ≥ 1 and ≤ 1000000000, got '0'."),
    "a recipe's option": ((*SSD, "--lr", "0.1"), "No such option: --lr. It is the recipe's: --recipe lr=VALUE"),
    "a recipe's longer option": ((*SSD, "--weight-decay=0.1"), "It is the recipe's: --recipe weight_decay=VALUE"),
    "alpha zero": ((*SSD, "--alpha", "0"), "Alpha: expected a fraction above 0 and at most 1, got 0."),
    "alpha too large": ((*SSD, "--alpha", "1.5"), "Alpha: expected a fraction above 0 and at most 1, got 1.5."),
    "alpha no number": ((*SSD, "--alpha", "half"), "Alpha: expected numbers separated by commas, such as 0.1,0.5,1, got 'half'."),
    "alpha nan": ((*SSD, "--alpha", "nan"), "Alpha: expected a fraction above 0 and at most 1, got nan."),
    "alpha of nothing": ((*SSD, "--alpha", "0.001"), "identifies none of the 19 manipulated samples"),
    "search unknown": ((*SSD, "--search", "random"), "Search: expected grid, default, or random:N with N ≥ 1, such as random:20, got 'random'."),
    "search for nothing": ((*SSD, "--search", "random:0"), "Search: expected grid, default, or random:N"),
    "no value": ((*SSD, "-o", "ssd.dampening="), "Option 'ssd.dampening': expected a number > 0, got ''."),
    "device without memory": ((*SSD, "--device", "meta"), "Device 'meta' cannot be used here"),
    "device gpu": ((*SSD, "--device", "gpu"), "cuda"),
    "too many steps": ((*SSD, "--recipe", "steps=99999999999999999999"), "Option 'sgd.steps': expected an integer"),
    "no seeds": ((*SSD, "--seeds", "0"), "Plan entry 'seeds': expected"),
    "too many seeds": ((*SSD, "--seeds", "1000000000"), "Plan entry 'seeds': expected"),
    "seeds no number": ((*SSD, "--seeds", "x"), "Invalid value for '--seeds'"),
    "a negative seed": ((*LEAST, "--seed", "-1"), "Invalid value for '--seed': -1 is not in the range"),
    "both ways of seeds": ((*SSD, "--seed", "1"), "Give --seeds N, which counts from 0, or --seed N"),
    "too many manipulated": ((*SSD, "-o", "badnet.count=500"), "expected 1 to 380"),
    "target out of range": ((*SSD, "-o", "badnet.target=4"), "Option 'badnet.target': expected a class from 0 to 3, got 4."),
    "model too deep": ((*SSD, "--model", "resnet9"), "resnet9 is too deep for images of 8×8 pixels; it needs 11×11."),
    "no data": ((*SSD, "-d", "cifar10", "--data-root", "nowhere"), "CIFAR-10 is not in 'nowhere'"),
    "no use for a root": ((*SSD, "--data-root", "x"), "Dataset 'fake' has no use for --data-root. Leave it out."),
    "no such device": ((*SSD, "--device", "warp"), "Device 'warp' cannot be used here"),
    "no such precision": ((*SSD, "--precision", "fp8"), "Invalid value for '--precision'"),
    "no such option": ((*SSD, "--unlearners", "x"), "No such option"),
    "a part is missing": ((*SSD, "-m", "badnet+"), "Manipulation: a name is missing before or after '+'."),
    "an option again": ((*SSD, "--identification", "uniform", "--identification", "biased"), "--identification: expected once, got it 2 times."),
    "a dataset again": ((*SSD, "-d", "fake", "--dataset", "digits"), "--dataset: expected once, got it"),
    "stray argument": (("-u", "ssd", "more"), "Unexpected argument 'more'"),
    "stray setting": (("-u", "ssd", "steps=3"), "Unexpected argument 'steps=3'"),
    "runs folder without a name": ((*SSD, "--runs", ""), "--runs: expected a folder, got nothing."),
    "runs folder is a file": ((*SSD, "--runs", "/dev/null/runs"), "Runs folder '/dev/null/runs' cannot be written to"),
    "unknown executor": ((*SSD, "--executor", "process"), "Unknown executor 'process'. Did you mean 'processes'?"),
    "unknown observer": ((*SSD, "--observer", "event"), "Unknown observer 'event'. Did you mean 'events'?"),
    "no workers": ((*SSD, "--executor", "processes:0"), "Option 'processes:0.workers': expected an integer ≥ 1 and ≤ 1024 or none, got '0'."),
    "workers no number": ((*SSD, "--executor", "processes:x"), "got 'x'."),
    "no threads": ((*SSD, "--threads", "0"), "Invalid value for '--threads': 0 is not in the range"),
    "threads no number": ((*SSD, "--threads", "many"), "Invalid value for '--threads'"),
    "a debugger elsewhere": ((*SSD, "--pdb", "--executor", "processes:2"), "--pdb needs the error in this process, and 'processes:2' computes in others. Give --executor serial."),
    "a debugger and isolation": ((*SSD, "--pdb", "--isolate"), "--pdb needs the error in this process, and --isolate has methods work in others. Leave one out."),
    "a document of costs": ((*SSD, "--dry-run", "--json"), "--json prints results, and --dry-run has none. Leave one out."),
    "a number twice": ((*SSD, "--executor", "processes:2", "-o", "processes.workers=1"), "Option 'processes.workers': 'processes:2' says it already. Leave one out."),
    "what a variant is": (("-u", "seal:tune", "-o", "seal:tune.final=retrain"), "Option 'seal:tune.final': 'seal:tune' says it already. Leave one out."),
    "what a variant is, by its family": (("-u", "seal:tune", "-o", "seal.final=retrain"), "Option 'seal.final': 'seal:tune' says it already. Leave one out."),
    "unreadable plan": ((*SSD, "--preset", "nowhere.toml"), "Plan 'nowhere.toml' cannot be read"),
}  # fmt: skip
# Another model has no use for the tiny plan's option of convnet-small, and without --recipe "more" is a stray.
ON_BARE = {
    *("unknown model", "a library's model", "model too deep", "no data", "unknown dataset"),
    *("stray argument", "stray setting"),
}


@pytest.mark.parametrize(("source", "found"), [("ENVIRONMENT", {}), ("COMMANDLINE", {"root": "elsewhere"})])
def test_the_environment_moves_no_data_that_say_where_they_lie(source, found):
    context = SimpleNamespace(get_parameter_source=lambda _: ParameterSource[source])
    registry, given = load_registry({"CUTK_PLUGINS": ""}), {"data_root": "elsewhere", "download": False}
    assert _data_options(context, registry.get("dataset", "folder:photos"), given) == found
    assert _data_options(context, registry.get("dataset", "cifar10"), given) == {"root": "elsewhere"}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, error_of, case):
    extra, message = BAD[case]
    ran = run(*without(BARE if case in ON_BARE else TINY, extra), *extra)
    assert message in error_of(ran)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("options = 3", "Plan entry 'options': expected a table, got 3."),
        ("[options]\nssd = 3", "Plan entry 'options': expected a table, got {'ssd': 3}."),
        ("recipe = 3", "Plan entry 'recipe'"),
        ("dataset = 3", "Plan entry 'dataset': expected a text, got 3."),
        ('dataset = ["fake"]', "Plan entry 'dataset'"),
        ('unlearners = "ssd"', "Plan entry 'unlearners'"),
        ("[options.ssd]\nselection_weight = []", "Option 'ssd.selection_weight': expected a number > 0, got []."),
    ],
)
def test_a_plan_of_the_wrong_type_is_one_line(run, tmp_path, error_of, text, message):
    (tmp_path / "mine.toml").write_text(text)
    ran = run("bench", "-u", "ssd", "--preset", "mine.toml")
    assert error_of(ran).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


# What fails on the way.


def test_a_failing_cell_gives_exit_code_1_and_the_rest(run):
    ran = run(*TINY, *SSD, "--recipe", "lr=1e30", "--json")
    assert ran.code == 1
    assert ran.json["records"] == []
    assert len(ran.json["failures"]) == 4
    ran = run(*TINY, *SSD, "--recipe", "lr=1e30")
    assert ran.code == 1
    assert "4 failed:" in ran.err
    assert "badnet, seed 0: gold: Training diverged" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in run(*TINY, *SSD, "--recipe", "lr=1e30", "--traceback").err


BAD_MANIPULATION = """
import cutk


class Bad(cutk.Manipulation):
    "Fails."
    name = "bad"

    def corrupt(self, train, generator, surrogate=None):
        return train.nothing_like_this


@cutk.hookimpl
def cutk_manipulations():
    return [Bad]
"""


def test_of_two_manipulations_the_good_one_runs(run, tmp_path):
    (tmp_path / "bad.py").write_text(BAD_MANIPULATION)
    ran = run(*NONE, "--plugin", "bad.py", "-m", "bad", "-m", "badnet", "--json")
    assert ran.code == 1, ran.err
    assert [record["manipulation"] for record in ran.json["records"]] == ["badnet"] * 3
    failures = ran.json["failures"]
    assert {failure["manipulation"] for failure in failures} == {"bad"}
    assert len(failures) == 3
    assert "bad.py:" in failures[0]["reason"]
    assert "return train.nothing_like_this" in failures[0]["reason"]


def test_a_failed_point_is_told_and_does_not_fail_the_command(run):
    ran = run(*TINY, "-u", "cf", "-o", "cf.steps=20", "-o", "cf.lr=0.01,1e30")
    assert ran.code == 0, ran.err
    assert "failed:" in ran.err
    assert "Training diverged" in ran.err
    assert run(*TINY, "-u", "cf", "-o", "cf.steps=20", "-o", "cf.lr=1e30").code == 1


def test_an_authors_mistake_is_shown_where_it_was_made(run, write):
    file = write("task.original.fc9")
    mine = (*FAKE, *SMALL, "--alpha", "1", "--seeds", "1", "-u", "mine", "--plugin", file)
    ran = run(*mine)
    assert ran.code == 1
    (line,) = {line.strip() for line in ran.err.splitlines() if line.startswith("  badnet")}
    assert "has no attribute 'fc9'" in line
    assert re.search(r"mine\.py:\d+: task\.original\.fc9", line)
    assert "Traceback" not in ran.err
    traced = run(*mine, "--traceback")
    assert f'File "{file}"' in traced.err


def test_the_debugger_opens_where_the_author_erred(python, tmp_path, write):
    file = write("task.original.fc9")
    command = (python, "-m", "cutk", *NONE, "-u", "mine", "--plugin", file, "--json", "--pdb")
    ran = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path,
        env={**os.environ, "CUTK_PLUGINS": ""},
        input="p 'found', type(task).__name__\ndown\np type(self).__name__\nc\n",
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "> " + str(file) in ran.stderr
    assert "('found', 'Task')" in ran.stderr
    assert "'Sequential'" in ran.stderr
    document = json.loads(ran.stdout)  # the debugger speaks on stderr
    assert [record["unlearner"] for record in document["records"]] == [None, None, "none"]


def test_who_quits_the_debugger_quits_the_run(run, write, monkeypatch):
    write("task.original.fc9")
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    quitted = run(*LEAST, "--seeds", "1", "-u", "mine", "--plugin", "mine.py", "--pdb")
    assert quitted.code == 130
    assert "> " in quitted.err
    assert "the same command goes on from there" in quitted.err


def test_the_debugger_opens_where_a_dataset_fails_too(run, monkeypatch, registry):
    def fail(self):
        raise KeyError("lost")

    monkeypatch.setattr(registry.get("dataset", "fake").component, "load", fail)
    monkeypatch.setattr("sys.stdin", io.StringIO("p type(self).__name__\nc\n"))
    ran = run(*NONE, "--pdb")
    assert ran.code == 1
    assert "raise KeyError" in ran.err
    assert "'Fake'" in ran.err
    assert "Error: The dataset 'fake' of cutk==" in ran.err


# What is said beforehand.


def test_a_long_run_says_so_before_anything_else(run, monkeypatch):
    monkeypatch.setattr(foresight, "remark_if_long", lambda study: "This takes about a year.")
    assert run(*NONE).err.splitlines()[0] == "Warning: This takes about a year."
    assert "a year" not in run(*NONE, "--dry-run").err


def test_what_is_all_there_is_not_timed(run, monkeypatch):
    assert run(*NONE).code == 0
    monkeypatch.setattr(foresight, "remark_if_long", lambda study: "This takes about a year.")
    again = run(*NONE)
    assert again.code == 0
    assert "a year" not in again.err


def test_looking_ahead_changes_no_number(run, monkeypatch):
    def numbers(runs):
        records = run(*TINY, *SSD, "--runs", runs, "--json").json["records"]
        return [{n: v for n, v in r["metrics"].items() if n != "unlearn_seconds"} for r in records]

    with_measurement = numbers("a")
    monkeypatch.setattr(foresight, "remark_if_long", lambda study: "")
    assert numbers("b") == with_measurement


# How it stops, and goes on.

# The number of threads is part of a run's key.
CLEAN = {"CUTK_PLUGINS": "", "OMP_NUM_THREADS": "1"}
CUTK = (sys.executable, "-m", "cutk")
WAITS = """
import os
import signal
import sys

import cutk


class Patient(cutk.Unlearner):
    "Waits to be interrupted, unless it is told to go on."
    name = "patient"

    def unlearn(self, task, state=None):
        if len(task.identified) > 10 and "GO_ON" not in os.environ:
            print("waiting", file=sys.stderr, flush=True)
            signal.pause()
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Patient]
"""


def test_ctrl_c_leaves_a_folder_that_the_same_command_resumes(started, shell, tmp_path):
    (tmp_path / "patient.py").write_text(WAITS)
    command = [*CUTK, *TINY, "--plugin", "patient.py", "-u", "patient"]
    study = started(*command, cwd=tmp_path, env=CLEAN)
    study.until("waiting\n")
    assert study.said.count("[") == 3
    study.interrupt()
    assert study.end() == (130, ""), study.said
    assert "Interrupted. Finished cells are in 'runs'; the same command goes on from there." in study.said
    assert "Traceback" not in study.said
    assert not list(tmp_path.glob("runs/*/.tmp-*"))
    done = shell(*command, cwd=tmp_path, env={**CLEAN, "GO_ON": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("(read)") == 3
    assert "[4/4] badnet, seed 0: patient at α = 1\n" in done.stderr


def test_two_processes_on_one_runs_folder_both_finish(tmp_path):
    command = [*CUTK, *without(TINY, ("--seeds",)), *SSD, "--seeds", "2", "--json"]
    env = {**os.environ, **CLEAN}
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=1200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    values = [
        [
            (r["role"], r["unlearner"], r["alpha"], r["seed"], r["metrics"]["corrected_accuracy"])
            for r in json.loads(out)["records"]
        ]
        for out, _ in outs
    ]
    assert values[0] == values[1]
    assert len(values[0]) == 8
    assert len(list(tmp_path.glob("runs/*/*/record.json"))) == 8


def test_a_method_that_leaves_the_folder_takes_no_result_along(run, tmp_path, write):
    (tmp_path / "elsewhere").mkdir()
    write("os.chdir('elsewhere') if os.path.isdir('elsewhere') else None")
    ran = run(*TINY, "-u", "mine", "-u", "none", "--plugin", "mine.py")
    assert ran.code == 0, ran.err
    assert list((tmp_path / "elsewhere").iterdir()) == []
    again = run(*TINY, "-u", "mine", "-u", "none", "--plugin", tmp_path / "mine.py", "--runs", tmp_path / "runs")
    assert again.err.count("(read)") == 6
