"""Wide residual networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

import cutk


def conv3x3(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a convolution 3×3 that keeps the size at stride 1 and halves it at stride 2."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def normalised(channels: int) -> nn.Sequential:
    """Return batch norm and ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """A basic pre-activation block, B(3, 3), with dropout between its convolutions (the paper's figure 1d).

    Where the number of channels changes, the shortcut is a convolution 1×1 of what the first one sees as well.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.before = normalised(channels_in)
        # Registered ahead of the residual, so that the last layers are those nearest to the output.
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        self.residual = nn.Sequential(
            conv3x3(channels_in, channels_out, stride),
            normalised(channels_out),
            nn.Dropout(dropout),
            conv3x3(channels_out, channels_out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, channels_in, H, W]`` to ``[B, channels_out, ⌈H / stride⌉, ⌈W / stride⌉]``."""
        active = self.before(x)
        return self.residual(active) + (x if self.shortcut is None else self.shortcut(active))


class AuthorsBlock(nn.Module):
    """The block of Goel et al.'s code.

    Its second convolution has the stride, and all convolutions have biases. Where the number of channels changes, the
    shortcut is a convolution 1×1 of the block's raw input, with a batch norm of its own after it.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.before = normalised(channels_in)
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))
        self.residual = nn.Sequential(
            conv3x3(channels_in, channels_out, bias=True),
            normalised(channels_out),
            nn.Dropout(dropout),
            conv3x3(channels_out, channels_out, stride, bias=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, channels_in, H, W]`` to ``[B, channels_out, ⌈H / stride⌉, ⌈W / stride⌉]``."""
        return self.residual(self.before(x)) + (x if self.shortcut is None else self.shortcut(x))


def groups(
    block: Callable[[int, int, int, float], nn.Module], widths: tuple[int, int, int], blocks: int, dropout: float
) -> list[nn.Sequential]:
    """Return three groups of ``blocks`` blocks: the first block of a group changes channels and, but once, size."""
    result, channels_in = [], 16
    for width, stride in zip(widths, (1, 2, 2), strict=True):
        first = block(channels_in, width, stride, dropout)
        result.append(nn.Sequential(first, *(block(width, width, 1, dropout) for _ in range(blocks - 1))))
        channels_in = width
    return result


def initialise(network: nn.Module, hes: bool) -> nn.Module:
    """Draw weights as He et al. (ICCV 2015, equation 10) do, or leave them as PyTorch draws them; zero the biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if hes:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


class WideResNet(cutk.Model):
    """Few, wide residual blocks: 28 layers of 10 times a thin network's channels (WRN-28-10), for images of any size.

    A convolution, three groups of ``(depth − 4) / 6`` blocks with 16, 32 and 64 times ``width`` channels, the second
    and third at half the size of the one before, global average pooling and a linear layer (the paper's table 1).

    The figures that Goel et al. (TMLR 2024) publish for CIFAR-100 and PCam are another network's, which their code
    calls by the same name; ``variant=authors`` is that one. It differs from Zagoruyko & Komodakis's in this:

    - no batch norm and ReLU between the last block and the pooling;
    - a block that halves the size does so in its second convolution, not in its first;
    - a shortcut with weights sees the block's input as it is, not normalised and activated, and has a batch norm of
      its own at its end;
    - every convolution has a bias;
    - weights are drawn as PyTorch draws them by default (uniform within ±1/√fan-in), not as He et al. do; biases are
      zero.

    At depth 28, width 10 and 100 classes it has 36,547,940 parameters, Zagoruyko & Komodakis's 36,536,884.
    """

    name = "wide-resnet"
    reference = "Zagoruyko & Komodakis, Wide Residual Networks, BMVC 2016; Goel et al., TMLR 2024 (the variant)"

    class Options(cutk.Options):
        """How deep and how wide it is."""

        depth: int = cutk.option(28, ge=10, help="convolutions, the three of shortcuts included: 6n + 4")
        width: int = cutk.option(10, ge=1, help="factor on the thin network's channel counts 16, 32 and 64")
        dropout: float = cutk.option(0.0, ge=0, lt=1, help="dropout probability between a block's convolutions")
        variant: Literal["zagoruyko", "authors"] = cutk.option(
            "zagoruyko", help="the network of the paper that introduced it, or of the benchmark's authors' code"
        )

    def build(self, shape: cutk.Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        channels, _, _ = self.require_images(shape)
        o = self.options
        blocks, rest = divmod(o.depth - 4, 6)
        if rest:
            raise cutk.UsageError(
                f"Option 'wide-resnet.depth': expected 6n + 4, such as 16, 22, 28 or 40, got {o.depth}."
            )
        authors = o.variant == "authors"
        w16, w32, w64 = (count * o.width for count in (16, 32, 64))
        return initialise(
            nn.Sequential(
                conv3x3(channels, 16, bias=authors),
                *groups(AuthorsBlock if authors else Block, (w16, w32, w64), blocks, o.dropout),
                *([] if authors else [normalised(w64)]),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(w64, num_classes),
            ),
            hes=not authors,
        )


@cutk.hookimpl
def cutk_models() -> list[type[cutk.Model]]:
    """Provide ``wide-resnet``."""
    return [WideResNet]
