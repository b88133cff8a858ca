"""What a run is called: a hash of everything that decides it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from cutk.run.records import Identity, Run, Trained, Unlearned, canonical

__all__ = ["KINDS", "Kind", "canonical", "key_but_for_code", "key_of", "kind_of"]

Kind = Literal["train", "unlearn"]
KINDS: tuple[Kind, ...] = ("train", "unlearn")


def key_of(content: Trained | Unlearned | Identity | Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``content``'s canonical JSON: the name of the run that it decides."""
    text = canonical(content) if isinstance(content, Mapping) else content.canonical
    return hashlib.sha256(text.encode()).hexdigest()


def key_but_for_code(content: Trained | Unlearned) -> str:
    """Return the SHA-256 of what decides a run besides its components' code and versions."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            known = {"provider", "source"} if "options" in value else set()
            return {name: without(part) for name, part in value.items() if name not in known}
        return [without(part) for part in value] if isinstance(value, list) else value

    return key_of(without(content.model_dump(mode="json")))


def kind_of(run: Run) -> Kind:
    """Return which of the two folders of runs is a run's."""
    return "unlearn" if isinstance(run.decided_by, Unlearned) else "train"
