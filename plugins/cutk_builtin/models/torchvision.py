"""Any classifier of torchvision."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

import cutk
from cutk_builtin.pretrained import Pretrained, started


def zoo() -> Any:
    """Return torchvision's models; it takes as long to import as torch itself."""
    from torchvision import models

    return models


class GreyToColour(nn.Module):
    """Repeats a grey channel three times."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, 1, H, W]`` to ``[B, 3, H, W]``."""
        return x.expand(-1, 3, -1, -1)


def check_known(architecture: str) -> None:
    """Refuse what torchvision doesn't have as a classifier; detection, segmentation and video have other outputs."""
    known = zoo().list_models(module=zoo())
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise cutk.UsageError(
            f"torchvision has no classifier '{architecture}'.{hint} "
            "See: torchvision.models.list_models(torchvision.models)"
        )


def arguments(architecture: str, height: int, width: int) -> dict[str, Any]:
    """Return what an architecture wants to be told beside the number of classes."""
    if architecture in ("googlenet", "inception_v3"):
        # Auxiliary classifiers give more outputs than one while training. What init_weights does is torchvision's
        # default, of which it warns unless it is asked for.
        return {"aux_logits": False, "init_weights": True}
    if architecture.startswith("vit_"):
        return {"image_size": height}
    if architecture.startswith("maxvit_"):
        return {"input_size": (height, width)}
    return {}


class Torchvision(cutk.Model):
    """Any classifier of torchvision, such as torchvision:resnet18 or torchvision:vgg11_bn.

    Newly initialised, or with pretrained weights that lie in a file (``-o torchvision.weights=FILE``), of which a head
    for other classes isn't taken; nothing is fetched. Grey images are repeated in three channels.
    """

    name = "torchvision"
    reference = "https://docs.pytorch.org/vision/stable/models.html#classification"
    variant = "architecture"

    class Options(Pretrained):
        """Which one, and what it starts with."""

        architecture: str = cutk.option("resnet18", help="torchvision's name for it, given as torchvision:NAME")

    @classmethod
    def variants(cls) -> list[str]:
        """Return torchvision's names of classifiers."""
        names: list[str] = zoo().list_models(module=zoo())
        return names

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        architecture = self.options.architecture
        check_known(architecture)
        channels, height, width = self.require_images(shape)
        if channels not in (1, 3):
            raise cutk.UsageError(
                f"torchvision's classifiers expect images of 1 or 3 channels, got {channels}. "
                "Choose another with --model."
            )
        network: nn.Module = zoo().get_model(
            architecture, weights=None, num_classes=num_classes, **arguments(architecture, height, width)
        )
        started(network, self.options, num_classes)
        return network if channels == 3 else nn.Sequential(GreyToColour(), network)


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``torchvision``."""
    return [Torchvision]
