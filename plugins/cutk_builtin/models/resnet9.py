"""ResNet-9 in the variant of the paper's experiments."""

from __future__ import annotations

import torch
from torch import nn

import cutk

# A side of 11 becomes 6 by the stride, 3 by the pooling and 1 by the last, unpadded convolution.
SMALLEST = 11


def block(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> nn.Sequential:
    """Return convolution, batch norm and CELU(0.075)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.CELU(0.075),
    )


class Residual(nn.Module):
    """Two blocks with a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(block(channels, channels), block(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        return x + self.blocks(x)


class ResNet9(cutk.Model):
    """Eight convolutions, two of the pairs residual, global max-pooling and a linear layer without bias."""

    name = "resnet9"
    reference = "Goel et al., TMLR 2024 (the paper's network for CIFAR-10)"

    class Options(cutk.Options):
        """How wide it is."""

        width: float = cutk.option(1.0, gt=0, help="factor on the paper's channel counts 64, 128 and 256")

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        channels, height, width = self.require_images(shape)
        if min(height, width) < SMALLEST:
            raise cutk.UsageError(
                f"resnet9 is too deep for images of {height}×{width} pixels; it needs {SMALLEST}×{SMALLEST}. "
                "Choose another with --model."
            )
        c64, c128, c256 = (max(1, round(count * self.options.width)) for count in (64, 128, 256))
        return nn.Sequential(
            block(channels, c64),
            block(c64, c128, kernel=5, stride=2, padding=2),
            Residual(c128),
            block(c128, c256),
            nn.MaxPool2d(2),
            Residual(c256),
            block(c256, c128, padding=0),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(c128, num_classes, bias=False),
        )


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``resnet9``."""
    return [ResNet9]
