"""``cutk plugins new``: what it writes works untouched, and what it refuses leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cutk
from cutk.kinds import KIND_NAMES, KINDS

# One name that is long, one with an underscore, one that begins with a digit, one that a class can't have.
NAMES = {
    "unlearner": "a-long-name-for-an-unlearner",
    "manipulation": "my-manipulation",
    "model": "3d-model",
    "metric": "true",
    "dataset": "some_data",
    "identification": "my-finding",
    "detector": "my-eye",
    "recipe": "my-recipe",
    "selector": "my-rule",
    "summary": "my-summary",
    "executor": "my-cluster",
    "observer": "my-log",
}


def inside(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


INSTALL = ("-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--target")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A distribution of each kind, written by processes of their own, and all of them installed into one folder."""
    folder = tmp_path_factory.mktemp("written")
    script = f"""
from cutk.cli import main
for kind, name in {NAMES!r}.items():
    try:
        main(["plugins", "new", name, "--kind", kind])
    except SystemExit as exit:
        assert not exit.code
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    projects = [f"cutk-{name}" for name in NAMES.values()]
    install = (*INSTALL, "site")
    for command in (("-c", script), (*install, *(f"./{project}" for project in projects))):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def env(written):
    return {"PYTHONPATH": str(written / "site"), "COLUMNS": "140"}


def test_it_is_a_distribution(written):
    for kind, name in NAMES.items():
        package = f"cutk_{name.replace('-', '_')}"
        project = written / f"cutk-{name}"
        expected = {"README.md", "pyproject.toml", f"src/{package}/__init__.py", f"tests/test_{package[5:]}.py"}
        assert expected <= set(inside(project))
        content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        assert content["project"]["name"] == f"cutk-{name}"
        assert content["project"]["entry-points"]["cutk"] == {name: package}
        major, minor, *_ = cutk.__version__.split(".")
        assert content["project"]["dependencies"][0] == f"cutk>={major}.{minor},<{major}.{int(minor) + 1}"
        assert f"{KINDS[kind].option} {name}" in (project / "README.md").read_text(encoding="utf-8")
        assert (project.stat().st_mode & 0o777) == (written / "site").stat().st_mode & 0o777


def test_what_is_written_passes_the_checks(written, env, shell, python):
    distributions = [f"cutk-{name}" for name in NAMES.values()]
    done = shell(python, "-m", "cutk", "plugins", "check", *distributions, cwd=written, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 fail, 0 not judged") == len(KIND_NAMES)


def test_what_is_written_passes_its_own_tests(written, env, shell, python):
    tests = [f"cutk-{name}/tests" for name in NAMES.values()]
    done = shell(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=written, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(NAMES)} passed" in done.stdout


OTHER = """
import cutk


class Mine(cutk.Unlearner):
    "Trains anew without what was identified."
    name = "mine"

    def unlearn(self, task, state=None):
        return task.retrain(task.retained)


@cutk.hookimpl
def cutk_unlearners():
    return [Mine]
