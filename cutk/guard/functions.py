"""Functions that others call, and classes whose methods they do: whose they are, and whether they were replaced."""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from cutk.guard.states import ABSENT, equal

__all__ = ["LIBRARIES", "WHOLLY", "changes", "is_being_imported", "owners"]

LIBRARIES = ("torch", "numpy", "numpy.random", "multiprocessing")
_MODULES = (
    *("builtins", "copy", "math", "os", "random", "time", "warnings", "numpy", "numpy.random"),
    *("torch", "torch._C", "torch._C._nn", "torch._tensor", "torch.functional", "torch.random"),
)
_PACKAGES = ("torch.nn", "torch.optim", "torch.utils.data", "torch.autograd", "torch.amp", "cutk", "cutk_builtin")
# Of these the constants count, too.
WHOLLY = ("cutk", "cutk_builtin", "math")
_UNCHANGEABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, what is written in C
# What Python and the libraries keep in a class or a module while they work; the last goes with the default dtype.
_THEIR_OWN = ("__annot", "__pydantic", "__weakref__", "__dict__", "_abc_", "Storage")
_TORCHS_OWN = (os.path.join("torch", "_dynamo", ""), os.path.join("torch", "_compile.py"))
_OPTIMISER = os.path.join("torch", "optim", "optimizer.py")


@functools.lru_cache(maxsize=1)
def _watched_names(_number: int) -> list[str]:
    """Return the names of the modules that are watched, of those that are imported; ``_number`` is how many are."""
    whole, below = {*_MODULES, *_PACKAGES}, tuple(f"{package}." for package in _PACKAGES)
    return [name for name in list(sys.modules) if name in whole or name.startswith(below)]


def is_being_imported(module: Any) -> bool:
    """Say whether a module's code is running for the first time."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def owners(under: str) -> Iterator[Any]:
    """Yield the watched modules, those whose name starts with ``under``, and the classes in them."""
    for name in _watched_names(len(sys.modules)):
        module = sys.modules.get(name)
        # One that is being imported will be told when it is done.
        there = name == under or not is_being_imported(module)
        if there and name.startswith(under) and isinstance(module, types.ModuleType):
            yield module
            yield from _classes_of(module, len(vars(module)))


@functools.cache
def _classes_of(module: types.ModuleType, _number: int) -> list[type]:
    """Return the classes in a module, of it or its neighbours, that can be changed; ``_number`` is of its names."""
    top = module.__name__.partition(".")[0]
    classes = [v for v in vars(module).values() if isinstance(v, type) and not v.__flags__ & _UNCHANGEABLE]
    return [cls for cls in classes if str(getattr(cls, "__module__", "")).partition(".")[0] == top]


def _matters(owner: Any, name: str, value: Any) -> bool:
    """Say whether others would notice another value; what libraries count and keep for themselves they may change."""
    if name.startswith(_THEIR_OWN):
        return False
    own = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
    called = callable(value) or hasattr(type(value), "__get__")
    return called or (own.partition(".")[0] in WHOLLY and not name.startswith("__"))


def _is_torchs_doing(before: Any, now: Any) -> bool:
    """Say whether torch itself has wrapped a function, as it does when an optimiser is made for the first time."""
    if getattr(now, "__wrapped__", None) is not before or not isinstance(now, types.FunctionType):
        return False
    path = now.__code__.co_filename
    return any(part in path for part in _TORCHS_OWN) or (path.endswith(_OPTIMISER) and vars(now).get("hooked") is True)


def changes(owner: Any, before: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names in a module or class that mean something else now, and what they meant, ``ABSENT`` if nothing.

    What is new in a module hides nothing and is left alone; a new method of a class can hide one of its bases.
    """
    if equal(vars(owner), before):
        return
    now = dict(vars(owner))
    new = now.keys() - before.keys() if isinstance(owner, type) else ()
    for name in (*before, *new):
        was, there = before.get(name, ABSENT), now.get(name, ABSENT)
        if there is was or not _matters(owner, name, there if was is ABSENT else was):
            continue
        inherited = [vars(base)[name] for base in owner.__mro__[1:] if name in vars(base)] if name in new else [was]
        if not (inherited and _is_torchs_doing(inherited[0], there)):
            yield name, was
