"""A small convolutional network for small images."""

from __future__ import annotations

from torch import nn

import cutk

SMALLEST = 8


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return convolution 3×3, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class ConvNetSmall(cutk.Model):
    """Three convolutions and a linear layer: trains in seconds on a laptop, for any images from 8×8 up."""

    name = "convnet-small"

    class Options(cutk.Options):
        """How wide it is."""

        width: int = cutk.option(32, ge=1, help="channels of the first convolution; the others have 2 and 4 times it")

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        channels, height, width = self.require_images(shape)
        if min(height, width) < SMALLEST:
            raise cutk.UsageError(
                f"convnet-small needs images of at least {SMALLEST}×{SMALLEST} pixels, got {height}×{width}."
            )
        w = self.options.width
        return nn.Sequential(
            block(channels, w),
            block(w, 2 * w),
            nn.MaxPool2d(2),
            block(2 * w, 4 * w),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * w, num_classes),
        )


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``convnet-small``."""
    return [ConvNetSmall]
