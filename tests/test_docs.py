"""What the documents show is what runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import runpy
import shlex
from pathlib import Path

import pytest

import cutk
import cutk_builtin
from cutk.plugins.checks import problem_with

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
skeleton = runpy.run_path(str(ROOT / "docs" / "outputs.py"))["skeleton"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `make demo` runs, at full size."""
    import os
    import subprocess
    import sys

    return subprocess.run(
        [sys.executable, "-m", "cutk", "bench", "--unlearner", "ssd"],
        cwd=tmp_path_factory.mktemp("demo"),
        env={**os.environ, "CUTK_PLUGINS": "", "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def row(output, name, alpha=""):
    # Of the tables, the first has what is asked for here.
    line = next(line for line in output.splitlines() if line.split()[: 2 if alpha else 1] == [*alpha.split(), name])
    return [float(number) for number in re.findall(r"(\d\.\d+) ±", line)]


@pytest.mark.xdist_group("demo")  # which runs once
def test_the_readme_shows_what_the_demo_prints(demo):
    assert demo.returncode == 0, demo.stderr
    _, _, after = README.partition("<!-- output: cutk bench --unlearner ssd -->\n```text\n")
    shown, _, _ = after.partition("```")
    assert skeleton(shown) == skeleton(demo.stdout)


@pytest.mark.xdist_group("demo")
def test_the_demo_shows_what_the_paper_found(demo):
    original, gold = row(demo.stdout, "original"), row(demo.stdout, "gold")
    healed = row(demo.stdout, "ssd", "0.1")
    # Corrected accuracy: the backdoor works, gold has none, and a tenth of the poison is enough for SSD.
    assert original[0] < 0.35
    assert gold[0] > 0.9
    assert healed[0] > original[0] + 0.3
    # Retain accuracy: the original is good, and SSD costs some.
    assert original[1] > 0.95
    assert healed[1] < original[1]


COMMANDS = [
    line.removeprefix("$ ").partition(" #")[0].strip() for text in blocks("console") for line in text.splitlines()
]
PLANS = [command for command in COMMANDS if command.startswith("cutk bench") and "--data-root" not in command]


@pytest.mark.parametrize("command", PLANS)
def test_the_readmes_commands_are_plans_that_resolve(run, command):
    words = [word for word in shlex.split(command.partition(">")[0])[1:] if word != "--json"]
    ran = run(*words, "--dry-run")
    assert ran.code == 0, ran.err
    assert "cells to compute" in ran.out


def test_the_readmes_cifar_command_is_a_plan_whose_cost_can_be_told_without_the_data(run, tmp_path):
    (command,) = [c for c in COMMANDS if "--data-root" in c]
    ran = run(*shlex.split(command.replace("~/data --download", str(tmp_path)))[1:], "--dry-run")
    assert ran.code == 0
    assert "CIFAR-10 is not in" in ran.err
    assert "36 of 36 cells to compute" in ran.out


def test_the_readmes_plan_is_one(run, tmp_path):
    (plan,) = [text for text in blocks("toml") if "alphas" in text]
    (tmp_path / "mine.toml").write_text(plan)
    ran = run("bench", "--preset", "mine.toml", "--dry-run")
    assert ran.code == 0, ran.err
    assert "40 of 40 cells" in ran.out


def test_the_readmes_method_is_one():
    (code,) = blocks("python")
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(code, namespace)  # noqa: S102
    (component,) = namespace["cutk_unlearners"]()
    assert problem_with(component, "unlearner") is None


def test_the_readme_lists_every_metric(registry):
    listed = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    there = [entry.name for kind in ("metric", "summary") for entry in registry.of_kind(kind)]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        *(("manipulations", "manipulation"), ("identifications", "identification"), ("unlearners", "unlearner")),
        *(("selection rules", "selector"), ("recipes", "recipe"), ("datasets", "dataset")),
        *(("executors", "executor"), ("observers", "observer")),
    ],
)
def test_the_readme_lists_every_component(registry, row, kind):
    (line,) = re.findall(rf"^\| {row} \| (.*) \|$", README, flags=re.MULTILINE)
    listed = {name.partition(":")[0] for name in re.findall(r"`([\w:-]+)`", line)}
    assert listed == {entry.name for entry in registry.of_kind(kind)}


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_paths_and_make_targets_in_the_documents_exist(text):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`|^\$ make (\w+)", text, flags=re.MULTILINE):
        assert f"\n{''.join(target)}:" in makefile
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / link).exists(), link
    for path in re.findall(r"`((?:cutk|plugins|examples|tests|benchmarks)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path


MODULES = [
    module.name
    for package in (cutk, cutk_builtin)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name != "cutk.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
