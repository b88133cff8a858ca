"""Finding plugins, keeping a broken one from hurting the rest, and resolving names."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import pluggy

from cutk.components import Component, Detector, Metric, Summary, Unlearner
from cutk.errors import Caught, CutkError, UsageError, suggestion
from cutk.guard import watched
from cutk.kinds import KINDS, asked_as
from cutk.plugins import hookspecs
from cutk.plugins.checks import problem_with
from cutk.plugins.discovery import HOME, INLINE, Provider, kinds_of, normalised, points

_log = logging.getLogger(__name__)
# The first number of the oldest API that plugins may be written for.
_OLDEST_API = 1
_HOOKS = {**{kind.hook: kind.name for kind in KINDS.values()}, "cutk_presets": "preset"}


@cache
def _expanding(unlearner: Any, detector: Any) -> Any:
    from cutk.problem.expansion import expanding  # it needs torch

    return expanding(unlearner, detector)


@dataclass(frozen=True)
class Failure:
    """A plugin, or one component of it, that can't be used."""

    provider: Provider
    reason: str
    traceback: str = ""


@dataclass(frozen=True)
class Entry:
    """One usable component, called ``name``, or ``distribution:name`` if that is taken.

    ``given`` are the options that the name sets: for ``name:value`` the component's variant. An unlearner that a
    detector works for, called ``unlearner+detector``, has both as its ``parts``.
    """

    kind: str
    name: str
    component: type[Component]
    provider: Provider
    given: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: tuple[Entry, ...] = ()

    @property
    def family(self) -> str:
        """The name without the variant: options given for it are every variant's."""
        return self.name.removesuffix("".join(f":{value}" for value in self.given.values()))

    def called(self, name: str) -> Entry | None:
        """Return the entry that ``name`` stands for, plain or as ``distribution:name``, with its variant if any."""
        spellings = (self.name, f"{self.provider.distribution}:{self.component.name}")
        if name in spellings:
            return self
        for spelling in spellings if self.component.variant else ():
            value = name.removeprefix(f"{spelling}:")
            if value not in ("", name):
                return replace(self, name=name, given={self.component.variant: value})
        return None


@dataclass(frozen=True)
class Preset:
    """A plan that a plugin ships."""

    name: str
    path: Path
    provider: Provider


