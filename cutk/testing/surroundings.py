"""What belongs to the whole process and has to be, after a component has worked, as it was before."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cutk.testing.states import difference

__all__ = ["watched"]


@dataclass(frozen=True)
class _Thing:
    """One piece of global state: how to read it, and how to put it back."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]


def _read_autocast() -> dict[str, tuple[bool, torch.dtype]]:
    return {name: (torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in ("cpu", "cuda")}


def _restore_autocast(before: dict[str, tuple[bool, torch.dtype]]) -> None:
    for name, (enabled, dtype) in before.items():
        torch.set_autocast_enabled(name, enabled)
        torch.set_autocast_dtype(name, dtype)


_CUDNN = ("enabled", "benchmark", "deterministic")


def _restore_cudnn(before: list[bool]) -> None:
    for name, value in zip(_CUDNN, before, strict=True):
        setattr(torch.backends.cudnn, name, value)


def _read_precision() -> str:
    """Return what float32 products are computed in; torch can't say where a backend's own setting contradicts it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return ""


def _restore_precision(before: str) -> None:
    if before:
        torch.set_float32_matmul_precision(before)


def _restore_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


_THINGS = (
    _Thing("torch's random state", torch.get_rng_state, torch.set_rng_state),
    _Thing("NumPy's random state", np.random.get_state, np.random.set_state),
    _Thing("Python's random state", random.getstate, random.setstate),
    _Thing("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Thing(
        "torch's deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1]),
    ),
    _Thing(
        "cuDNN's settings",
        lambda: [getattr(torch.backends.cudnn, name) for name in _CUDNN],
        _restore_cudnn,
    ),
    _Thing("the precision of float32 products", _read_precision, _restore_precision),
    _Thing("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Thing("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Thing("the default device", torch.get_default_device, torch.set_default_device),
    _Thing("autocast", _read_autocast, _restore_autocast),
    _Thing("the filters of warnings", lambda: list(warnings.filters), lambda _before: None),
    _Thing("the working folder", os.getcwd, os.chdir),
    _Thing("the environment variables", lambda: dict(os.environ), _restore_environment),
)


def _stir(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def watched(stirred: int | None = None) -> Iterator[list[str]]:
    """Yield a list that names, once the block has ended, every piece of global state that it changed.

    All of it is put back, so that one component's doings spoil no other's checks.

    Args:
        stirred: if given, all global generators are seeded with it for the block. Of two runs that are stirred
            differently, whatever draws from them gives different results.
    """
    changed: list[str] = []
    with warnings.catch_warnings():  # which puts the filters back
        outside = {thing.name: thing.read() for thing in _THINGS}
        if stirred is not None:
            _stir(stirred)
        before = {thing.name: thing.read() for thing in _THINGS}
        try:
            yield changed
        finally:
            for thing in _THINGS:
                now = thing.read()
                if difference(before[thing.name], now):
                    changed.append(thing.name)
                if difference(outside[thing.name], now):
                    thing.restore(outside[thing.name])
