"""What ran, down to its files: cutk, the components that took part, and the code that makes the model."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

import cutk
from cutk.errors import printable
from cutk.plugins.sources import reachable, source_of
from cutk.repair.bundle.digests import digest_of_lines, file_at
from cutk.repair.bundle.evidence import Code, Part

if TYPE_CHECKING:
    from cutk.plugins.registry import Entry

__all__ = ["code_of", "factory_file", "versions_of"]

# Whose versions, or hashes of components, are told anyway.
_OWN = ("cutk", "cutk_builtin")
_INSTALLED = ("site-packages", "dist-packages")


def code_of(model: nn.Module, entries: Iterable[Entry], named: str = "", factory: Path | None = None) -> Code:
    """Return what ran; ``factory`` is the file of the function that made the model, where there is one."""
    files, untraced = _files_of(model)
    if factory is not None:
        files |= reachable(factory.resolve())
    components = [
        Part(kind=entry.kind, name=printable(entry.name), provider=entry.provider.requirement, source=source_of(entry))
        for entry in dict.fromkeys(entries)
    ]
    return Code(
        cutk=cutk.__version__,
        cutk_sha256=_own_digest(),
        model=printable(named) or type(model).__qualname__,
        files=[file_at(path, _shown(path)) for path in sorted(files)],
        untraced=untraced,
        components=components,
        packages={"cutk": cutk.__version__, **versions_of(_requirements())},
    )


def factory_file(spec: str) -> Path | None:
    """Return the file that ``package.module:function`` or ``file.py:function`` names, None of anything else."""
    head, colon, _ = spec.rpartition(":")
    if head.endswith(".py"):
        return Path(head).expanduser()
    found = getattr(sys.modules.get(head), "__file__", None) if colon else None
    return None if found is None else Path(found)


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _requirements() -> list[str]:
    """Return the distributions that cutk itself needs, extras aside."""
    try:
        lines = requires("cutk") or []
    except PackageNotFoundError:
        return []
    return [match[0] for line in lines if "extra ==" not in line and (match := re.match(r"[\w.-]+", line))]


def _files_of(model: nn.Module) -> tuple[set[Path], list[str]]:
    """Return the files that define the model's modules, beside those that are installed, and which lie in none."""
    files, untraced = set(), dict[str, None]()
    known = {*_OWN, *_requirements()}
    for cls in dict.fromkeys(type(module) for module in model.modules()):
        if cls.__module__.partition(".")[0] in known:
            continue
        try:
            path = Path(inspect.getfile(cls)).resolve()
        except (OSError, TypeError):  # typed in, or made while the program ran
            path = Path()
        if not path.is_file():
            untraced[f"{cls.__module__}.{cls.__qualname__}"] = None
        elif not {*path.parts} & {*_INSTALLED}:
            files |= reachable(path)
    return files, list(untraced)


def _shown(path: Path) -> str:
    """Return a path relative to where we are, if it lies there."""
    with suppress(ValueError):
        return path.relative_to(Path.cwd().resolve()).as_posix()
    return path.as_posix()


def _own_digest() -> str:
    package = Path(cutk.__file__).parent
    files = sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix())
    return digest_of_lines(f"{file_at(file).sha256}  {file.relative_to(package).as_posix()}" for file in files)