"""


def test_its_tests_survive_another_method_in_the_examples_place(shell, python, tmp_path):
    done = shell(python, "-m", "cutk", "plugins", "new", "mine", "--kind", "unlearner", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    project, site = tmp_path / "cutk-mine", tmp_path / "site"
    (project / "src/cutk_mine/__init__.py").write_text(OTHER)
    install = (*INSTALL, site, project)
    assert shell(python, *install, cwd=tmp_path).returncode == 0
    env = {"PYTHONPATH": str(site)}
    done = shell(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_what_is_written_is_clean(written, shell, python):
    projects = [f"cutk-{name}" for name in NAMES.values()]
    for command in (("check",), ("format", "--check")):
        done = shell(python, "-m", "ruff", *command, "--no-cache", *projects, cwd=written)
        assert done.returncode == 0, done.stdout


def test_what_is_written_is_a_beginning_of_a_benchmark(written, env, shell, python):
    asked = [word for kind, name in NAMES.items() for word in (KINDS[kind].option, name)]
    quick = ("--alpha", "1", "--seeds", "1", "--recipe", "steps=20", "--search", "default")
    done = shell(python, "-m", "cutk", "bench", *asked, *quick, "--runs", "runs", "--json", cwd=written, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["recipe"]["name"] == NAMES["recipe"]
    assert (plan["identification"], plan["select"]) == (NAMES["identification"], NAMES["selector"])
    assert (plan["executor"], plan["observers"]) == (NAMES["executor"], [NAMES["observer"]])
    lines = [json.loads(line) for line in (written / "my-log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["role"] for line in lines] == ["original", "gold", "unlearned"]
    assert NAMES["summary"] in json.loads(done.stdout)["summaries"][0]["metrics"]


def test_the_next_steps_are_shown(run, tmp_path):
    ran = run("plugins", "new", "soft-reset", "--kind", "unlearner")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        "Wrote ./cutk-soft-reset. Next:",
        "  pip install -e './cutk-soft-reset[test]'",
        "  cutk plugins check cutk-soft-reset",
        "  cutk bench --unlearner soft-reset",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["cutk-soft-reset"]


def test_a_first_benchmark_has_an_unlearner_whatever_it_is_about(run):
    for kind, option in (("dataset", "--dataset"), ("summary", "--metric"), ("selector", "--select")):
        last = run("plugins", "new", f"my-{kind}", "--kind", kind).out.splitlines()[-1]
        assert last == f"  cutk bench --unlearner ssd {option} my-{kind}"


def test_into_is_the_folder_that_is_written(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("deep/er", "empty"):
        assert run("plugins", "new", "soft-reset", "--kind", "metric", "--into", folder).code == 0
        assert (tmp_path / folder / "pyproject.toml").is_file()
    assert not list(tmp_path.rglob(".tmp*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Bad Name!", "--kind", "model"), "the name 'Bad Name!'; expected lower-case letters, digits, - and _"),
        (("", "--kind", "model"), "the name ''; expected lower-case letters"),
        (("../up", "--kind", "model"), "the name '../up'; expected lower-case letters"),
        (("gold", "--kind", "unlearner"), "The new unlearner has the name 'gold', which is reserved."),
        (("trailing-", "--kind", "model"), "a distribution's name ends with a letter or a digit"),
        (("ssd", "--kind", "unlearner"), "'ssd' is a built-in, and keeps its name. Choose another."),
        (("digits", "--kind", "metric"), "'digits' is a built-in"),
        (("builtin", "--kind", "model"), "A package 'cutk_builtin' is installed already."),
        (("fine", "--kind", "optimiser"), "'optimiser' is not one of 'dataset', 'manipulation'"),
        (("fine",), "Missing option '--kind'"),
        (("full", "--kind", "model"), "'cutk-full' is there already. Choose another folder with --into DIR"),
        (("fine", "--kind", "model", "--into", "file"), "'file' is there already"),
        (("fine", "--kind", "model", "--into", "file/below"), "'file/below' cannot be written: "),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_line_and_leaves_nothing(run, tmp_path, arguments, words):
    (tmp_path / "cutk-full").mkdir()
    (tmp_path / "cutk-full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    ran = run("plugins", "new", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert words in ran.err
    # click names the choices of a missing option on a second line.
    assert ran.err.count("\n") == 1 or "Missing option" in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_on_the_way_leaves_nothing(run, tmp_path, monkeypatch):
    from cutk.cli import plugins_new

    def fail(folder: Path, *_):
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plugins_new, "_write", fail)
    ran = run("plugins", "new", "fine", "--kind", "model")
    assert ran.code == 2
    assert ran.err == "Error: 'cutk-fine' cannot be written: No space left on device.\n"
    assert list(tmp_path.iterdir()) == []


def test_every_kind_has_its_templates():
    templates = Path(cutk.__file__).parent / "templates" / "plugin"
    kinds = {f"{kind}.py.j2" for kind in KIND_NAMES}
    assert {path.name for path in templates.iterdir()} == {*kinds, "test.py.j2", "pyproject.toml.j2", "README.md.j2"}
    assert set(NAMES) == set(KIND_NAMES)
