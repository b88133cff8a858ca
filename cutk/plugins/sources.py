"""What a component's code is: a hash of what the files say that decide what it does.

A result is read again only where the code it came from is still the same. Of a built-in that is its own file, and the
plain modules of cutk's that it imports, since built-ins don't import each other; the version of cutk stands for the
rest. Of a third party's it is every Python file of its distribution, helpers included; of a plugin that is a single
file, that file and the modules beside it that it imports. A comment, a docstring or a line break more changes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutk.components import Component
from cutk.plugins.discovery import HOME, INLINE

if TYPE_CHECKING:
    from cutk.plugins.registry import Entry

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_of(entry: Entry) -> str:
    """Return a hash of the code that decides what a component does: 16 hexadecimal digits.

    Empty if it was typed in or lies in an archive. What it imports from other distributions isn't part of it.
    """
    if entry.parts:
        return hashlib.sha256(repr([source_of(part) for part in entry.parts]).encode()).hexdigest()[:16]
    return _source(entry.component, entry.provider.distribution)  # type: ignore[arg-type]  # classes are hashable


@cache
def _source(component: type[Component], owner: str) -> str:
    def package(cls: type) -> str:
        return cls.__module__.partition(".")[0]

    files: set[Path] = set()
    for cls in component.__mro__:
        if issubclass(cls, Component) and package(cls) != "cutk":
            with contextlib.suppress(OSError, TypeError):
                file = Path(inspect.getfile(cls)).resolve()
                is_authors = owner != HOME and package(cls) == package(component)
                files |= _author_files(file, cls.__module__, owner) if is_authors else {file, *_shared(file, cls)}
    contents: list[tuple[str, str]] = []
    for file in files:
        with contextlib.suppress(OSError):
            contents.append((file.name, hashlib.sha256(code_of(file.read_bytes())).hexdigest()))
    # Where a package is installed means nothing.
    return hashlib.sha256(repr(sorted(contents)).encode()).hexdigest()[:16] if contents else ""


def code_of(content: bytes) -> bytes:
    """Return what a Python file does: its syntax tree without docstrings. Of what can't be parsed it is the file."""
    try:
        return "\n".join(_told(_parsed(content))).encode(errors="backslashreplace")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return content


def _told(tree: ast.Module) -> Iterator[str]:
    """Yield a syntax tree node by node, each with what follows of it, but for places in the file and docstrings.

    What is empty isn't told. So nothing changes with what later versions of Python note of a tree besides, which is
    empty where it isn't used.
    """
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            yield f"{len(node)} of"
            waiting += reversed(node)
        elif isinstance(node, ast.AST):
            fields = dict(ast.iter_fields(node))
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                fields["body"] = node.body[1:]
            told = {name: value for name, value in fields.items() if value not in (None, []) and name != "kind"}
            yield f"{type(node).__name__}: {' '.join(told)}"
            waiting += reversed(told.values())
        else:
            yield repr(node)


def _parsed(content: bytes) -> ast.Module:
    with warnings.catch_warnings():  # of escapes, say, whoever imports the file is warned anyway
        warnings.simplefilter("ignore")
        return ast.parse(content)


def _shared(file: Path, component: type) -> set[Path]:
    """Return the modules of its own package that a built-in's file imports, and those that these import."""
    names = component.__module__.split(".")
    root, found, waiting = file.parents[max(0, len(names) - 2)], set[Path](), [file]
    while waiting:
        for name in _modules(waiting.pop()):
            package, _, path = name.partition(".")
            one = root.joinpath(*path.split(".")).with_suffix(".py")
            if package == names[0] and path and one.is_file() and one not in found:
                found.add(one)
                waiting.append(one)
    return found


def _author_files(file: Path, module: str, owner: str) -> set[Path]:
    """Return all files of a distribution; where they aren't listed, those that ``file`` leads to."""
    if owner != INLINE:
        with contextlib.suppress(PackageNotFoundError, OSError, ValueError):
            found = distribution(owner)
            python = [one for one in found.files or () if one.suffix == ".py"]
            listed = {Path(str(found.locate_file(one))).resolve() for one in python}
            if file in listed:
                return listed
    # An installation that points to where the author works lists nothing of what lies there.
    depth = module.count(".") - (file.name != "__init__.py")
    return reachable(file if depth < 0 else file.parents[depth])


def reachable(start: Path) -> set[Path]:
    """Return the files of ``start`` and of all modules and packages beside it that they import, by what they say."""
    root, found, waiting = start.parent, set[Path](), [start]
    while waiting:
        one = waiting.pop()
        for file in set(one.rglob("*.py") if one.is_dir() else [one]) - found:
            found.add(file)
            if root.name not in ("site-packages", "dist-packages"):  # where everyone's are
                beside = [root / name for name in _imported(file)]
                waiting += [path for path in beside if path.is_dir()]
                waiting += [path.with_suffix(".py") for path in beside if path.with_suffix(".py").is_file()]
    return found


def _imported(file: Path) -> set[str]:
    """Return the outermost names of all modules that a file imports, wherever in it."""
    return {name.partition(".")[0] for name in _modules(file)} - {"cutk"}


def _modules(file: Path) -> set[str]:
    """Return the names of all modules that a file imports, wherever in it."""
    names = set()
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for node in ast.walk(_parsed(file.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module)
    return names
