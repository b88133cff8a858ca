"""What is built and installed: cutk's own packages, and a third party's."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import cutk

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "cutk-negative-gradient"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build sdist and wheel from a copy, with the build backend that is installed."""
    import subprocess

    source = tmp_path_factory.mktemp("source") / "cutk"
    unwanted = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=unwanted)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.xdist_group("built")
def test_the_wheel_holds_core_built_ins_and_data(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    for name in (
        "cutk/__init__.py",
        "cutk/__init__.pyi",
        "cutk/py.typed",
        "cutk/cli/bench.py",
        "cutk_builtin/unlearners/ssd.py",
        "cutk_builtin/datasets/breast_cancer.npz",
        "cutk_builtin/datasets/digits.npz",
        "cutk_builtin/presets/default.toml",
        "cutk_builtin/presets/laptop/cifar10-poisoning.toml",
        "cutk_builtin/presets/paper/cifar100-ic.toml",
        "cutk/report/page.html.j2",
        "cutk/templates/plugin/unlearner.py.j2",
    ):
        assert name in names
    assert {name.split("/")[0] for name in names} <= {"cutk", "cutk_builtin", f"cutk-{cutk.__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for data in ("digits", "breast_cancer"):
        assert any(name.endswith(f"licenses/plugins/cutk_builtin/datasets/{data}.LICENSE.md") for name in names)
    entry_points = zipfile.ZipFile(built[0]).read(f"cutk-{cutk.__version__}.dist-info/entry_points.txt").decode()
    assert "cutk = cutk.__main__:run" in entry_points
    assert "ssd = cutk_builtin.unlearners.ssd" in entry_points


@pytest.mark.xdist_group("built")
def test_the_sdist_holds_what_a_packager_needs(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "Makefile"} <= names
    assert not [name for name in names if name.startswith(("runs", ".venv"))]


def pip(shell, tmp_path, target, *packages):
    done = shell(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--no-build-isolation"),
        *("--target", target, *packages),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.xdist_group("built")
def test_the_wheel_works_where_it_is_installed(built, shell, tmp_path):
    pip(shell, tmp_path, tmp_path / "site", built[0])
    code = "import cutk; from cutk.cli import main; print(cutk.__file__, flush=True); main(['plugins', 'list'])"
    done = shell(
        sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "CUTK_PLUGINS": ""}
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "digits" in done.stdout
    assert "broken" not in done.stdout


def test_a_third_party_unlearner_is_one_pip_install_away(shell, tmp_path):
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    pip(shell, tmp_path, tmp_path / "site", source)
    env = {"PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "160"}
    listed = shell(sys.executable, "-m", "cutk", "plugins", "list", cwd=tmp_path, env=env)
    (row,) = [line for line in listed.stdout.splitlines() if "negative-gradient " in line]
    assert "unlearner" in row
    assert "ok" in row.split()
    done = shell(
        *(sys.executable, "-m", "cutk", "bench", "-d", "fake", "--alpha", "1", "--seeds", "1", "--json"),
        *("--recipe", "steps=20", "--unlearner", "negative-gradient", "--unlearner", "ssd"),
        cwd=tmp_path,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (record,) = [r for r in document["records"] if r["unlearner"] == "negative-gradient"]
    assert record["provider"] == "cutk-negative-gradient==0.2.0"
    assert document["environment"]["providers"]["cutk-negative-gradient"] == "0.2.0"
