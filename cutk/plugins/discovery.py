"""Which plugins are installed: read from metadata alone, so that nothing is imported to answer it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions

from cutk.kinds import KINDS

__all__ = [
    "GROUP",
    "HOME",
    "INLINE",
    "PRESETS",
    "Provider",
    "kinds_of",
    "normalised",
    "points",
    "provider_versions",
    "told_by_folder",
]

GROUP = "cutk"
# cutk's own distribution: its components keep their plain names, whatever else is installed.
HOME = "cutk"
# What stands for a distribution where a plugin is a file that nobody installed.
INLINE = "inline"
# What a plugin may provide besides components.
PRESETS = "presets"


@dataclass(frozen=True)
class Provider:
    """Where a component comes from: a distribution, its version, and one of its entry points."""

    distribution: str
    version: str
    entry_point: str

    def __str__(self) -> str:
        return f"{self.distribution}:{self.entry_point}"

    @property
    def requirement(self) -> str:
        """The distribution as pip would pin it."""
        return f"{self.distribution}=={self.version}"


def normalised(distribution: str) -> str:
    """Return a distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def points() -> Iterator[tuple[Provider, EntryPoint]]:
    """Yield the entry points, cutk's own first, then by name, so that the order of installation means nothing."""
    found, seen = [], set()
    for distribution in distributions():
        # Of a package that is half removed, or was never whole, what is left may be anything.
        try:
            mine = distribution.entry_points.select(group=GROUP)
            if not mine:
                continue  # before its metadata are parsed, which takes long where much is installed
            name, version = normalised(distribution.metadata["Name"]), distribution.version
        except (Exception, SystemExit):  # noqa: S112  # nothing is lost: pip calls such a package broken, too
            continue
        if name not in seen:  # the first one on the path is the one that is imported
            seen.add(name)
            found += [(Provider(name, version, point.name), point) for point in mine]
    yield from sorted(found, key=lambda item: (item[0].distribution != HOME, item[0].distribution, item[0].entry_point))


def told_by_folder(point: EntryPoint) -> set[str]:
    """Return what the folder that an entry point's module lies in says of it: kinds, ``presets``, or nothing."""
    folders = {kind.plural: kind.name for kind in KINDS.values()} | {PRESETS: PRESETS}
    return {folders[part] for part in point.module.split(".") if part in folders}


def kinds_of(point: EntryPoint) -> set[str]:
    """Return which kinds an entry point may provide, loading nothing: by the folder that its module lies in, or all."""
    return told_by_folder(point) - {PRESETS} or set(KINDS)


def provider_versions() -> dict[str, str]:
    """Return the version of each distribution that has plugins, loading nothing."""
    return {provider.distribution: provider.version for provider, _ in points()}
