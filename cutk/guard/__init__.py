"""What belongs to the whole process, and has to be as it was before once somebody else's code has run.

A method that leaves threads, flags, hooks, default dtypes or patched functions behind would change the numbers of every
method after it. ``watched`` reads all of that before, names afterwards what differs, and puts it back.

Nothing here imports torch: plugins are imported under this guard too, and whoever needs no torch shouldn't wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import methodcaller
from typing import Any

from cutk.guard.functions import LIBRARIES, WHOLLY, changes, is_being_imported, owners
from cutk.guard.states import ABSENT, STATES, equal

__all__ = ["DRAWS", "STATES", "watched"]

# Those that change whenever somebody draws from them.
DRAWS = tuple(name for name in STATES if name.endswith("random state"))


class _Snapshot:
    """What was there before; as a finder of imports, it adds a watched module right after its first import."""

    def __init__(self) -> None:
        # Modules and classes, their namespaces as they are at any time, and as they were. Lists, since two of those are
        # compared at the speed of C, and all of it is read and compared around every call of a component.
        self._owners: dict[int, Any] = {}
        self._namespaces: list[Mapping[str, Any]] = []
        self._before: list[Mapping[str, Any]] = []
        self._states: dict[str, Any] = {}
        self.add()

    def add(self, under: str = "") -> None:
        """Take what isn't in it yet; of modules, those whose name starts with ``under``."""
        known = len(self._owners)
        for owner in owners(under):
            self._owners.setdefault(id(owner), owner)
        new = list(map(vars, islice(self._owners.values(), known, None)))
        self._namespaces += new
        self._before += map(methodcaller("copy"), new)
        # Asking torch while it is being imported, as when it imports NumPy, ends the process.
        halfway = under != "torch" and is_being_imported(sys.modules.get("torch"))
        for name, state in STATES.items():
            if self._states.get(name, ABSENT) is ABSENT and not (halfway and state.module.startswith("torch")):
                self._states[name] = state.now()

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in LIBRARIES and name.partition(".")[0] not in WHOLLY:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            if find and (spec := find(name, path, target)) is not None:
                with contextlib.suppress(AttributeError):  # a loader of somebody's own making
                    spec.loader.exec_module = functools.partial(self._execute, spec.loader.exec_module)
                return spec
        return None

    def _execute(self, execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
        execute(module)
        self.add(module.__name__)

    def restore(self) -> Iterator[str]:
        """Put everything back, and yield the names of what had changed."""
        unchanged = equal(self._namespaces, self._before)
        for owner, namespace in () if unchanged else zip(self._owners.values(), self._before, strict=True):
            for name, value in list(changes(owner, namespace)):
                with contextlib.suppress(Exception):  # what can't be set can't have been patched
                    delattr(owner, name) if value is ABSENT else setattr(owner, name, value)
                own = [owner.__module__, owner.__qualname__] if isinstance(owner, type) else [owner.__name__]
                yield ".".join([*own, name])
        for name, state in STATES.items():
            before = self._states[name]
            if state.differs(before):
                with contextlib.suppress(Exception):
                    state.restore(sys.modules[state.module], before)
                yield name + (", which cannot be put back" if state.differs(before) else "")


@contextlib.contextmanager
def watched(*, draws: bool = True, trusted: bool = False) -> Iterator[list[str]]:
    """Yield a list that names, once the block has ended, all that it changed in the process; it is put back.

    ``STATES`` lists what is watched; besides, functions and methods of Python's, NumPy's and torch's modules that take
    part in every training, and all of cutk's: ``torch.optim.sgd.SGD.step`` is how one that was replaced is named. A
    module that is imported in the block counts from then on. ``draws`` says whether to name random states, too, that
    were drawn from. What is ``trusted``, being called often and tested to leave nothing, isn't watched.

    >>> import os
    >>> with watched() as changed:
    ...     os.environ["CUTK_EXAMPLE"] = "1"
    >>> changed, "CUTK_EXAMPLE" in os.environ
    (['the environment variables'], False)
    """
    changed: list[str] = []
    if trusted:
        yield changed
        return
    snapshot = _Snapshot()
    sys.meta_path.insert(0, snapshot)
    try:
        yield changed
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(snapshot)
        changed += [name for name in snapshot.restore() if draws or not name.startswith(DRAWS)]
