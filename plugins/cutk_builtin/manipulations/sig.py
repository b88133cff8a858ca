"""SIG: a sinusoidal signal on images of the target class, and the right label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import cutk


def sinusoid(width: int, delta: float, frequency: float) -> Tensor:
    """Return ``delta · sin(2π j f / m)`` for the columns j = 1 … m of an image: float32 ``[m]`` (equation 3)."""
    columns = torch.arange(1, width + 1, dtype=torch.float64)
    return (delta * torch.sin(2 * math.pi * columns * frequency / width)).float()


@dataclass(frozen=True, eq=False)
class Signal:
    """What is added to every row of an image.

    Args:
        values: float32 ``[W]``, of the pixel range 0 to 255.
    """

    values: Tensor

    def apply(self, x: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """Return ``x`` (uint8 ``[B, C, H, W]``) with the signal, cut off at 0 and 255."""
        return (x.float() + self.values.to(x.device)).round().clamp(0, 255).to(torch.uint8)


class Sig(cutk.Manipulation):
    """Adds a sinusoidal signal to part of one class, whose labels stay right; the signal then stands for the class.

    The signal lies in the files, so it is cropped and flipped as the images are. The affected domain is every image
    that carries the signal; the attack wants the class of all of them. ``rate`` is of the class, as the hold-out left
    it; ``count`` is a number of images.
    """

    name = "sig"
    reference = "Barni, Kallas, Tondi, A new backdoor attack in CNNs by training set corruption, ICIP 2019"

    class Options(cutk.Options):
        """Which class, how much of it, and the signal."""

        target: int = cutk.option(0, ge=0, help="index of the class whose images carry the signal")
        rate: float = cutk.option(0.3, gt=0, le=1, help="part of the class that carries it")
        count: int | None = cutk.option(None, ge=1, help="number of images that carry it, in place of rate")
        delta: float = cutk.option(40.0, gt=0, le=255, help="amplitude Δ, of the pixel range 0 to 255")
        frequency: float = cutk.option(6.0, gt=0, help="waves across the width of an image")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Lay the signal over a uniformly drawn part of the class."""
        o = self.options
        train.require("images", "sig")
        if o.target >= len(train.classes):
            raise cutk.UsageError(
                f"Option 'sig.target': expected a class from 0 to {len(train.classes) - 1}, got {o.target}."
            )
        members = (train.labels == o.target).nonzero().flatten()
        count = round(o.rate * len(members)) if o.count is None else o.count
        if not 0 < count <= len(members):
            raise cutk.UsageError(
                f"sig: expected 1 to {len(members)} poisoned images, as many as '{train.classes[o.target]}' has, got "
                f"{count}. Change sig.count or sig.rate."
            )
        signal = Signal(sinusoid(train.shape[2], o.delta, o.frequency))
        if float(signal.values.abs().max()) < 0.5:
            raise cutk.UsageError(
                f"Option 'sig.frequency': {o.frequency:g} waves of amplitude {o.delta:g} are nothing at the "
                f"{train.shape[2]} columns of these images; expected another frequency."
            )
        poisoned = members[torch.randperm(len(members), generator=generator)[:count]].sort().values
        x = train.x.clone()
        x[poisoned] = signal.apply(x[poisoned], train.labels[poisoned], train.ids[poisoned])
        return cutk.Corruption(
            train.changed(x=x),
            manipulated=poisoned,
            trigger=signal,
            targets=cutk.Corruption.all_to_one(o.target, len(train.classes)),
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``sig``."""
    return [Sig]
