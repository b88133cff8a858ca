"""What an adversary lays over samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from cutk.data.samples import told

__all__ = ["Overlay", "Stamp", "Trigger"]


@runtime_checkable
class Trigger(Protocol):
    """What an adversary lays over a sample to make a model err."""

    def apply(self, x: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """Return ``x`` with the trigger, the same for the same sample at every call; ``x`` stays as it is.

        ``x`` is uint8 ``[B, C, H, W]``, float32 ``[B, D]`` or int64 ``[B, L]``, on any device, and so is what comes
        back; images may become float32, for values between those of uint8 or beyond 255. ``labels`` (int64 ``[B]``) are
        the samples' clean labels, −1 where one has none, ``ids`` (int64 ``[B]``) their ids.
        """


@dataclass(frozen=True, eq=False)
class Stamp:
    """A pattern laid over an image; opacity 1 replaces the pixel, a value between 0 and 1 blends.

    A ``ValueError`` if one of them is of another form.
    """

    pattern: Tensor  # uint8 [C, H, W]
    opacity: Tensor  # float32 [H, W], 0 to 1

    def __post_init__(self) -> None:
        pattern, opacity = self.pattern, self.opacity
        if pattern.dtype != torch.uint8 or pattern.dim() != 3:
            raise ValueError(f"Expected a pattern as uint8 [C, H, W], got {told(pattern)}.")
        if not opacity.is_floating_point() or opacity.shape != pattern.shape[1:]:
            raise ValueError(f"Expected the opacity as float32 {list(pattern.shape[1:])}, got {told(opacity)}.")
        if not bool(((opacity >= 0) & (opacity <= 1)).all()):
            raise ValueError(
                f"Expected an opacity from 0 to 1, got {float(opacity.min()):g} to {float(opacity.max()):g}."
            )

    def apply(self, x: Tensor, labels: Tensor | None = None, ids: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return ``x`` (uint8 ``[B, C, H, W]``) with the pattern laid over each image."""
        opacity, pattern = self.opacity.to(x.device), self.pattern.to(x.device)
        blended = x.float() * (1 - opacity) + pattern.float() * opacity
        return blended.round().to(torch.uint8)


class Overlay(NamedTuple):
    """A trigger, and the training samples that carry it."""

    trigger: Trigger
    indices: Tensor  # int64 [n], positions in the training set