@dataclass
class Registry:
    """All that was found, usable or not; ``remarks`` are about plugins that can be used nonetheless."""

    entries: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ambiguous: dict[tuple[str, str], list[Provider]] = field(default_factory=dict)
    presets: dict[str, Preset] = field(default_factory=dict)
    remarks: list[Failure] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the components of a kind, by name."""
        return sorted((entry for entry in self.entries if entry.kind == kind), key=lambda entry: entry.name)

    def get(self, kind: str, name: str) -> Entry:
        """Return the component called ``name``, plain or as ``distribution:name``, a variant as ``name:value``.

        What is asked for by the same option counts as the same kind: a summary is found among the metrics. A
        ``UsageError`` if there is none, or if two distributions provide the plain name.
        """
        kinds = [other.name for other in asked_as(kind)]
        if kind == Unlearner.kind and "+" in name:
            return self._composed(*name.split("+", 1))
        if found := self._called(kinds, name):
            return found[0]
        raise UsageError(self._refusal(kinds, name))

    def _composed(self, unlearner: str, detector: str) -> Entry:
        first, second = self.get(Unlearner.kind, unlearner), self.get(Detector.kind, detector)
        one, other = cast(Any, first.component), cast(Any, second.component)
        together: type[Component] = _expanding(one, other)  # one class for the same two
        name = f"{first.name}+{second.name}"
        return Entry(first.kind, name, together, first.provider, first.given, (first, second))

    def find(self, name: str) -> list[Entry]:
        """Return the components called ``name`` of all kinds; a ``UsageError`` as for ``get``."""
        found = self._called(KINDS, name)
        if not found or any((kind, name) in self.ambiguous for kind in KINDS):
            raise UsageError(self._refusal(list(KINDS), name))
        return found

    def _called(self, kinds: Iterable[str], name: str) -> list[Entry]:
        """Return at most one component of each kind: a name that is spelled out before one with a variant."""
        found = []
        for kind in kinds:
            meant = [entry for one in self.entries if one.kind == kind and (entry := one.called(name))]
            found += sorted(meant, key=lambda entry: bool(entry.given))[:1]
        return found

    def _refusal(self, kinds: Sequence[str], name: str) -> str:
        """Say why there is no such component: it is provided twice, it is broken, or nobody knows it."""
        for kind in kinds:
            if providers := self.ambiguous.get((kind, name)):
                spelled = " or ".join(f"'{provider.distribution}:{name}'" for provider in providers)
                if len(providers) == 1:
                    return f"The built-in {kind} '{name}' is left out here. There is {spelled} as well."
                return f"The {kind} name '{name}' is provided twice. Say which: {spelled}."
        for failure in self.failures:
            if failure.provider.entry_point == name:
                return f"The plugin '{failure.provider}' cannot be used: {failure.reason}"
        asked, what = KINDS[kinds[0]], kinds[0] if len(kinds) < len(KINDS) else "component"
        if not name.strip():
            beside = " before or after '+'" if kinds in (["manipulation"], ["unlearner"], ["detector"]) else ""
            return f"{what.capitalize()}: a name is missing{beside}. See: cutk plugins list"
        ours = [entry for kind in kinds for entry in self.of_kind(kind)]
        known = [entry.name for entry in ours]
        said = f"Unknown {what} '{name}'."
        parts = [part.strip() for part in name.split(",")]
        if len(parts) > 1 and set(known).issuperset(parts):
            if not asked.several:
                return f"{said} One {asked.name} is expected, not several."
            return f"{said} Give each by itself: {' '.join(f'{asked.option} {part}' for part in parts)}"
        variants: list[str] = []
        for entry in ours:
            with contextlib.suppress(Exception):  # a library that isn't there can't list what it has
                variants += [f"{entry.name}:{value}" for value in entry.component.variants()]
        if meant := [variant for variant in variants if variant.partition(":")[2] == name.casefold()]:
            return f"{said} Did you mean {' or '.join(repr(variant) for variant in meant)}?"
        if kinds == ["dataset"] and (readers := _readers_of(name, ours)):
            return f"{said} Did you mean {' or '.join(repr(f'{reader}:{name}') for reader in readers)}?"
        return f"{said}{suggestion(name, sorted(known) + variants)} See: cutk plugins list"


def _readers_of(path: str, entries: Iterable[Entry]) -> list[str]:
    """Return the datasets that read what lies at a path: their variant is a folder, or a file that ends so."""
    found = []
    for entry in entries:
        component: Any = entry.component
        field = component.Options.model_fields.get(component.variant)
        if field is not None and isinstance(field.default, Path):
            there = os.path.isfile(path) if field.default.suffix else os.path.isdir(path)
            if there and field.default.suffix in ("", Path(path).suffix.lower()):
                found.append(entry.name)
    return found


def _inline(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[Provider, Callable[[], Any], bool]]:
    """Yield the plugins that are single files, and whether each was named itself; a folder stands for its files.

    Their version is a hash of what they hold, so that a file that has been changed is another plugin.
    """
    for given in paths:
        path = Path(given).expanduser()
        if not (path.is_dir() or (path.is_file() and path.suffix == ".py")):
            raise UsageError(f"Plugin '{given}': expected a Python file, or a folder of such; there is none.")
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            version = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
            yield Provider(INLINE, version, file.stem), partial(import_file, file, version), file == path


def import_file(file: Path, version: str) -> Any:
    """Import a file as a module of its own name, which no other import can find by accident."""
    name = f"cutk_inline_{re.sub(r'[^0-9a-zA-Z_]', '_', file.stem)}_{version}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{file}' cannot be imported")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_api(plugin: Any) -> str:
    """Refuse a plugin that needs more than there is; return a remark on one that is written for less."""
    needed = getattr(plugin, "CUTK_API", None)
    if needed is None:
        return ""
    version = hookspecs.API_VERSION
    if not isinstance(needed, str) or not re.fullmatch(r"\d+\.\d+", needed):
        raise CutkError(f"its CUTK_API is {needed!r}; expected a version such as '{version}'")
    here, asked = (tuple(map(int, text.split("."))) for text in (version, needed))
    if asked > here or asked[0] < _OLDEST_API:
        remedy = "Update cutk." if asked > here else "Update the plugin."
        raise CutkError(f"it needs cutk's plugin API {needed}, and this cutk has {version}. {remedy}")
    if asked[0] == here[0]:
        return ""
    return f"it is written for cutk's plugin API {needed}; what {version} calls otherwise still works"


def _is_wanted(provider: Provider, environ: Mapping[str, str]) -> bool:
    def lists(variable: str) -> bool:
        names = (part.strip().partition(":") for part in environ.get(variable, "").split(","))
        listed = {normalised(head) + colon + tail for head, colon, tail in names if head}
        return not listed.isdisjoint({provider.distribution, str(provider)})

    allowed = provider.distribution == HOME or "CUTK_PLUGINS" not in environ or lists("CUTK_PLUGINS")
    return allowed and not lists("CUTK_DISABLE")


class _Loader:
    """Registers plugins one by one; a failure is kept as a value and concerns nobody else."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry()
        self.found: list[Entry] = []

    def load(self, provider: Provider, load: Callable[[], Any], *, must_provide: bool = True) -> None:
        """Load, register and ask one plugin, and put back what it changes in the process."""
        if provider.distribution == HOME:  # whose plugins are many, and tested
            self._load(provider, load, must_provide)
            return
        with watched() as changed:
            self._load(provider, load, must_provide)
        if changed:
            self._remark(provider, f"it changes {' and '.join(changed)} when it is loaded, which was put back")

    def _load(self, provider: Provider, load: Callable[[], Any], must_provide: bool) -> None:
        name = str(provider)
        if self.manager.has_plugin(name):
            self._fail(provider, "another plugin of this name is loaded already")
            return
        # stdout carries results alone, so what a plugin prints while it is imported goes where the rest goes.
        with Caught() as caught, contextlib.redirect_stdout(sys.stderr):
            plugin = load()
            if remark := _check_api(plugin):
                self._remark(provider, remark)
            self.manager.register(plugin, name=name)
            # Hooks without a specification are misspelt; whoever came before has been through this check.
            self.manager.check_pending()
            if must_provide and not self.manager.get_hookcallers(plugin):
                raise CutkError("it provides nothing: expected a hook such as cutk_unlearners with @cutk.hookimpl")
        if caught.error is None:
            self._ask(provider)
            return
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        said = caught.reason
        if isinstance(caught.error, SystemExit):
            said = f"it calls sys.exit({caught.error.code!r}) when imported"
        elif isinstance(caught.error, pluggy.PluginValidationError):
            said = " ".join(str(caught.error).split())
        self._fail(provider, said, caught)

    def _remark(self, provider: Provider, text: str) -> None:
        self.registry.remarks.append(Failure(provider, text))

    def _fail(self, provider: Provider, reason: str, caught: Caught | None = None) -> None:
        if self.strict:
            if caught and isinstance(caught.error, Exception):
                raise caught.error
            raise RuntimeError(f"{provider}: {reason}") from (caught.error if caught else None)
        self.registry.failures.append(Failure(provider, reason, caught.traceback if caught else ""))

    def _ask(self, provider: Provider) -> None:
        """Call each hook that this plugin implements by itself, so that one that raises can be named."""
        for hook, kind in _HOOKS.items():
            for implementation in getattr(self.manager.hook, hook).get_hookimpls():
                if implementation.plugin_name != str(provider):
                    continue
                provided: Any = ()
                with Caught() as caught, contextlib.redirect_stdout(sys.stderr):
                    provided = implementation.function()
                    if isinstance(provided, str) or not isinstance(provided, Sequence):
                        raise TypeError(f"expected a list, got {type(provided).__name__}")
                if caught.error:
                    self._fail(provider, f"{hook}() raised {caught.reason}", caught)
                    continue
                for item in provided:
                    with Caught() as caught:
                        problem = self._keep(provider, kind, item)
                    if caught.error:
                        problem = f"{hook}() provides {item!r}, which cannot be used: {caught.reason}"
                    if problem:
                        self._fail(provider, problem, caught)

    def _keep(self, provider: Provider, kind: str, item: Any) -> str | None:
        """Keep what a hook provides, or say what is wrong with it."""
        if kind == "preset":
            if not Path(item).is_dir():
                return f"expected a folder of presets, and '{item}' is none"
            plans = sorted(Path(item).rglob("*.toml"))
            if not plans:
                return f"the folder of presets '{item}' has no plan (*.toml)"
            for path in plans:
                name = path.relative_to(item).with_suffix("").as_posix()
                if name in self.registry.presets:
                    name = f"{provider.distribution}:{name}"
                self.registry.presets[name] = Preset(name, path, provider)
            return None
        if kind == Metric.kind and isinstance(item, type) and issubclass(item, Summary):
            kind = Summary.kind  # plugins for the API 1.0 provide both by the hook of metrics
        if problem := problem_with(item, kind):
            return problem
        self.found.append(Entry(kind, item.name, item, provider))
        return None

    def resolve(self, reserved: Set[tuple[str, str]]) -> Registry:
        """Give out the names: built-ins keep the plain one, a clash of third parties leaves it to nobody.

        ``reserved`` are kinds and names of built-ins, nobody else's even where the built-in is left out.
        """
        claims: dict[tuple[str, str], dict[str, Entry]] = {}
        for entry in self.found:
            claim = claims.setdefault((entry.kind, entry.name), {})
            twin = claim.setdefault(entry.provider.distribution, entry)
            if twin.component is not entry.component:
                self._fail(entry.provider, f"its distribution provides the {entry.kind} '{entry.name}' twice")
        for (kind, name), claim in claims.items():
            owner = HOME if HOME in claim else None
            if owner is None and len(claim) == 1 and (kind, name) not in reserved:
                (owner,) = claim
            if owner is None:
                self.registry.ambiguous[kind, name] = [entry.provider for entry in claim.values()]
            for distribution, entry in claim.items():
                reachable = name if distribution == owner else f"{distribution}:{name}"
                self.registry.entries.append(replace(entry, name=reachable))
        return self.registry


