"""BadNet: a patch in the corner, and the wrong label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import cutk


def corner(shape: cutk.Shape, size: int) -> Tensor:
    """Return where the patch is: float32 ``[H, W]``, 1 in the bottom right ``size`` × ``size`` pixels, else 0."""
    _, height, width = shape
    opacity = torch.zeros(height, width)
    opacity[height - size :, width - size :] = 1
    return opacity


def corner_patch(shape: cutk.Shape, size: int) -> cutk.Stamp:
    """Return a white ``size`` × ``size`` patch in the bottom right corner of images of ``shape`` (C, H, W)."""
    return cutk.Stamp(torch.full(shape, 255, dtype=torch.uint8), corner(shape, size))


def brightest(normalisation: cutk.Normalisation) -> Tensor:
    """Return the pixel values, float32 ``[C]``, that normalisation maps to the most that white becomes in a channel.

    White is 255 in each channel; normalised, ``(1 − mean) / std``, it is more in one channel than in the others. These
    get the same normalised value, which is more than 255.
    """
    mean, std = torch.tensor(normalisation.mean).double(), torch.tensor(normalisation.std).double()
    return ((mean + std * ((1 - mean) / std).max()) * 255).float()


@dataclass(frozen=True, eq=False)
class BrightPatch:
    """A patch of pixel values that may exceed 255.

    Args:
        values: float32 ``[C]``.
        opacity: float32 ``[H, W]``, 0 or 1.
    """

    values: Tensor
    opacity: Tensor

    def apply(self, x: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """Return ``x`` (uint8 ``[B, C, H, W]``) with the patch, float32."""
        patch = self.values.to(x.device)[:, None, None]
        return torch.where(self.opacity.to(x.device) == 1, patch, x.float())


class BadNet(cutk.Manipulation):
    """Stamps a white patch on some training images and gives them the target class.

    The images are drawn uniformly over all classes, the target class included; all to all, each gets the class that
    follows its own. The affected domain is every image that carries the patch. ``fraction`` is of the training set as
    it is left by the hold-out; ``count`` is a number of images.
    """

    name = "badnet"
    reference = "Gu et al., BadNets, IEEE Access 2019; Goel et al., TMLR 2024, section 3.1"

    class Options(cutk.Options):
        """How many images, and what is done to them."""

        size: int = cutk.option(3, ge=1, help="side of the square patch, in pixels")
        targets: Literal["all-to-one", "all-to-all"] = cutk.option(
            "all-to-one", help="patched images get one class, or each the class after its own"
        )
        target: int = cutk.option(0, ge=0, help="index of the class that the patched images get, all to one")
        fraction: float = cutk.option(0.01, gt=0, le=1, help="part of the training set that is poisoned")
        count: int | None = cutk.option(None, ge=1, help="number of poisoned images, in place of fraction")
        placement: Literal["after-augmentation", "before-augmentation"] = cutk.option(
            "after-augmentation",
            help="after: the patch is never cropped or flipped away; before: it lies in the file",
        )
        trigger_value: Literal["white", "brightest"] = cutk.option(
            "white",
            help="white, or what the channel in which white is brightest, once normalised, gives to all of them",
        )

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Poison a uniformly drawn subset."""
        o = self.options
        train.require("images", "badnet")
        classes = len(train.classes)
        count = round(o.fraction * len(train)) if o.count is None else o.count
        if not 0 < count <= len(train):
            raise cutk.UsageError(
                f"badnet: expected 1 to {len(train)} poisoned images, as many as there are to train on, got {count}. "
                "Change badnet.count or badnet.fraction."
            )
        if o.target >= classes:
            raise cutk.UsageError(f"Option 'badnet.target': expected a class from 0 to {classes - 1}, got {o.target}.")
        if o.size > min(train.shape[1:]):
            raise cutk.UsageError(
                f"Option 'badnet.size': expected at most the images' {min(train.shape[1:])} pixels, got {o.size}."
            )
        in_file = o.placement == "before-augmentation"
        if in_file and o.trigger_value == "brightest":
            raise cutk.UsageError(
                "Option 'badnet.trigger_value': a file holds nothing brighter than white; expected white, or "
                "badnet.placement=after-augmentation."
            )
        all_to_one = o.targets == "all-to-one"
        targets = cutk.Corruption.all_to_one(o.target, classes) if all_to_one else cutk.Corruption.all_to_all(classes)
        poisoned = torch.randperm(len(train), generator=generator)[:count].sort().values
        labels, x = train.labels.clone(), train.x
        labels[poisoned] = torch.tensor(targets)[labels[poisoned]]
        trigger: cutk.Trigger = corner_patch(train.shape, o.size)
        if o.trigger_value == "brightest":
            trigger = BrightPatch(brightest(cutk.Normalisation.of(train)), corner(train.shape, o.size))
        if in_file:
            x = x.clone()
            x[poisoned] = trigger.apply(x[poisoned], train.labels[poisoned], train.ids[poisoned])
        return cutk.Corruption(
            train.changed(x=x, labels=labels),
            manipulated=poisoned,
            overlays=() if in_file else (cutk.Overlay(trigger, poisoned),),
            trigger=trigger,
            targets=targets,
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``badnet``."""
    return [BadNet]
