"""What a run is called: a hash of everything that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from cutk.run.records import Run, Unlearned

__all__ = ["KINDS", "Kind", "canonical", "key_of", "kind_of"]

Kind = Literal["train", "unlearn"]
KINDS: tuple[Kind, ...] = ("train", "unlearn")


def canonical(value: Any) -> str:
    """Return JSON in which equal content has equal text.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(content: Mapping[str, Any] | BaseModel) -> str:
    """Return the SHA-256 of ``content``'s canonical JSON: the name of the run that it decides."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def kind_of(run: Run) -> Kind:
    """Return which of the two folders of runs is a run's."""
    return "unlearn" if isinstance(run.decided_by, Unlearned) else "train"
