"""A component's code is what its files say, and nothing but that."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from cutk.plugins.discovery import Provider
from cutk.plugins.registry import load_registry
from cutk.plugins.sources import _shared, code_of, source_of

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
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
    (tmp_path / "mine.py").write_text(METRIC.format(line="import beside as changed"))
    assert inline(tmp_path) not in (first, second)
    # Neither a comment nor a docstring decides anything.
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\n' + METRIC.format(line="import beside  # told").replace("Odd.", "It is.")
    )
    (tmp_path / "farther.py").write_text("x = (\n    2\n)\n")
    assert inline(tmp_path) == second


@pytest.mark.parametrize("path", sorted((ROOT / "plugins" / "cutk_builtin").rglob("*.py")), ids=lambda path: path.stem)
def test_how_code_is_laid_out_says_nothing(path):
    content = path.read_bytes()
    tree = ast.parse(content)
    assert code_of(ast.unparse(tree).encode()) == code_of(content)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            node.body[0].value.value = "Another."
    assert code_of(ast.unparse(tree).encode()) == code_of(content)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = None", "x = ..."),
        ("x = 'a'", "x = b'a'"),
        ("f(a, b)", "f(b, a)"),
        ("f(*a)", "f(**a)"),
        ("def f(a, *, b): pass", "def f(a, b): pass"),
        ("def f(a, *, b=1): pass", "def f(a, *, b): pass"),
        ("def f(): return", "def f(): return 1"),
        ("'Doc.'\n'told'\nx = 1", "x = 1\n'told'"),
        ("def f(): x = 1", "async def f(): x = 1"),
        ("if a:\n  x\ny", "if a:\n  x\n  y"),
        ("x = -y", "x = +y"),
        ("x[1:]", "x[:1]"),
        ("[a, b]\nc", "[a]\nb\nc"),
        ("no python", "no python  # at all"),
    ],
)
def test_what_code_does_says_something(one, other):
    assert code_of(one.encode()) != code_of(other.encode())


def test_a_long_sum_is_told_as_well():
    long = " + ".join(["x"] * 2000)
    assert code_of(long.encode()) == code_of(f"{long}  # so it is".encode()) != code_of(f"{long} + y".encode())


def test_what_python_warns_of_is_no_matter_here():
    assert code_of(b"x = '\\d'") == code_of(b"x = '\\\\d'")


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
