"""Files that ``torch.save`` wrote, read without running code."""

from __future__ import annotations

import argparse
import codecs
import os
import pathlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["load_plain"]

# Paths of the other kind of system can be written and read, and nothing else.
_POSIX = os.name == "posix"
_PATHS: dict[str, type] = {
    "PosixPath": pathlib.PosixPath if _POSIX else pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath if _POSIX else pathlib.WindowsPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}


def load_plain(file: Path) -> Any:
    """Return what ``torch.save`` wrote, on the CPU, if it is nothing but tensors, NumPy's arrays and plain data.

    Before PyTorch 2.6 NumPy's arrays are refused as well.

    Raises:
        pickle.UnpicklingError: if it names anything else; nothing of that is run.
        Exception: of many kinds, if it is damaged.
    """
    with warnings.catch_warnings(), _records_allowed():
        warnings.simplefilter("ignore")  # of another protocol of pickle, say: what can't be read is refused
        return torch.load(file, map_location="cpu", weights_only=True)


def _records_allowed() -> AbstractContextManager[Any]:
    """Let what trainings note beside weights be read: arguments, paths, NumPy's numbers. None of it runs code."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):  # which takes no names
        return nullcontext()
    multiarray = np.core.multiarray if np.__version__.startswith("1.") else np._core.multiarray  # type: ignore[attr-defined]
    named = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ]
    kinds = [kind for name in dir(np.dtypes) if isinstance(kind := getattr(np.dtypes, name), type)]
    modules = ("pathlib", "pathlib._local")  # where they are depends on who wrote them
    paths = [(kind, f"{module}.{name}") for name, kind in _PATHS.items() for module in modules]
    plain: list[Any] = [argparse.Namespace, (codecs.encode, "_codecs.encode"), np.dtype, np.ndarray]
    return torch.serialization.safe_globals([*plain, *kinds, *named, *paths])
