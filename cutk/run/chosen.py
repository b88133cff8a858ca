"""A component as a plan chooses it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cutk.options import Options
from cutk.plugins.discovery import HOME
from cutk.plugins.registry import Entry
from cutk.plugins.sources import source_of
from cutk.run.records import Identity

__all__ = ["Chosen", "providers_of"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A component and its validated options: more than one point only where a search goes over them."""

    entry: Entry
    points: tuple[Options, ...]

    @property
    def name(self) -> str:
        """How the user calls it."""
        return self.entry.name

    @property
    def ours(self) -> bool:
        """Whether it is built in."""
        return all(entry.provider.distribution == HOME for entry in self.entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What provides it: the component, or the parts that it is composed of."""
        return self.entry.parts or (self.entry,)

    def make(self) -> Any:
        """Construct the component with the options of the first point."""
        return self.entry.component(self.points[0])

    @cached_property
    def identity(self) -> Identity:
        """What of this choice decides a result."""
        return Identity(
            name=self.entry.component.name,
            provider=self.entry.provider.requirement,
            source=source_of(self.entry),
            options=[point.model_dump(mode="json") for point in self.points],
        )

    @property
    def settled(self) -> Any:
        """The options as they are used: one point, or a list of those that are searched."""
        points = self.identity.options
        return points[0] if len(points) == 1 else points


def providers_of(those: Iterable[Chosen]) -> dict[str, str]:
    """Return the version of each distribution that takes part, and of each library that a component names.

    Files of plugins that aren't installed are one distribution, whose version tells of all of them.
    """
    found: dict[str, set[str]] = {}
    for entry in (entry for chosen in those for entry in chosen.entries):
        found.setdefault(entry.provider.distribution, set()).add(entry.provider.version)
        for module in entry.component.libraries:
            with suppress(PackageNotFoundError):  # a module that isn't called as its distribution is
                found.setdefault(module, set()).add(version(module))
    return {name: "+".join(sorted(versions)) for name, versions in sorted(found.items())}
