"""The family of residual networks for CIFAR-10 with which residual learning was introduced."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

import cutk


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution 3×3 that keeps the size at stride 1 and halves it at stride 2."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def shortcut(x: torch.Tensor, channels_out: int, stride: int) -> torch.Tensor:
    """Return every ``stride``-th pixel, and zeros for the channels that are missing: option A, without parameters.

    Args:
        x: ``[B, C, H, W]``.
        channels_out: how many channels to return, at least C.
        stride: 1 or 2.
    """
    missing = channels_out - x.shape[1]
    if missing == 0 and stride == 1:
        return x
    return nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, missing))


class Block(nn.Module):
    """Two convolutions with a shortcut around them, and ReLU after the sum."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.channels_out, self.stride = channels_out, stride
        self.residual = nn.Sequential(
            conv3x3(channels_in, channels_out, stride),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            conv3x3(channels_out, channels_out),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, channels_in, H, W]`` to ``[B, channels_out, ⌈H / stride⌉, ⌈W / stride⌉]``."""
        return nn.functional.relu(shortcut(x, self.channels_out, self.stride) + self.residual(x))


def group(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    """Return blocks of one width, the first of which changes channels and size."""
    first = Block(channels_in, channels_out, stride)
    return nn.Sequential(first, *(Block(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def initialise(network: nn.Module) -> nn.Module:
    """Draw weights as He et al. (ICCV 2015, equation 10) do; biases become zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


class ResNetCifar(cutk.Model):
    """A member of the family: 6n + 2 layers, for images of any size.

    A convolution, three groups of n blocks with 16, 32 and 64 channels, the second and third at half the size of the
    one before, global average pooling and a linear layer.
    """

    reference = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2"
    depth: ClassVar[int]

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        channels, _, _ = self.require_images(shape)
        blocks = (self.depth - 2) // 6
        return initialise(
            nn.Sequential(
                conv3x3(channels, 16),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                group(16, 16, blocks, 1),
                group(16, 32, blocks, 2),
                group(32, 64, blocks, 2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(64, num_classes),
            )
        )


class ResNet20(ResNetCifar):
    """The thin residual network of 20 layers for CIFAR-10: 0.27 million parameters."""

    name = "resnet20"
    depth = 20


class ResNet32(ResNetCifar):
    """The thin residual network of 32 layers for CIFAR-10: 0.46 million parameters."""

    name = "resnet32"
    depth = 32


class ResNet44(ResNetCifar):
    """The thin residual network of 44 layers for CIFAR-10: 0.66 million parameters."""

    name = "resnet44"
    depth = 44


class ResNet56(ResNetCifar):
    """The thin residual network of 56 layers for CIFAR-10: 0.85 million parameters."""

    name = "resnet56"
    depth = 56


class ResNet110(ResNetCifar):
    """The thin residual network of 110 layers for CIFAR-10: 1.7 million parameters."""

    name = "resnet110"
    depth = 110


class Plugin:
    """Provides one member of the family: each has its own entry point, and an entry point its own plugin."""

    def __init__(self, model: type[cutk.Model]) -> None:
        self.model = model

    @cutk.hookimpl
    def cutk_models(self) -> list[type[cutk.Model]]:
        """Provide this member."""
        return [self.model]


resnet20 = Plugin(ResNet20)
resnet32 = Plugin(ResNet32)
resnet44 = Plugin(ResNet44)
resnet56 = Plugin(ResNet56)
resnet110 = Plugin(ResNet110)
