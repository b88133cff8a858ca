"""cutk, a toolkit for corrective machine unlearning.

Everything that an author of plugins needs is a name of this package; ``__init__.pyi`` lists them. Importing it imports
neither torch nor any plugin: a name's module is loaded when the name is first used.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

# Source files that changed since then needn't be what runs here.
_BEGAN = time.time()
# The list that type checkers read says where each name is from.
_LISTED = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: home for home, name in re.findall(r"^from (cutk\S*) import \w+ as (\w+)$", _LISTED, re.MULTILINE)}
# What the plugin API 1.0 had: where it still is, and what to use instead.
_DEPRECATED = {
    "Breakdown": ("cutk.components", "cutk.Metric, whose compute() may return a mapping"),
    "Images": ("cutk.data.samples", "cutk.Samples"),
    "layers": ("cutk.learning.network", "cutk.last_layers"),
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # which takes its time

        return version("cutk")
    if name in _DEPRECATED:
        home, instead = _DEPRECATED[name]
        # `from cutk import Images` asks twice: first whether there is such a name.
        if sys._getframe(1).f_globals.get("__name__") != "importlib._bootstrap":
            warnings.warn(f"cutk.{name} is deprecated since cutk 0.2: use {instead}.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(home), name)
    if name not in _HOMES:
        raise AttributeError(f"module 'cutk' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
