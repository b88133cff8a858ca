"""Networks for feature vectors: a multilayer perceptron, and softmax regression."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

import cutk


class Vector(nn.Flatten):
    """Makes each sample a vector, and refuses tokens: their numbers are names and no quantities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, *shape]`` to ``[B, D]``."""
        if not x.is_floating_point():
            raise cutk.UsageError(
                "The models mlp and linear take features (float32 [D]) or images (channels, height, width), and these "
                f"samples are tokens (int64 {list(x.shape[1:])}). Choose another with --model."
            )
        return super().forward(x)


class Mlp(cutk.Model):
    """A multilayer perceptron: linear layers with ReLU between them, for features, or for the pixels of images."""

    name = "mlp"

    class Options(cutk.Options):
        """How wide and how deep it is."""

        width: int = cutk.option(128, ge=1, le=100_000, help="units of each hidden layer")
        depth: int = cutk.option(2, ge=1, le=100, help="hidden layers")

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        o = self.options
        hidden = [
            layer
            for before, after in itertools.pairwise([math.prod(shape), *[o.width] * o.depth])
            for layer in (nn.Linear(before, after), nn.ReLU())
        ]
        return nn.Sequential(Vector(), *hidden, nn.Linear(o.width, num_classes))


class Linear(cutk.Model):
    """Softmax regression: one linear layer on features, or on the pixels of images."""

    name = "linear"

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        return nn.Sequential(Vector(), nn.Linear(math.prod(shape), num_classes))


class Plugin:
    """Provides one of them: each has its own entry point, and an entry point its own plugin."""

    def __init__(self, model: type[cutk.Model]) -> None:
        self.model = model

    @cutk.hookimpl
    def cutk_models(self) -> list[type[cutk.Model]]:
        """Provide this one."""
        return [self.model]


mlp = Plugin(Mlp)
linear = Plugin(Linear)
