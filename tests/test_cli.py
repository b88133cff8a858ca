from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cutk

ROOT = Path(__file__).parents[1]

BARE = ("bench", "-d", "fake", "--alpha", "0.5,1", "--seeds", "1", "--precision", "fp32", "--device", "cpu")
TINY = (
    *BARE,
    *("-o", "convnet-small.width=4", "--recipe", "steps=20", "batch_size=32"),
)
SSD = ("--unlearner", "ssd", "-o", "ssd.selection_weight=1,10", "-o", "ssd.dampening=1")


def error_of(ran):
    """The one line that a refused command prints; nothing else may be there."""
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1, ran.err
    return ran.err.removeprefix("Error: ").rstrip("\n")


def test_a_table_with_references_and_the_best_marked(run):
    ran = run(*TINY, *SSD)
    assert ran.code == 0, ran.err
    for text in ("original", "gold", "corrected accuracy", "retain accuracy", "ssd: alpha_star", "fp32", "*"):
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
    assert list(document) == ["cutk", "plan", "environment", "records", "failures", "summaries"]
    assert document["cutk"] == cutk.__version__
    environment = document["environment"]
    assert {"torch", "python", "device", "precision", "threads", "providers"} <= set(environment)
    assert environment["providers"] == {"cutk": cutk.__version__}
    assert (environment["device"], environment["precision"]) == ("cpu", "fp32")
    assert document["plan"]["recipe"]["steps"] == 20
    assert document["plan"]["recipe"]["batch_size"] == 32
    assert {r["unlearner"] for r in document["records"]} == {"none", "gold", "ssd"}


def test_all_unlearners(run):
    short = ("cf.steps=5", "badt.steps=5", "scrub.steps=5")
    options = [part for setting in short for part in ("-o", setting)]
    ran = run(*TINY, "--unlearner", "all", *options, "--search", "default", "--alpha", "1", "--json")
    assert ran.code == 0, ran.err
    everyone = {"badt", "cf", "none", "rewod", "scrub", "ssd"}
    assert {r["unlearner"] for r in ran.json["records"] if r["alpha"] == 1} == everyone


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
    assert re.search(r"A pass takes about \S+ s here .*fp32; measured just now\), so all of it about \S+ s", ran.out)
    assert list(tmp_path.iterdir()) == []
    run(*TINY, "-u", "rewod")
    assert "2 of 6 cells to compute" in run(*TINY, "-u", "ssd", "-u", "rewod", "--dry-run").out


