"""What a component's code is: a hash of the files that decide what it does.

A result is read again only where the code it came from is still the same. Of a built-in that is its own file, since
built-ins don't import each other, and the version of cutk stands for the rest. Of a third party's it is every Python
file of its distribution, helpers included; of a plugin that is a single file, that file and the modules beside it that
it imports.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from cutk.components import Component
from cutk.plugins.discovery import HOME, INLINE

if TYPE_CHECKING:
    from cutk.plugins.registry import Entry

__all__ = ["source_of"]

_CORE = "cutk"


def source_of(entry: Entry) -> str:
    """Return a hash of the files that decide what a component does: 16 hexadecimal digits, empty if it has none.

    It has none if it was typed in or lies in an archive. What it imports from other distributions isn't part of it.
    """
    return _source(entry.component, entry.provider.distribution)  # type: ignore[arg-type]  # classes are hashable


@cache
def _source(component: type[Component], owner: str) -> str:
    package = component.__module__.partition(".")[0]
    files: set[Path] = set()
    for cls in _written(component):
        same_author = owner != HOME and cls.__module__.partition(".")[0] == package
        with contextlib.suppress(OSError, TypeError):
            file = Path(inspect.getfile(cls)).resolve()
            files |= _author_files(file, cls.__module__, owner) if same_author else {file}
    contents: list[tuple[str, str]] = []
    for file in files:
        with contextlib.suppress(OSError):
            contents.append((file.name, hashlib.sha256(file.read_bytes()).hexdigest()))
    # Where a package is installed means nothing.
    return hashlib.sha256(repr(sorted(contents)).encode()).hexdigest()[:16] if contents else ""


def _written(component: type[Component]) -> Iterator[type]:
    """Yield the component's class and those of its bases that aren't cutk's own."""
    for cls in component.__mro__:
        if issubclass(cls, Component) and cls.__module__.partition(".")[0] != _CORE:
            yield cls


def _author_files(file: Path, module: str, owner: str) -> set[Path]:
    """Return all files of a distribution; where they aren't listed, those that ``file`` leads to."""
    if owner != INLINE and file in (listed := _listed(owner)):
        return listed
    # An installation that points to where the author works lists nothing of what lies there.
    depth = module.count(".") - (file.name != "__init__.py")
    return _reachable(file if depth < 0 else file.parents[depth])


def _listed(owner: str) -> set[Path]:
    """Return the Python files that a distribution was installed with."""
    try:
        found = distribution(owner)
        return {Path(str(found.locate_file(file))).resolve() for file in found.files or () if file.suffix == ".py"}
    except (PackageNotFoundError, OSError, ValueError):
        return set()


def _reachable(start: Path) -> set[Path]:
    """Return the files of ``start`` and of all modules and packages beside it that they import, by what they say."""
    root, found, waiting = start.parent, set[Path](), [start]
    everyones = root.name in ("site-packages", "dist-packages")
    while waiting:
        one = waiting.pop()
        for file in one.rglob("*.py") if one.is_dir() else [one]:
            if file in found:
                continue
            found.add(file)
            if everyones:
                continue
            for name in _imported(file):
                beside = root / name
                waiting += [path for path in (beside, beside.with_suffix(".py")) if _is_code(path)]
    return found


def _is_code(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.glob("*.py")))


def _imported(file: Path) -> set[str]:
    """Return the outermost names of all modules that a file imports, wherever in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - {_CORE}
