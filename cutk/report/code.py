"""Runs that several versions of a component's code computed, shown as one method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cutk.errors import UsageError
from cutk.run.records import Identity, Run, Trained, Unlearned

BETWEEN = ", "


def of_any_code(runs: Iterable[Run]) -> list[Run]:
    """Return runs in which every component's ``source`` lists the code of all that are of its name and options.

    Raises:
        UsageError: two versions computed the same cell, so that one would be counted as another seed.
    """
    found = list(runs)
    versions: dict[str, set[str]] = {}
    for run in found:
        for part in _parts(run):
            versions.setdefault(_what(part), set()).add(part.source)
    result = [run.model_copy(update={"decided_by": _listing(run.decided_by, versions)}) for run in found]
    cells: dict[str, Run] = {}
    for before, after in zip(found, result, strict=True):
        other = cells.setdefault(after.decided_by.canonical, before)
        if other is not before:
            of = before.labels
            at = "" if of.alpha is None else f", α = {of.alpha:g}"
            raise UsageError(
                f"Several versions of the code computed one cell: {of.manipulation}, {of.unlearner or of.role}{at}, "
                f"seed {of.seed} (runs {other.key[:16]} and {before.key[:16]}). Expected one of each with --any-code; "
                "report without it, or remove the older run's folder."
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
    return part.model_copy(update={"source": ""}).canonical


def _listing(how: Unlearned | Trained, versions: Mapping[str, set[str]]) -> Any:
    def told(part: Identity) -> Identity:
        return part.model_copy(update={"source": BETWEEN.join(sorted(versions[_what(part)]))})

    if isinstance(how, Trained):
        manipulation = [told(part) for part in how.manipulation]
        return how.model_copy(
            update={"manipulation": manipulation, "model": told(how.model), "recipe": told(how.recipe)}
        )
    parts = {"unlearner": how.unlearner, "identification": how.identification, "selector": how.selector}
    return how.model_copy(
        update={"original": _listing(how.original, versions), **{name: told(part) for name, part in parts.items()}}
    )
