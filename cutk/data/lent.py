"""A training set in a process that doesn't know what was done to it: where a trigger lies, its owner alone can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cutk.data.batches import Augmentation, ResidentTrainSet, TrainSet
from cutk.data.samples import Normalisation, told
from cutk.data.sealed import Sealed, unseal

__all__ = ["Ask", "LentTrainSet", "augmented", "lend", "packed", "unpacked"]

Tensors = Mapping[str, Tensor]
# Called with what tells a batch; returns the batch and its generator's state afterwards.
Ask = Callable[[Tensors], Tensors]


def packed(name: str, x: Tensor) -> dict[str, Tensor]:
    """Return a tensor as plain bytes can carry it, on the CPU, with the order of its dimensions in memory."""
    strides = torch.empty_like(x, device="meta").stride()
    return {name: x.detach().cpu().contiguous(), f"{name}/strides": torch.tensor(strides)}


def unpacked(name: str, tensors: Tensors) -> Tensor:
    """Return what ``packed`` was given: some kernels' last bits hang on the order of the dimensions, too."""
    x, strides = tensors[name], tensors[f"{name}/strides"].tolist()
    return torch.empty_strided(x.shape, strides, dtype=x.dtype).copy_(x)


def lend(train: ResidentTrainSet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what another process makes a ``LentTrainSet`` of: all that a developer has, as plain data and tensors."""
    plain = {
        "num_classes": train.num_classes,
        "form": train.form,
        "shape": list(train.shape),
        "normalisation": [train.normalisation.mean, train.normalisation.std],
        "augmentation": asdict(train.augmentation),
        "asks": train.has_overlays,
    }
    return plain, {"labels": train.labels, **packed("x", train.x)}


def augmented(train: ResidentTrainSet, asked: Tensors) -> dict[str, Tensor]:
    """Answer a ``LentTrainSet``.

    Raises:
        ValueError: if it asks for anything but samples of the set.
    """
    index, state, mirrored = asked["index"], asked["state"], asked.get("mirrored")
    if index.dtype != torch.int64 or index.ndim != 1 or len(index) == 0:
        raise ValueError(f"Expected indices int64 [n], got {told(index)}.")
    if not 0 <= int(index.min()) <= int(index.max()) < len(train):
        raise ValueError(f"Expected indices from 0 to {len(train) - 1}, got {int(index.min())} to {int(index.max())}.")
    if mirrored is not None and (mirrored.dtype != torch.bool or mirrored.shape != index.shape):
        raise ValueError(f"Expected mirrored as bool [{len(index)}], got {told(mirrored)}.")
    generator = torch.Generator()
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"Expected the state of a generator: {error}") from None
    x = train.augmented(index, generator, mirrored)
    return {**packed("x", x), "state": generator.get_state()}


class LentTrainSet(ResidentTrainSet):
    """Another process's training set: samples as they are read without augmentation, triggers among them.

    What is augmented is asked for where a trigger has to be laid on afterwards, since that takes to know which samples
    carry one. Batches are those of the set itself, bit for bit.
    """

    def __init__(self, plain: Mapping[str, Any], tensors: Tensors, device: torch.device, ask: Ask) -> None:
        mean, std = map(tuple, plain["normalisation"])
        TrainSet.__init__(
            self,
            tensors["labels"],
            plain["num_classes"],
            plain["form"],
            tuple(plain["shape"]),
            Normalisation(mean, std),
            Augmentation(**plain["augmentation"]),
            device,
            None,
        )
        self._overlaid = None
        self._x = unpacked("x", tensors).to(device)
        self._hash = self._hashed()
        # A private copy is no other line, and the line can't be copied.
        self._ask = Sealed(ask) if plain["asks"] else None

    def _augmented(self, x: Tensor, index: Tensor, generator: torch.Generator, mirrored: Tensor | None) -> Tensor:
        if self._ask is None:
            return super()._augmented(x, index, generator, mirrored)
        asked = {"index": index, "state": generator.get_state()}
        answer = unseal(self._ask)(asked if mirrored is None else {**asked, "mirrored": mirrored.cpu()})
        generator.set_state(answer["state"])
        return unpacked("x", answer).to(self.device)
