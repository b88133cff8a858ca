"""WaNet: images that are bent a little, and the wrong label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

import cutk


def identity_grid(height: int, width: int) -> Tensor:
    """Return where each pixel lies: float32 ``[H, W, 2]``, (x, y) from −1 to 1 between the corner pixels' centres."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=2)


def warping_field(height: int, width: int, points: int, generator: torch.Generator) -> Tensor:
    """Return a smooth random field, float32 ``[H, W, 2]``.

    ``points × points`` vectors from the square [−1, 1]² are divided by their entries' mean size, so that this becomes
    1, and upsampled bicubically (section 3.2).
    """
    control = torch.rand(1, 2, points, points, generator=generator) * 2 - 1
    control = control / control.abs().mean()
    return F.interpolate(control, (height, width), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)


def bent(x: Tensor, grid: Tensor) -> Tensor:
    """Return images (uint8 ``[B, C, H, W]``) as they look at the places of ``grid`` (float32 ``[B, H, W, 2]``)."""
    warped = F.grid_sample(x.float(), grid.clamp(-1, 1), align_corners=True)
    return warped.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Warp:
    """A way of bending that is the same for all images.

    Args:
        grid: float32 ``[H, W, 2]``: where each pixel's value comes from.
    """

    grid: Tensor

    def apply(self, x: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """Return ``x`` (uint8 ``[B, C, H, W]``) bent."""
        return bent(x, self.grid.to(x.device).expand(len(x), *self.grid.shape))


class WaNet(cutk.Manipulation):
    """Bends some training images by one smooth field that nobody sees, and gives them the target class.

    With ``noise`` further images are bent by a field that is a little different for each, and keep their class, so that
    no other bending opens the backdoor; they belong to S_m, too. Bent images lie in the files. The affected domain is
    every image that is bent by the field. ``fraction`` is of the training set as it is left by the hold-out; ``count``
    is a number of images, without those of ``noise``.
    """

    name = "wanet"
    reference = "Nguyen & Tran, WaNet: Imperceptible Warping-based Backdoor Attack, ICLR 2021"

    class Options(cutk.Options):
        """How many images, and how they are bent."""

        targets: Literal["all-to-one", "all-to-all"] = cutk.option(
            "all-to-one", help="bent images get one class, or each the class after its own"
        )
        target: int = cutk.option(0, ge=0, help="index of the class that bent images get, all to one")
        fraction: float = cutk.option(0.1, gt=0, le=1, help="part of the training set that is poisoned")
        count: int | None = cutk.option(None, ge=1, help="number of poisoned images, in place of fraction")
        grid: int = cutk.option(4, ge=2, le=512, help="k: the field is drawn at k × k points")
        strength: float = cutk.option(0.5, gt=0, help="s: images are bent by s / 2 pixels on average")
        noise: float = cutk.option(0.0, ge=0, help="images bent at random, for each poisoned one; the paper has 2")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Bend a uniformly drawn subset."""
        o = self.options
        train.require("images", "wanet")
        classes = len(train.classes)
        count = round(o.fraction * len(train)) if o.count is None else o.count
        noisy = round(o.noise * count)
        if not 0 < count <= len(train) - noisy:
            raise cutk.UsageError(
                f"wanet: expected 1 to {len(train)} bent images, as many as there are to train on, got {count} and "
                f"{noisy} of noise. Change wanet.count, wanet.fraction or wanet.noise."
            )
        if o.target >= classes:
            raise cutk.UsageError(f"Option 'wanet.target': expected a class from 0 to {classes - 1}, got {o.target}.")
        _, height, width = train.shape
        field = warping_field(height, width, o.grid, generator)
        size = torch.tensor([width, height])
        grid = identity_grid(height, width) + o.strength * field / size
        order = torch.randperm(len(train), generator=generator)
        poisoned, disturbed = order[:count], order[count : count + noisy]
        all_to_one = o.targets == "all-to-one"
        targets = cutk.Corruption.all_to_one(o.target, classes) if all_to_one else cutk.Corruption.all_to_all(classes)
        labels, x = train.labels.clone(), train.x.clone()
        labels[poisoned] = torch.tensor(targets)[labels[poisoned]]
        warp = Warp(grid)
        x[poisoned] = warp.apply(x[poisoned], train.labels[poisoned], train.ids[poisoned])
        if noisy:
            shaken = torch.rand(noisy, height, width, 2, generator=generator) * 2 - 1
            x[disturbed] = bent(x[disturbed], grid + shaken / size)
        return cutk.Corruption(
            train.changed(x=x, labels=labels),
            manipulated=torch.cat([poisoned, disturbed]).sort().values,
            trigger=warp,
            targets=targets,
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``wanet``."""
    return [WaNet]
