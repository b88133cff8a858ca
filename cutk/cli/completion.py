"""What the Tab key offers: names by kind, loading no plugin, and what one plugin can be told, loading that one."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cutk.kinds import KINDS
from cutk.plugins.discovery import PRESETS, points, told_by_folder

if TYPE_CHECKING:
    from cutk.components import Component

__all__ = ["distributions", "names", "options", "options_of_kind", "plans", "recipe", "recipe_words"]

_RECIPE = "recipe"
Completer = Callable[[click.Context, click.Parameter, str], list[Any]]


def _source(module: str) -> str | None:
    """Return the text of a module without importing it or what it lies in; None if there is none to be found."""
    path: Any = None
    origin = None
    for depth in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:depth])
        specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        if spec is None:
            return None
        path, origin = spec.submodule_search_locations, spec.origin
    return Path(origin).read_text(encoding="utf-8") if origin else None


def _provides(point: EntryPoint) -> set[str]:
    """Return what an entry point provides, as kinds and ``presets``, as far as can be told without importing it.

    The folder that its module lies in says so, or the hooks in its text; if neither does, it may be anything.
    """
    if found := told_by_folder(point):
        return found
    hooks = {kind.name: kind.hook for kind in KINDS.values()} | {PRESETS: f"cutk_{PRESETS}"}
    try:
        text = _source(point.module) or ""
    except (Exception, SystemExit):  # whatever an importer of somebody's raises
        text = ""
    return {what for what, hook in hooks.items() if re.search(rf"\bdef {hook}\b", text)} or set(hooks)


def _points_of(kinds: Collection[str]) -> Iterator[tuple[str, EntryPoint]]:
    for provider, point in points():
        if _provides(point).intersection(kinds):
            yield provider.entry_point, point


def _names_of(kinds: Collection[str]) -> list[str]:
    """Return the names of the components of ``kinds``, as the entry points call them."""
    return sorted({name for name, _ in _points_of(kinds)})


def _loaded(point: EntryPoint) -> Any:
    """Load one plugin, which may print what it likes; None if it can't be."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return point.load()
        except (Exception, SystemExit):
            return None


def _provided(point: EntryPoint, hook: str) -> list[Any]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return list(getattr(_loaded(point), hook)())
        except (Exception, SystemExit):
            return []


def _components(name: str, kinds: Collection[str] = tuple(KINDS)) -> Iterator[type[Component]]:
    """Yield the components that the entry point called ``name`` provides under its own name, loading that one alone."""
    distribution, _, plain = name.rpartition(":")
    for provider, point in points():
        if provider.entry_point == plain and distribution in ("", provider.distribution):
            for kind in _provides(point).intersection(kinds):
                yield from (found for found in _provided(point, KINDS[kind].hook) if found.name == plain)


def _options_of(name: str, kinds: Collection[str] = tuple(KINDS)) -> list[str]:
    return sorted({option for component in _components(name, kinds) for option in component.Options.model_fields})


def options_of_kind(kind: str) -> list[str]:
    """Return every option that some component of ``kind`` has, loading all of these."""
    return sorted({option for name in _names_of([kind]) for option in _options_of(name, [kind])})


def _starting(words: Collection[str], incomplete: str) -> list[Any]:
    return [word for word in words if word.startswith(incomplete)]


# For click's `shell_complete`.


def names(option: str = "") -> Completer:
    """Complete names of the kinds that an option of ``cutk bench`` takes; of every kind if none is given.

    Manipulations may be joined by +; each is completed by itself.
    """
    kinds = [kind.name for kind in KINDS.values() if option in ("", kind.option)]

    def complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
        before, plus, last = incomplete.rpartition("+")
        taken = before.split("+")
        return [f"{before}{plus}{name}" for name in _starting(_names_of(kinds), last) if name not in taken]

    return complete


def options(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete COMPONENT.NAME=: the component first, and then what it can be told."""
    component, dot, _ = incomplete.rpartition(".")
    if "=" in incomplete:
        return []
    if not dot:
        found = _starting(_names_of(KINDS), incomplete)
        if len(found) != 1:
            return [f"{name}." for name in found]
        (component,) = found
    return _starting([f"{component}.{name}=" for name in _options_of(component)], incomplete)


def recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete what may follow ``--recipe``: a name, or an option."""
    named = _starting(_names_of([_RECIPE]), incomplete)
    return named or _starting([f"{option}=" for option in options_of_kind(_RECIPE)], incomplete)


def recipe_words(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete what follows ``--recipe NAME``: that recipe's options."""
    words = ctx.params.get(_RECIPE) or ()
    named = [word for word in words if "=" not in word]
    found = _options_of(named[0], [_RECIPE]) if named else options_of_kind(_RECIPE) if words else []
    return _starting([f"{option}=" for option in found], incomplete)


def plans(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of a preset, loading those plugins alone that have some, or of a file."""
    found: set[str] = set()
    for _, point in _points_of([PRESETS]):
        for folder in map(Path, _provided(point, f"cutk_{PRESETS}")):
            found.update(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))
    files: list[CompletionItem] = click.Path().shell_complete(ctx, parameter, incomplete)
    return _starting(sorted(found), incomplete) or files


def distributions(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of a distribution that has plugins."""
    return _starting(sorted({provider.distribution for provider, _ in points()}), incomplete)
