"""The executor for Dask clusters: a distribution of its own, installed as anyone would install it, and tried."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "plugins" / "cutk-dask"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which it is installed."""
    folder = tmp_path_factory.mktemp("cutk-dask")
    source = shutil.copytree(SOURCE, folder / "source")
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    done = subprocess.run(
        [*command, "--target", str(folder / "site"), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.xdist_group("dask")
def test_it_is_found_and_imports_no_dask_before_it_is_used(site, shell, python, tmp_path):
    code = (
        "import sys; from cutk.plugins.registry import load_registry; entry = load_registry().get('executor', 'dask'); "
        "print(entry.provider.requirement, entry.component().sharing > 0, 'distributed' in sys.modules)"
    )
    done = shell(python, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(site)})
    assert done.stdout.split() == ["cutk-dask==0.2.0", "True", "False"], done.stderr


@pytest.mark.xdist_group("dask")
def test_it_passes_its_own_tests(site, shell, python, tmp_path):
    command = (python, "-m", "pytest", "-q", "-p", "no:xdist", "--import-mode=importlib", SOURCE / "tests")
    done = shell(*command, cwd=tmp_path, env={"PYTHONPATH": str(site), "CUTK_PLUGINS": "cutk-dask"}, timeout=1800)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted((SOURCE / "cutk_dask").glob("*.py")), ids=lambda path: path.name)
def test_it_uses_public_names_alone(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.startswith(("cutk.", "cutk_builtin"))]
