"""The house's own rules, read from the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from cutk.plugins.registry import load_registry

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "cutk").rglob("*.py"))
BUILT_IN = sorted((ROOT / "plugins" / "cutk_builtin").rglob("*.py"))
# From the ground up: a room imports from what stands before it, and from nothing after it.
ROOMS = [
    *("errors", "options", "kinds", "components", "guard", "machine", "turns", "cost", "chance"),
    *("data", "learning", "problem", "plugins", "run", "report", "repair", "api", "testing", "cli"),
]


def imports(path, *, types=True):
    """Yield the names of all modules that a file imports, wherever in it; ``types`` counts those for annotations."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    left_out = set() if types else {id(node) for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def room(name):
    return name.split(".")[1] if name.count(".") else ""


@pytest.mark.parametrize("name", ROOMS)
def test_the_rooms_are_told(name):
    told = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = told.partition("## Rooms")[2].partition("## The way")[0]
    assert any(text in rooms for text in (f"`cutk/{name}/`", f"`cutk/{name}.py`", f"`{name}.py`", f"`{name}/`"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    mine = path.relative_to(ROOT / "cutk").with_suffix("").parts[0]
    if mine in ("__init__", "__main__"):
        return
    # The base classes name the types of all that they are handed, and need nothing of it when they run.
    for name in imports(path, types=mine not in ("kinds", "components")):
        assert not name.startswith("cutk_builtin")
        if name.startswith("cutk.") and room(name) != mine:
            assert ROOMS.index(room(name)) < ROOMS.index(mine), f"{path.name} imports {name}"


def test_every_module_has_its_room():
    rooms = {path.relative_to(ROOT / "cutk").with_suffix("").parts[0] for path in CORE} - {"__init__", "__main__"}
    assert rooms == set(ROOMS)


def test_the_core_names_no_component():
    names = {entry.name for entry in load_registry({"CUTK_PLUGINS": ""}).entries}
    # What the core itself calls so: no value at all, a split of the data, a field of a score, a column and a format.
    names -= {"none", "validation", "changed_fraction", "file", "csv"}
    for path in CORE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
        }
        literals = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation
        }
        assert not literals & names, path


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.name)
def test_built_ins_use_public_names_alone(path):
    assert [name for name in imports(path) if name.startswith("cutk.")] == []
    # Components don't import each other; what several are made of is in plain modules beside their folders.
    for name in imports(path):
        if name.startswith("cutk_builtin"):
            shared = ROOT.joinpath("plugins", *name.split(".")).with_suffix(".py")
            assert shared.parent.name == "cutk_builtin"
            assert "hookimpl" not in shared.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*CORE, *BUILT_IN], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_assert_and_no_bare_except(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path}:{node.lineno}"
