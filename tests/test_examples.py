"""The examples: installed as anyone would install them, and run."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
DISTRIBUTIONS = sorted(path for path in EXAMPLES.iterdir() if (path / "pyproject.toml").is_file())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which all examples are installed."""
    folder = tmp_path_factory.mktemp("examples")
    sources = [shutil.copytree(path, folder / "sources" / path.name) for path in DISTRIBUTIONS]
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--no-build-isolation")
    done = subprocess.run(
        [*command, "--target", str(folder / "site"), *map(str, sources)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.xdist_group("examples")
def test_every_example_is_listed_as_ok(site, shell, python, tmp_path):
    done = shell(python, "-m", "cutk", "plugins", "list", cwd=tmp_path, env={"PYTHONPATH": str(site), "COLUMNS": "140"})
    for name in ("blended", "healing", "negative-gradient"):
        (line,) = [line for line in done.stdout.splitlines() if f" {name} " in line]
        assert f"cutk-{name} 0.2.0" in line
        assert line.split()[-1] == "ok"


@pytest.mark.xdist_group("examples")
def test_every_example_passes_its_own_tests_and_the_check(site, shell, python, tmp_path):
    env = {"PYTHONPATH": str(site)}
    tests = [path / "tests" for path in DISTRIBUTIONS]
    done = shell(python, "-m", "pytest", "-q", "--import-mode=importlib", *tests, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout
    names = [path.name for path in DISTRIBUTIONS]
    done = shell(python, "-m", "cutk", "plugins", "check", *names, "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.xdist_group("examples")
def test_the_examples_work_together(site, shell, python, tmp_path):
    done = shell(
        *(python, "-m", "cutk", "bench", "-d", "fake", "--alpha", "1", "--seeds", "1", "--json"),
        *("--recipe", "steps=80", "-m", "blended", "-o", "blended.ratio=0.5", "--metric", "healing"),
        *("-u", "negative-gradient", "-u", "rewod"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    original, gold = (r["metrics"] for r in document["records"][:2])
    # The blended trigger works, and retraining without all of it heals: its model is gold itself.
    assert original["attack_success_rate"] > 0.8
    assert gold["attack_success_rate"] < 0.2
    healing = {summary["unlearner"]: summary["metrics"]["healing"] for summary in document["summaries"]}
    assert healing["rewod"] == 1.0
    assert 0 <= healing["negative-gradient"] <= 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_examples_use_public_names_alone(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.startswith("cutk.")]
        if isinstance(node, ast.ImportFrom):
            assert node.module == "cutk.testing" or not (node.module or "").startswith("cutk.")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cutk":
            assert not node.attr.startswith("_")


def test_the_quickstart_runs(shell, python, tmp_path):
    done = shell(python, EXAMPLES / "quickstart.py", cwd=tmp_path, env={"CUTK_PLUGINS": ""})
    assert done.returncode == 0, done.stderr
    assert "6/6 badnet, seed 0: cf at α = 1" in done.stdout
    assert "ssd      at α = 0.1" in done.stdout
    assert "alpha_star" in done.stdout
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
