"""Which plugins are installed: read from metadata alone, so that nothing is imported to answer it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions

from cutk.kinds import KINDS

GROUP = "cutk"
HOME = "cutk"  # the distribution whose components keep their plain names, whatever else is installed
INLINE = "inline"  # stands for a distribution where a plugin is a file that nobody installed
PRESETS = "presets"  # what a plugin may provide besides components


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
    """Yield the entry points, cutk's own first, then by name, whatever the order of installation."""
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
    """Return which kinds an entry point provides (or ``presets``), if a folder above its module is called so."""
    folders = {kind.plural: kind.name for kind in KINDS.values()} | {PRESETS: PRESETS}
    return {folders[part] for part in point.module.split(".") if part in folders}


def kinds_of(point: EntryPoint) -> set[str]:
    """Return which kinds an entry point may provide: what its folder says, or all."""
    return told_by_folder(point) - {PRESETS} or set(KINDS)
