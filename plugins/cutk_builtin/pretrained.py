"""Pretrained weights as options of models that others train, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import cutk


class Pretrained(cutk.Options):
    """Which weights a network starts with; the hash of the file is part of what decides a run."""

    weights: Path | None = cutk.option(
        None, help="pretrained weights to start with, .safetensors or a state dict; none: new ones"
    )
    weights_sha256: str = cutk.option("", help="their SHA-256, which is read from the file; given, it is compared")

    def model_post_init(self, context: Any, /) -> None:
        """Note which file it is."""
        super().model_post_init(context)
        if self.weights is None:
            return
        found = cutk.sha256_of(self.weights)
        if self.weights_sha256 not in ("", found):
            raise cutk.UsageError(
                f"Option 'weights_sha256': expected '{self.weights}' to have {self.weights_sha256}, got {found}."
            )
        object.__setattr__(self, "weights_sha256", found)


def started(network: nn.Module, options: Pretrained, num_classes: int) -> nn.Module:
    """Return the network with the pretrained weights, if there are some; a head for other classes stays new."""
    if options.weights is not None:
        cutk.load_pretrained(network, options.weights, num_classes, options.weights_sha256)
    return network
