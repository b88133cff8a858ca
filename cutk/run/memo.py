"""What runs were called the last time: by it finished ones are found without their data being made anew.

A run's key holds the content of the manipulated samples and S_f, which take longer to make than the run takes to read.
Where both follow from what is hashed here, the memo leads from a cell to its key. It is no part of the results: without
it, or with one that can't be trusted, everything is as it is, and slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

import cutk
from cutk.data.samples import Splits
from cutk.run.cells import Cell, Training
from cutk.run.chosen import Chosen
from cutk.run.files import Damaged, Unreadable, parse_record, write_over
from cutk.run.keys import key_of
from cutk.run.records import SCHEMA, Environment
from cutk.run.setup import Setup

__all__ = ["Memo"]

_log = logging.getLogger(__name__)
_HOME = Path(cutk.__file__).parent
# What libraries are told by variables whose names begin so.
_TOLD = (
    *("ATEN", "BLIS", "CUBLAS", "CUDA", "DNNL", "GOMP", "KMP", "MKL", "NPY", "NVIDIA", "OMP", "ONEDNN", "OPENBLAS"),
    *("PYTHON", "PYTORCH", "TORCH"),
)
# Seconds: a file system may round the time of a change so far.
_TICK = 2.0


class _Keys(BaseModel):
    """Of cells that differ in their seed and α alone."""

    version: int = Field(SCHEMA, alias="schema")
    keys: dict[str, str] = {}

    model_config = {"populate_by_name": True}


class Memo:
    """Keys of a plan's cells, as far as they were computed before: a file for each manipulation and unlearner.

    A file is called by a hash of all that decides those keys but the seed and α: the data themselves, the source files
    of the components and of cutk, their options, the libraries' versions, the machine. So what was written where any of
    these was another isn't found. There is none for what may follow from anything else: components of others, those
    that read files or train a network, and sources that changed after this process had begun.
    """

    def __init__(self, root: Path | None, setup: Setup, splits: Splits, environment: Environment) -> None:
        parts = [part for composed in setup.manipulations for part in composed.parts]
        self._decisive = [*dict.fromkeys(parts), setup.identification]
        self._root = root if all(map(_is_told, self._decisive)) else None
        self._setup = setup
        self._trusted = True
        self._known: dict[Path, dict[str, str]] = {}
        self._new: dict[Path, dict[str, str]] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        if self._root is not None:
            sets = (splits.train, splits.test, splits.validation)
            others = (setup.dataset, setup.model, setup.recipe, setup.identification, setup.selector)
            self._about = {
                "cutk": _sources(),
                "data": [splits.fingerprint(), *(each and each.published for each in sets)],
                "environment": environment.canonical,
                "numpy": np.__version__,
                "others": [each.identity.canonical for each in others],
                "told": _told(),
                "validation_fraction": setup.plan.validation_fraction,
            }

    def key(self, cell: Cell) -> str | None:
        """Return a cell's key, if it is known."""
        if self._root is None or not self._trusted:
            return None
        path = self._path(self._root, cell)
        if path not in self._known:
            self._known[path] = _read(path)
        return self._known[path].get(_called(cell))

    def note(self, cell: Cell, key: str) -> None:
        """Note a key that was computed; if it isn't the one that is known, none of them is believed any more."""
        if self._root is None:
            return
        if self.key(cell) not in (None, key):
            _log.info("%s: its key isn't the one that was noted; all are computed anew", cell)
            self._trusted = False
        self._new.setdefault(self._path(self._root, cell), {})[_called(cell)] = key

    def keep(self) -> None:
        """Write what was noted, if the runs folder is there and lets it be written."""
        if len(self._setup.plan.seed_list) < 2 or not self._new or _changed(self._decisive):
            return  # the first seed's data are made in any case
        for path, new in self._new.items():
            before = _read(path) if self._trusted else {}
            if not new.items() <= before.items():
                with contextlib.suppress(OSError):
                    path.parent.mkdir(exist_ok=True)
                    write_over(path, _Keys(keys=dict(sorted((before | new).items()))), beside=path.parent)

    def _path(self, root: Path, cell: Cell) -> Path:
        """Return the file that a cell's key is in."""
        which = cell.manipulation, "" if isinstance(cell, Training) else cell.unlearner
        if which not in self._paths:
            manipulation = next(each for each in self._setup.manipulations if each.name == which[0])
            unlearner = next((each for each in self._setup.unlearners if each.name == which[1]), None)
            about = {
                "manipulation": [(part.name, part.identity.canonical) for part in manipulation.parts],
                "unlearner": unlearner and unlearner.identity.canonical,
            }
            self._paths[which] = root / "memo" / f"{key_of(self._about | about)}.json"
        return self._paths[which]


def _called(cell: Cell) -> str:
    return f"{cell.seed} {cell.role if isinstance(cell, Training) else repr(cell.alpha)}"


def _read(path: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, Damaged, Unreadable):
        return parse_record(path, _Keys).keys
    return {}


def _is_told(chosen: Chosen) -> bool:
    """Say whether a component gives the same wherever its sources, its options and what it is handed are the same."""
    trains = getattr(chosen.entry.component, "trains", False)
    return chosen.ours and not trains and not any(isinstance(each, Path) for each in _values(chosen.points))


def _values(value: Any) -> Iterator[Any]:
    """Yield ``value``, and all that it holds."""
    yield value
    within: Iterable[Any] = ()
    if isinstance(value, BaseModel):
        within = vars(value).values()
    elif isinstance(value, dict):
        within = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        within = value
    for each in within:
        yield from _values(each)


@cache
def _told() -> list[tuple[str, str]]:
    """Return the variables that libraries may heed, as they were first; some libraries set such themselves."""
    return sorted(each for each in os.environ.items() if each[0].startswith(_TOLD))


@cache
def _sources() -> str:
    """Return a hash of cutk's own source files."""
    digest = hashlib.sha256()
    for path in sorted(_HOME.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(_HOME).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _changed(components: Iterable[Chosen]) -> bool:
    """Say whether a source file of cutk's or of a component's package may be another than when it was loaded."""
    packages = {sys.modules[each.entry.component.__module__.partition(".")[0]] for each in components}
    homes = {_HOME, *(Path(package.__file__).parent for package in packages if package.__file__)}
    times = (path.stat() for home in homes for path in home.rglob("*.py"))
    return any(max(each.st_mtime, each.st_ctime) > cutk._BEGAN - _TICK for each in times)
