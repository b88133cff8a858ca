"""A component's code is what its files say, and nothing but that."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

import pytest

from cutk.plugins.discovery import Provider
from cutk.plugins.registry import load_registry
from cutk.plugins.sources import _shared, source_of

ALONE = {"CUTK_PLUGINS": ""}
METRIC = """
import cutk
{line}

class Odd(cutk.Metric):
    "Odd."
    name = "odd"

    def compute(self, evaluation):
        return 1.0

@cutk.hookimpl
def cutk_metrics():
    return [Odd]
"""


@dataclass
class Found:
    component: type
    provider: Provider
    parts: tuple = ()


@pytest.fixture
def author(tmp_path, monkeypatch):
    """Lay files down as a distribution, and hash what its module ``module`` provides, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(files, module, *, listed=False):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        folder = tmp_path / "cutk_test_author-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: cutk-test-author\nVersion: 1.0\n")
        record = [*files, "cutk_test_author-1.0.dist-info/METADATA"]
        if listed:
            (folder / "RECORD").write_text("".join(f"{name},,\n" for name in record))
        for loaded in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "helper", "unrelated")]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return source_of(Found(import_module(module).Odd, Provider("cutk-test-author", "1.0", "odd")))

    return put


PACKAGE = {
    "theirs/__init__.py": "",
    "theirs/metric.py": METRIC.format(line="from theirs.deep import tools"),
    "theirs/deep/__init__.py": "",
    "theirs/deep/tools.py": "x = 1\n",
}


@pytest.mark.parametrize("listed", [True, False])
def test_every_module_of_a_package_counts_and_nothing_else(author, listed):
    first = author(PACKAGE, "theirs.metric", listed=listed)
    assert len(first) == 16
    assert author({**PACKAGE, "README.md": "new\n"}, "theirs.metric", listed=listed) == first
    assert author({**PACKAGE, "theirs/deep/tools.py": "x = 2\n"}, "theirs.metric", listed=listed) != first


def test_a_package_that_is_one_file_leads_to_its_helpers(author):
    files = {
        "theirs/__init__.py": METRIC.format(line="import helper"),
        "helper.py": "import torch\nx = 1\n",
        "unrelated.py": "x = 1\n",
    }
    first = author(files, "theirs")
    assert author({**files, "unrelated.py": "x = 2\n"}, "theirs") == first
    assert author({**files, "helper.py": "import torch\nx = 2\n"}, "theirs") != first


def inline(folder):
    entry = load_registry(ALONE, inline=[folder / "mine.py"]).get("metric", "odd")
    source = source_of(entry)
    for name in [name for name in sys.modules if name.startswith("cutk_inline_mine")] + ["beside", "farther"]:
        sys.modules.pop(name, None)
    return source


def test_a_file_and_what_it_imports_beside_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text(METRIC.format(line="import beside"))
    (tmp_path / "beside.py").write_text("from farther import x\n")
    (tmp_path / "farther.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    first = inline(tmp_path)
    (tmp_path / "other.py").write_text("x = 2\n")
    assert inline(tmp_path) == first
    (tmp_path / "farther.py").write_text("x = 2\n")
    second = inline(tmp_path)
    assert second != first
    (tmp_path / "mine.py").write_text(METRIC.format(line="import beside  # changed"))
    assert inline(tmp_path) not in (first, second)


def test_built_ins_are_their_own_files(registry):
    sources = {entry.name: source_of(entry) for entry in registry.entries}
    assert all(len(source) == 16 for source in sources.values())
    assert sources["ssd"] != sources["cf"]
    assert sources["resnet20"] == sources["resnet32"]


def test_a_built_in_has_the_modules_that_it_shares(tmp_path):
    files = {
        "house/kind/mine.py": "import torch\nfrom house.shared import x\n",
        "house/shared.py": "from house.more import x\nimport house.kind.mine\n",
        "house/more.py": "x = 1\n",
        "house/other.py": "x = 1\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = _shared(tmp_path / "house/kind/mine.py", type("Mine", (), {"__module__": "house.kind.mine"}))
    assert {path.name for path in found} - {"mine.py"} == {"shared.py", "more.py"}


def test_what_was_typed_in_has_no_source():
    namespace = {"__name__": "typed_in"}
    exec(METRIC.format(line=""), namespace)  # noqa: S102
    assert source_of(Found(namespace["Odd"], Provider("inline", "", "odd"))) == ""
