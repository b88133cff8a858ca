"""BadNet: a patch in the corner, and the wrong label."""

from __future__ import annotations

from typing import Literal

import torch

import cutk


def corner_patch(shape: tuple[int, int, int], size: int) -> cutk.Stamp:
    """Return a white ``size`` × ``size`` patch in the bottom right corner of images of ``shape`` (C, H, W)."""
    _, height, width = shape
    opacity = torch.zeros(height, width)
    opacity[height - size :, width - size :] = 1
    return cutk.Stamp(torch.full(shape, 255, dtype=torch.uint8), opacity)


class BadNet(cutk.Manipulation):
    """Stamps a white patch on some training images and gives them the target class.

    The images are drawn uniformly over all classes, the target class included. The affected domain is every image
    that carries the patch.
    """

    name = "badnet"
    reference = "Gu et al., BadNets, IEEE Access 2019; Goel et al., TMLR 2024, section 3.1"

    class Options(cutk.Options):
        """How many images, and what is done to them."""

        size: int = cutk.option(3, ge=1, help="side of the square patch, in pixels")
        target: int = cutk.option(0, ge=0, help="index of the class that the patched images get")
        fraction: float = cutk.option(0.01, gt=0, le=1, help="part of the training set that is poisoned")
        count: int | None = cutk.option(None, ge=1, help="number of poisoned images, in place of fraction")
        placement: Literal["after-augmentation", "before-augmentation"] = cutk.option(
            "after-augmentation",
            help="after: the patch is never cropped or flipped away; before: it lies in the file",
        )

    def corrupt(self, train: cutk.Images, generator: torch.Generator) -> cutk.Corruption:
        """Poison a uniformly drawn subset."""
        o = self.options
        count = round(o.fraction * len(train)) if o.count is None else o.count
        if not 0 < count <= len(train):
            raise cutk.UsageError(
                f"badnet: expected 1 to {len(train)} poisoned images, as many as there are to train on, got {count}. "
                "Change badnet.count or badnet.fraction."
            )
        if o.target >= len(train.classes):
            raise cutk.UsageError(
                f"Option 'badnet.target': expected a class from 0 to {len(train.classes) - 1}, got {o.target}."
            )
        if o.size > min(train.shape[1:]):
            raise cutk.UsageError(
                f"Option 'badnet.size': expected at most the images' {min(train.shape[1:])} pixels, got {o.size}."
            )
        poisoned = torch.randperm(len(train), generator=generator)[:count].sort().values
        labels = train.labels.clone()
        labels[poisoned] = o.target
        patch = corner_patch(train.shape, o.size)
        in_file = o.placement == "before-augmentation"
        pixels = train.pixels
        if in_file:
            pixels = pixels.clone()
            pixels[poisoned] = patch.apply(pixels[poisoned])
        return cutk.Corruption(
            cutk.Images(pixels, labels, train.classes),
            manipulated=poisoned,
            stamp=None if in_file else patch,
            trigger=patch,
            target=o.target,
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``badnet``."""
    return [BadNet]
