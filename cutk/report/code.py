"""Runs that several versions of a component's code computed, shown as one method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cutk.errors import UsageError
from cutk.run.records import Identity, Run, Trained, Unlearned

BETWEEN = ", "

# What code and version a component of one name and options has, where everything else that decides results is the same.
Versions = Mapping[tuple[str, str], set[tuple[str, str]]]


def of_any_code(runs: Iterable[Run]) -> list[Run]:
    """Return runs in which every component lists the code and the versions of all that differ from it in these alone.

    Raises:
        UsageError: two versions computed the same cell, so that one would be counted as another seed.
    """
    found = list(runs)
    versions: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for run in found:
        for part in _parts(run):
            versions.setdefault((_place(run), _what(part)), set()).add((part.source or "unknown", part.provider))
    result = [run.model_copy(update={"decided_by": _listing(run.decided_by, _place(run), versions)}) for run in found]
    cells: dict[str, Run] = {}
    for before, after in zip(found, result, strict=True):
        other = cells.setdefault(after.decided_by.canonical, before)
        if other is not before:
            of = before.labels
            at = "" if of.alpha is None else f", α = {of.alpha:g}"
            raise UsageError(
                f"Several versions of the code computed one cell: {of.dataset}, {of.model}, {of.manipulation}, "
                f"{of.unlearner or of.role}{at}, seed {of.seed} (runs {other.key[:16]} and {before.key[:16]}). "
                "Expected one of each with --any-code; report without it, or remove the folder of the one that "
                "isn't to count."
            )
    return result


def several(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Return the code of each component that ``of_any_code`` found to be of several versions, by its name."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for part in _parts(run):
            if BETWEEN in part.source:
                found.setdefault(part.name, set()).update(part.source.split(BETWEEN))
    return {name: sorted(found[name]) for name in sorted(found)}


def _parts(run: Run) -> Iterator[Identity]:
    trained, how = run.trained, run.decided_by
    yield from (*trained.manipulation, trained.model, trained.recipe)
    if isinstance(how, Unlearned):
        yield from (how.unlearner, how.identification, how.selector)


def _what(part: Identity) -> str:
    provider = part.provider.partition("==")[0]
    return part.model_copy(update={"source": "", "provider": provider}).canonical


def _place(run: Run) -> str:
    """Return what the runs of an experiment have in common, their components' code aside."""
    trained = run.trained
    common = trained.model_dump_json(include={"data", "validation_fraction", "precision", "device", "threads"})
    return "\n".join([common, _what(trained.model), _what(trained.recipe)])


def _listing(how: Unlearned | Trained, place: str, versions: Versions) -> Any:
    def told(part: Identity) -> Identity:
        sources, providers = zip(*versions[place, _what(part)], strict=True)
        listed = {"source": BETWEEN.join(sorted(set(sources))), "provider": BETWEEN.join(sorted(set(providers)))}
        return part.model_copy(update=listed)

    if isinstance(how, Trained):
        manipulation = [told(part) for part in how.manipulation]
        return how.model_copy(
            update={"manipulation": manipulation, "model": told(how.model), "recipe": told(how.recipe)}
        )
    parts = {"unlearner": how.unlearner, "identification": how.identification, "selector": how.selector}
    return how.model_copy(
        update={
            "original": _listing(how.original, place, versions),
            **{name: told(part) for name, part in parts.items()},
        }
    )
