"""Runs that come with a job and leave with its result, where a worker doesn't see the runs folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from safetensors.torch import load, save
from torch import Tensor

from cutk.run.files import Damaged, apart
from cutk.run.keys import Kind
from cutk.run.records import Run
from cutk.run.store import Parcel

__all__ = ["Parcels"]


class Parcels:
    """A store in a worker's memory: what it was sent, and what it has to send.

    It is to a worker what a runs folder is.
    """

    root = "the worker's memory"

    def __init__(self) -> None:
        self._held: dict[str, Parcel] = {}
        self._new: set[str] = set()

    def take(self, parcels: Iterable[Parcel]) -> None:
        """Hold what was sent."""
        self._held.update((parcel.run.key, parcel) for parcel in parcels)

    def owe(self, key: str) -> None:
        """Let a run leave with the others if it is held: it was asked for, and didn't come."""
        if key in self._held:
            self._new.add(key)

    def hand_over(self, keep: str) -> tuple[Parcel, ...]:
        """Return what was written, and hold nothing but the run whose key is ``keep``."""
        new = tuple(parcel for key, parcel in self._held.items() if key in self._new)
        self._held = {key: parcel for key, parcel in self._held.items() if key == keep}
        self._new.clear()
        return new

    def read(self, _: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there."""
        held = self._held.get(key)
        return held and held.run

    peek = read

    def weights(self, _: Kind, key: str) -> dict[str, Tensor]:
        """Return a run's weights, on the CPU; ``Damaged`` says that they aren't there."""
        if key not in self._held:
            raise Damaged(f"{key} is not there")
        return load(self._held[key].weights)

    def write(self, run: Run, weights: Mapping[str, Tensor], *, replace: bool = False) -> Run:  # noqa: ARG002
        """Hold a run, and return it with the checksum of its weights; this one is newer than any that was sent."""
        content = save(apart(weights))
        about = {"weights_sha256": hashlib.sha256(content).hexdigest(), "weights_bytes": len(content)}
        run = run.model_copy(update=about)
        self._held[run.key] = Parcel(run, content)
        self._new.add(run.key)
        return run

    def update(self, run: Run) -> None:
        """Put ``run`` in the place of the record that is there, if it is; the weights stay."""
        there = self._held.get(run.key)
        if there is not None:
            about = {name: getattr(there.run, name) for name in ("weights_sha256", "weights_bytes")}
            self._held[run.key] = there._replace(run=run.model_copy(update=about))
            self._new.add(run.key)
