"""The network of the airbench papers: small, and made to be trained in a few passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import cutk

# A side of 9 becomes 8 by the whitening, then 4, 2 and 1 by the poolings.
SMALLEST = 9


def whitening_filters(x: Tensor, eps: float = 5e-4) -> Tensor:
    """Return 2×2 filters that decorrelate the patches of ``x`` and scale them to variance 1, and their negatives.

    With the patches' second moments ``Σ = V diag(λ) Vᵀ``, filter i is ``vᵢ / √(λᵢ + eps)``, the largest λ first.

    Args:
        x: float32 ``[n, C, H, W]``.
        eps: keeps directions in which nothing varies from being blown up.

    Returns:
        float32 ``[8 · C, C, 2, 2]``.
    """
    channels = x.shape[1]
    patches = x.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * channels).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values.clamp(min=0) + eps)).T.flip(0).reshape(-1, channels, 2, 2).float()
    return torch.cat([filters, -filters])


class Whitening(nn.Module):
    """A 2×2 convolution with fixed filters and a trained bias."""

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer(
            "weight", nn.init.orthogonal_(torch.empty(8 * channels, 4 * channels)).view(-1, channels, 2, 2)
        )
        self.bias = nn.Parameter(torch.zeros(8 * channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, 8 · C, H − 1, W − 1]``."""
        return functional.conv2d(x, self.weight, self.bias)


class Norm(nn.BatchNorm2d):
    """Batch norm with a bias and without a scale, its statistics following quickly."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        mean, var, scale = self.running_mean, self.running_var, torch.ones_like(self.bias)  # CUDA wants one
        return functional.batch_norm(x, mean, var, scale, self.bias, self.training, self.momentum or 0.0, self.eps)


def convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Return a 3×3 convolution whose first filters pass its input on."""
    made = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.dirac_(made.weight.data[:channels_in])
    return made


def group(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two convolutions with norm and GELU, max-pooling after the first."""
    return nn.Sequential(
        convolution(channels_in, channels_out),
        nn.MaxPool2d(2),
        Norm(channels_out),
        nn.GELU(),
        convolution(channels_out, channels_out),
        Norm(channels_out),
        nn.GELU(),
    )


class Network(nn.Sequential):
    """Layers one behind the other, of which the first is fitted to samples."""

    def initialise(self, x: Tensor) -> None:
        """Fit the whitening to training samples, float32 ``[n, C, H, W]``."""
        self[0].weight.copy_(whitening_filters(x))


class CifarNet(cutk.Model):
    """Fixed whitening, six convolutions and a linear layer; with the recipe ``fast`` it learns in a few passes."""

    name = "cifarnet"
    reference = "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv 2404.00498"

    class Options(cutk.Options):
        """How wide it is."""

        width: float = cutk.option(0.5, gt=0, help="factor on the channel counts 64, 256 and 256")

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        channels, height, width = self.require_images(shape)
        if min(height, width) < SMALLEST:
            raise cutk.UsageError(
                f"cifarnet needs images of at least {SMALLEST}×{SMALLEST} pixels, got {height}×{width}."
            )
        first, second, third = (max(1, round(count * self.options.width)) for count in (64, 256, 256))
        head = nn.Linear(third, num_classes, bias=False)
        # The same as weights of variance 1 whose product is divided by the width, and trained at a rate that doesn't
        # depend on what is behind it.
        nn.init.normal_(head.weight, std=1 / third)
        return Network(
            Whitening(channels),
            nn.GELU(),
            group(8 * channels, first),
            group(first, second),
            group(second, third),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            head,
        )


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``cifarnet``."""
    return [CifarNet]