def load_registry(
    environ: Mapping[str, str] | None = None,
    inline: Iterable[str | os.PathLike[str]] = (),
    kinds: Set[str] | None = None,
) -> Registry:
    """Load every installed plugin that ``environ`` lets in, and those that are single files.

    ``CUTK_DISABLE`` names plugins to leave out, as ``distribution`` or ``distribution:entry-point``, separated by
    commas; ``CUTK_PLUGINS`` names the only third-party plugins to let in (empty: none); ``CUTK_STRICT=1`` raises the
    first failure instead of keeping it. ``CUTK_PLUGIN_PATH`` names files and folders like ``inline``, separated as in
    ``PATH``.

    Args:
        environ: where to read these; the process's environment if not given.
        inline: Python files, or folders of such, plugins that aren't installed; a ``UsageError`` if one isn't there.
        kinds: leave out installed plugins that surely provide others than these; all are loaded if not given.
    """
    environ, began = os.environ if environ is None else environ, time.monotonic()
    loader = _Loader(strict=environ.get("CUTK_STRICT", "") not in ("", "0"))
    found = list(points())
    for provider, point in found:
        if _is_wanted(provider, environ) and (kinds is None or kinds & kinds_of(point)):
            loader.load(provider, point.load)
    on_path = [part for part in environ.get("CUTK_PLUGIN_PATH", "").split(os.pathsep) if part]
    for provider, load, named in _inline([*on_path, *inline]):
        loader.load(provider, load, must_provide=named)
    ours = [(provider.entry_point, point) for provider, point in found if provider.distribution == HOME]
    registry = loader.resolve({(kind, name) for name, point in ours for kind in kinds_of(point)})
    _log.debug("Loaded %d components in %.1f s", len(registry.entries), time.monotonic() - began)
    return registry
