"""Any model of timm, PyTorch Image Models."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any

from torch import nn

import cutk
from cutk_builtin.pretrained import Pretrained, started


def imported() -> ModuleType:
    """Return the package timm: imported where it is needed, since it is large and may be missing."""
    try:
        import timm
    except ImportError:
        raise cutk.UsageError("timm's models need the package timm: pip install 'cutk[timm]'") from None
    return timm


def check_known(timm: ModuleType, architecture: str) -> None:
    """Refuse what timm doesn't list, such as the names of pretrained weights and of repositories to load from."""
    known = timm.list_models()
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise cutk.UsageError(f"timm has no model '{architecture}'.{hint} See: timm.list_models()")


class Timm(cutk.Model):
    """Any model of timm, such as timm:resnet18 or timm:vit_tiny_patch16_224.

    Newly initialised, or with pretrained weights that lie in a file (``-o timm.weights=FILE``), of which a head for
    other classes isn't taken; nothing is fetched. An architecture that is made for images of one size is made for the
    size of these.
    """

    name = "timm"
    reference = "Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models"
    variant = "architecture"

    class Options(Pretrained):
        """Which one, and what it starts with."""

        architecture: str = cutk.option("resnet18", help="timm's name for it, given as timm:NAME")

    @classmethod
    def variants(cls) -> list[str]:
        """Return timm's names of models."""
        names: list[str] = imported().list_models()
        return names

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        timm = imported()
        architecture = self.options.architecture
        check_known(timm, architecture)
        channels, height, width = self.require_images(shape)
        sized: dict[str, Any] = {}
        if getattr(timm.get_pretrained_cfg(architecture), "fixed_input_size", False):
            sized["img_size"] = (height, width)
        network: nn.Module = timm.create_model(
            architecture, pretrained=False, num_classes=num_classes, in_chans=channels, **sized
        )
        return started(network, self.options, num_classes)


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``timm``."""
    return [Timm]
