"""Comparing what components compute, whatever it is made of."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
from collections.abc import Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cutk.data.batches import TrainSet
from cutk.problem.task import Log, Task
from cutk.testing.findings import NotJudged

__all__ = ["difference", "snapshot"]

_PLAIN = (str, bytes, int, complex, bool, type(None), Set, enum.Enum, PurePath, type, torch.dtype, torch.device)
# What cutk itself hands out, and counts and logs in: no result of anybody's.
_HOSTS = (TrainSet, Log, Task)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's parameters and buffers by their names."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _equal_tensors(first: Tensor, second: Tensor) -> bool:
    if (first.shape, first.dtype, first.device) != (second.shape, second.dtype, second.device):
        return False
    if first.is_floating_point():
        return bool(((first == second) | (first.isnan() & second.isnan())).all())
    return torch.equal(first, second)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """Return what a value consists of, by name or position, or None if that can't be seen."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    return None if inspect.isroutine(value) else getattr(value, "__dict__", None)


def difference(first: Any, second: Any, where: str = "the result", seen: Set[int] = frozenset()) -> str:
    """Say where two values differ, or return an empty text if they are equal, part by part.

    Tensors are equal if shape, dtype, device and every number are; a NaN equals a NaN.

    Args:
        first: a value.
        second: another.
        where: what to call them.
        seen: the ids of what they are part of.

    Raises:
        NotJudged: if a part can't be compared.

    >>> difference({"a": [1, 2]}, {"a": [1, 3]})
    "the result['a'][1]"
    """
    if first is second or id(first) in seen or isinstance(first, _HOSTS):
        return ""
    if type(first) is not type(second):
        return where
    if isinstance(first, Tensor):
        return "" if _equal_tensors(first, second) else where
    if isinstance(first, np.ndarray):
        return "" if first.dtype == second.dtype and first.tobytes() == second.tobytes() else where
    if isinstance(first, torch.Generator):
        return difference(first.get_state(), second.get_state(), where)
    if isinstance(first, float):
        return "" if first == second or (math.isnan(first) and math.isnan(second)) else where
    if isinstance(first, _PLAIN):
        return "" if first == second else where
    mine, yours = _parts(first), _parts(second)
    if mine is None or yours is None:
        raise NotJudged(f"{where} is of type {type(first).__name__}, which can't be compared")
    if list(mine) != list(yours):
        return where
    for name in mine:
        inside = f"{where}[{name!r}]" if isinstance(first, Mapping | list | tuple | nn.Module) else f"{where}.{name}"
        if found := difference(mine[name], yours[name], inside, seen | {id(first)}):
            return found
    return ""