BAD = {
    "unknown unlearner": (("--unlearner", "sdd"), "Unknown unlearner 'sdd'. Did you mean 'ssd'? See: cutk plugins list"),
    "no unlearner": ((), "Which unlearner? Give --unlearner NAME"),
    "unknown dataset": ((*SSD, "-d", "digit"), "Unknown dataset 'digit'. Did you mean 'digits'?"),
    "unknown manipulation": ((*SSD, "-m", "badnets"), "Unknown manipulation 'badnets'. Did you mean 'badnet'?"),
    "unknown model": ((*SSD, "--model", "x"), "Unknown model 'x'. See: cutk plugins list"),
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
    "unknown recipe option": ((*SSD, "--recipe", "step=3"), "Unknown option 'recipe.step'."),
    "ill-typed recipe option": ((*SSD, "--recipe", "steps=0"), "Option 'recipe.steps': expected an integer ≥ 1 and ≤ 1000000000, got '0'."),
    "alpha zero": ((*SSD, "--alpha", "0"), "Alpha: expected a fraction above 0 and at most 1, got 0."),
    "alpha too large": ((*SSD, "--alpha", "1.5"), "Alpha: expected a fraction above 0 and at most 1, got 1.5."),
    "alpha no number": ((*SSD, "--alpha", "half"), "Alpha: expected numbers separated by commas, such as 0.1,0.5,1, got 'half'."),
    "alpha nan": ((*SSD, "--alpha", "nan"), "Alpha: expected a fraction above 0 and at most 1, got nan."),
    "alpha of nothing": ((*SSD, "--alpha", "0.001"), "Alpha 0.001 identifies none of the 19 manipulated samples"),
    "search unknown": ((*SSD, "--search", "random"), "Search: expected grid, default, or random:N with N ≥ 1, such as random:20, got 'random'."),
    "search for nothing": ((*SSD, "--search", "random:0"), "Search: expected grid, default, or random:N"),
    "no value": ((*SSD, "-o", "ssd.dampening="), "Option 'ssd.dampening': expected a number > 0, got ''."),
    "device without memory": ((*SSD, "--device", "meta"), "Device 'meta' cannot be used here"),
    "too many steps": ((*SSD, "--recipe", "steps=99999999999999999999"), "Option 'recipe.steps': expected an integer"),
    "no seeds": ((*SSD, "--seeds", "0"), "Plan entry 'seeds': expected an integer ≥ 1, got 0."),
    "seeds no number": ((*SSD, "--seeds", "x"), "Invalid value for '--seeds'"),
    "too many manipulated": ((*SSD, "-o", "badnet.count=500"), "badnet: expected 1 to 380 poisoned images"),
    "target out of range": ((*SSD, "-o", "badnet.target=4"), "Option 'badnet.target': expected a class from 0 to 3, got 4."),
    "model too deep": ((*SSD, "--model", "resnet9"), "resnet9 is too deep for images of 8×8 pixels; it needs 11×11."),
    "no data": ((*SSD, "-d", "cifar10", "--data-root", "nowhere"), "CIFAR-10 is not in 'nowhere'"),
    "no use for a root": ((*SSD, "--data-root", "x"), "Dataset 'fake' has no use for --data-root. Leave it out."),
    "no such device": ((*SSD, "--device", "warp"), "Device 'warp' cannot be used here"),
    "no such precision": ((*SSD, "--precision", "fp8"), "Invalid value for '--precision'"),
    "no such option": ((*SSD, "--unlearners", "x"), "No such option"),
    "stray argument": (("-u", "ssd", "more"), "Unexpected argument 'more'"),
    "runs folder is a file": ((*SSD, "--runs", "/dev/null/runs"), "Runs folder '/dev/null/runs' cannot be written to"),
    "unreadable plan": ((*SSD, "--preset", "nowhere.toml"), "Plan 'nowhere.toml' cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, case):
    extra, message = BAD[case]
    # Another model has no use for the tiny plan's option of convnet-small, and without --recipe "more" is a stray.
    base = BARE if case in ("unknown model", "model too deep", "no data", "unknown dataset", "stray argument") else TINY
    ran = run(*base, *extra)
    assert message in error_of(ran)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_ones_own(run, tmp_path):
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


def test_plugins_list_and_show(run):
    ran = run("plugins", "list")
    assert ran.code == 0
    for text in ("unlearner", "ssd", f"cutk {cutk.__version__}", "ok", "Kind", "Status"):
        assert text in ran.out
    shown = run("plugins", "show", "ssd").out
    for text in (
        "Foster et al.",
        "selection_weight",
        "a number > 0",
        "10.0",
        "Search grid: 50 points",
        "selection_weight 10 with dampening 1, 5, 10, 50, 100",
    ):
        assert text in shown
    assert "lower is better" in run("plugins", "show", "attack_success_rate").out
    assert "It takes no options." in run("plugins", "show", "none").out
    assert "Did you mean 'ssd'?" in error_of(run("plugins", "show", "sdd"))


def test_a_broken_plugin_shows_in_the_list_and_hurts_nobody(run, monkeypatch):
    folder = Path(__file__).parent / "broken_plugins"
    for name in ("import_error", "system_exit"):
        monkeypatch.syspath_prepend(str(folder / name))
    monkeypatch.delenv("CUTK_PLUGINS")
    ran = run("plugins", "list")
    monkeypatch.setenv("CUTK_PLUGINS", "cutk-test-import-error,cutk-test-system-exit")
    ran = run("plugins", "list")
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert "broken: ModuleNotFoundError" in flat
    assert "broken: it calls sys.exit(3) when" in flat
    assert "cutk-test-import-error 1.0" in flat
    assert run(*TINY, "-u", "none").code == 0
    assert run("--help").code == 0


def test_the_version(run):
    assert run("--version").out.startswith(f"cutk {cutk.__version__} (plugin API {cutk.API_VERSION}, torch ")


def test_an_unknown_command_is_a_usage_error(run):
    assert "No such command 'benhc'" in error_of(run("benhc"))


CUTK = (sys.executable, "-m", "cutk")
CLEAN = {"CUTK_PLUGINS": "", "OMP_NUM_THREADS": "1"}


def test_ctrl_c_leaves_a_folder_that_the_same_command_resumes(shell, tmp_path):
    command = [*CUTK, *TINY, "-u", "rewod", "--alpha", "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1", "--recipe", "steps=60"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, **CLEAN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background, they were told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("[3/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("runs/*/.tmp-*"))
    done = shell(*command, cwd=tmp_path, env=CLEAN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("(read)") >= 3


def test_two_processes_on_one_runs_folder_both_finish(tmp_path):
    command = [*CUTK, *TINY, *SSD, "--seeds", "2", "--json"]
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **CLEAN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    values = [
        [
            (r["unlearner"], r["alpha"], r["seed"], r["metrics"]["corrected_accuracy"])
            for r in json.loads(out)["records"]
        ]
        for out, _ in outs
    ]
    assert values[0] == values[1]
    assert len(values[0]) == 8
    assert len(list(tmp_path.glob("runs/*/*/record.json"))) == 8


def test_a_closed_pipe_is_no_traceback(tmp_path):
    pipe = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m cutk plugins list | head -n 1"],
        cwd=tmp_path,
        env={**os.environ, **CLEAN},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in pipe.stderr


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
def test_a_plan_of_the_wrong_type_is_one_line(run, tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    ran = run("bench", "-u", "ssd", "--preset", "mine.toml")
    assert error_of(ran).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_without_a_command_there_is_help_and_no_error(run):
    for command in ((), ("plugins",), ("presets",)):
        ran = run(*command)
        assert ran.code == 2
        assert ran.out.startswith("Usage: cutk")
        assert ran.err == ""


def test_json_shows_options_as_they_are_used(run):
    ran = run(*TINY, *SSD, "-o", "badnet.size=1", "-o", "ssd.dampening=1,5", "--alpha", "1", "--json")
    options = ran.json["plan"]["options"]
    assert options["badnet"] | {"size": 1, "target": 0} == options["badnet"]
    assert len(options["ssd"]) > 1
    assert {point["dampening"] for point in options["ssd"]} == {1.0, 5.0}


def test_a_failed_point_is_told_and_does_not_fail_the_command(run):
    wild = ("-u", "cf", "-o", "cf.steps=20", "-o", "cf.lr=0.01,1e30", "--alpha", "1")
    ran = run(*TINY, *wild)
    assert ran.code == 0, ran.err
    assert "2 failed:" in ran.err
    assert "Training diverged" in ran.err
    assert run(*TINY, "-u", "cf", "-o", "cf.steps=20", "-o", "cf.lr=1e30", "--alpha", "1").code == 1


def test_what_a_method_prints_does_not_reach_stdout(run, monkeypatch):
    from cutk_builtin.unlearners.none import NoUnlearning

    def loud(self, task, state=None):
        print("hello")
        return task.original

    monkeypatch.setattr(NoUnlearning, "unlearn", loud)
    ran = run(*TINY, "-u", "none", "--alpha", "1", "--json")
    assert "records" in ran.json
    assert "hello" in ran.err


def test_a_terminal_without_greek_gets_a_table_all_the_same(shell, python, tmp_path):
    command = (python, "-m", "cutk", *TINY, "-u", "none", "--alpha", "1")
    ran = shell(*command, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii", "CUTK_PLUGINS": ""})
    assert ran.returncode == 0, ran.stderr
    assert "corrected accuracy" in ran.stdout
    full = shell("sh", "-c", f"'{python}' -m cutk plugins list > /dev/full", cwd=tmp_path)
    assert full.returncode == 1
    assert "Error: OSError: [Errno 28]" in full.stderr
    assert "Traceback" not in full.stderr


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_the_list_of_components_fits_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("cutk.report.console.PIPE_WIDTH", 0)
    ran = run("plugins", "list")
    assert max(map(len, ran.out.splitlines())) <= int(columns)
    assert "corrected_accuracy" in ran.out


def test_colours_are_for_terminals_and_for_who_wants_them(shell, python, tmp_path):
    # The reason of a broken plugin is red, where there are colours.
    env = {"PYTHONPATH": str(ROOT / "tests/broken_plugins/bad_name"), "TERM": "xterm"}
    command = (python, "-m", "cutk", "plugins", "list")
    assert "\x1b" not in shell(*command, cwd=tmp_path, env=env).stdout
    coloured = re.compile(r"\x1b\[[\d;]*3\dm")
    assert coloured.search(shell(*command, cwd=tmp_path, env={**env, "FORCE_COLOR": "1"}).stdout)
    # NO_COLOR takes the colours; bold type is none.
    both = {**env, "FORCE_COLOR": "1", "NO_COLOR": "1"}
    assert not coloured.search(shell(*command, cwd=tmp_path, env=both).stdout)
