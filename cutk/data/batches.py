"""Images as they reach a model: in batches, augmented, stamped and normalised on the device."""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cutk.data.samples import Images, Normalisation, Shape
from cutk.data.sealed import Sealed, unseal
from cutk.machine import choose_layout

__all__ = ["Augmentation", "Batch", "ResidentTrainSet", "Stamp", "TrainSet"]


@dataclass(frozen=True, eq=False)
class Stamp:
    """A pattern laid over an image; opacity 1 replaces the pixel, a value between 0 and 1 blends.

    Args:
        pattern: uint8 ``[C, H, W]``.
        opacity: float32 ``[H, W]``, 0 to 1.
    """

    pattern: Tensor
    opacity: Tensor

    def apply(self, pixels: Tensor) -> Tensor:
        """Return ``pixels`` (uint8 ``[B, C, H, W]``) with the pattern laid over each image."""
        opacity = self.opacity.to(pixels.device)
        pattern = self.pattern.to(pixels.device)
        blended = pixels.float() * (1 - opacity) + pattern.float() * opacity
        return blended.round().to(torch.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, and random horizontal flip.

    Args:
        padding: black pixels added on each side before the crop back to the original size; 0 means no crop.
        flip: whether half of the images are mirrored.
    """

    padding: int = 0
    flip: bool = False

    def apply(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch (uint8 ``[B, C, H, W]``) with draws from ``generator``, a CPU generator.

        The draws are made on the CPU, so that one seed gives one result on every device.
        """
        count, _, height, width = pixels.shape
        device, pad = pixels.device, self.padding
        shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
        mirrored = torch.rand(count, 1, generator=generator) < (0.5 if self.flip else 0.0)
        rows = shift[0] + torch.arange(height)
        columns = shift[1] + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
        padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        which = torch.arange(count, device=device)[:, None, None]
        crop = padded[which, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
        return crop.permute(0, 3, 1, 2)


class Batch(NamedTuple):
    """One batch on the device.

    Attributes:
        x: float32 ``[B, C, H, W]``, normalised, in the memory layout that suits the device.
        y: int64 ``[B]``, the given labels.
        index: int64 ``[B]``, positions in the training set.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs on a batch


class TrainSet(ABC):
    """Labelled samples as a developer holds them: their number, their given labels, and batches of them.

    Attributes:
        labels: int64 ``[N]``, as given.
        num_classes: how many classes there are.
        generator: where shuffling and augmentation draw from by default.
        drawn: how many samples have come out of ``batches`` so far: what a method costs, counted.
    """

    labels: Tensor
    num_classes: int
    generator: torch.Generator
    drawn: int = 0

    @property
    def intact(self) -> bool:
        """Whether the samples are what they were; a set that shares memory with others says no once it is changed."""
        return True

    @property
    @abstractmethod
    def augments(self) -> bool:
        """Whether ``augment=True`` changes anything: if not, a sample is the same at every visit."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Channels, height and width of one sample."""

    @abstractmethod
    def drawing_from(self, generator: torch.Generator) -> TrainSet:
        """Return the same set with another default generator, labels of its own, and nothing drawn yet."""

    @abstractmethod
    def _load(self, indices: Tensor, augment: bool, generator: torch.Generator) -> Tensor:
        """Return the normalised samples at ``indices`` on the device, float32 ``[B, C, H, W]``."""

    def batches(
        self,
        indices: Tensor | None = None,
        batch_size: int | None = None,
        *,
        shuffle: bool = False,
        augment: bool = False,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of the samples at ``indices``.

        Args:
            indices: int64 ``[n]``; all samples if not given.
            batch_size: samples per batch; if not given, as many as are evaluated comfortably at once.
            shuffle: draw a new order for every pass.
            augment: apply the recipe's augmentation; each visit of a sample draws anew.
            steps: if given, yield exactly so many batches, going through the samples as often as that takes.
                All of them are full: a batch may span the end of one pass and the start of the next, and a set
                smaller than ``batch_size`` is yielded whole. Without ``steps``: one pass, the last batch may
                be smaller.
            generator: where the draws come from (on the CPU); the set's own, seeded by cutk, if not given.

        Raises:
            ValueError: if there is no sample to yield, or ``batch_size`` or ``steps`` is below 1.
        """
        chosen = torch.arange(len(self)) if indices is None else indices.cpu()
        size = self.evaluation_batch_size if batch_size is None else batch_size
        if size < 1 or (steps is not None and steps < 1):
            raise ValueError(f"Expected batch_size and steps of at least 1, got {size} and {steps}.")
        if len(chosen) == 0:
            raise ValueError("Expected at least one sample to make batches of, got none.")
        draws = self.generator if generator is None else generator
        if steps is None:
            order = chosen[torch.randperm(len(chosen), generator=draws)] if shuffle else chosen
            parts: Iterator[Tensor] = iter(torch.split(order, size))
        else:
            parts = itertools.islice(_endless(chosen, min(size, len(chosen)), shuffle, draws), steps)
        for part in parts:
            x = self._load(part, augment, draws)
            self.drawn += len(part)
            yield Batch(x, self.labels[part].to(x.device), part.to(x.device))

    @property
    def evaluation_batch_size(self) -> int:
        """Samples per batch where no gradients are kept: more for small images, bounded by memory."""
        _, height, width = self.shape
        return max(64, min(4096, 2**20 // (height * width)))


def _endless(indices: Tensor, size: int, shuffle: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield full batches of indices for ever, pass after pass."""
    rest = indices[:0]
    while True:
        order = indices[torch.randperm(len(indices), generator=generator)] if shuffle else indices
        rest = torch.cat([rest, order])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]


class _Overlay(NamedTuple):
    """What is laid over which samples, and how these look without it."""

    stamp: Stamp
    position: Tensor  # int64 [N] on the device: where in bare a stamped sample is, -1 for the others
    bare: Tensor  # uint8 [n, C, H, W] on the device


class ResidentTrainSet(TrainSet):
    """Samples that lie on the device as uint8: the fast way, for whatever fits.

    What can be reached from it are the samples as a developer has them, stamped ones with their stamp.

    Args:
        images: the samples with their given labels.
        normalisation: what to subtract and divide by.
        augmentation: what ``augment=True`` applies.
        device: where the samples lie and the batches come out.
        stamp: laid over the ``stamped`` samples whenever they are read, after augmentation. Sealed: it can't be
            reached from the set.
        stamped: int64 ``[n]``, the samples that carry ``stamp``. Sealed like it.
        generator: where shuffling and augmentation draw from by default.
    """

    def __init__(
        self,
        images: Images,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
        *,
        device: torch.device | str = "cpu",
        stamp: Stamp | None = None,
        stamped: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.labels = images.labels
        self.num_classes = len(images.classes)
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.device = torch.device(device)
        self.augmentation = augmentation or Augmentation()
        pixels = images.pixels.to(self.device)
        self._shape = images.shape
        self._layout = choose_layout(self.device)
        scale = torch.tensor(normalisation.std, device=self.device).view(-1, 1, 1) * 255
        self._scale = scale
        self._offset = torch.tensor(normalisation.mean, device=self.device).view(-1, 1, 1) * 255 / scale
        self._overlay: Sealed[_Overlay] | None = None
        if stamp is not None and stamped is not None:
            where = stamped.to(self.device)
            position = torch.full((len(images),), -1, device=self.device)
            position[where] = torch.arange(len(where), device=self.device)
            bare = pixels[where]
            pixels = pixels.clone()
            pixels[where] = stamp.apply(bare)
            self._overlay = Sealed(_Overlay(stamp, position, bare))
        self._pixels = pixels
        self._written = pixels._version

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of one sample."""
        return self._shape

    @property
    def augments(self) -> bool:
        """Whether ``augment=True`` changes anything."""
        return self.augmentation != Augmentation()

    def drawing_from(self, generator: torch.Generator) -> ResidentTrainSet:
        """Return the same set with another default generator: its labels are a copy, its pixels are shared."""
        other = copy.copy(self)
        other.generator = generator
        other.labels = self.labels.clone()
        other.drawn = 0
        return other

    @property
    def intact(self) -> bool:
        """Whether the pixels are what they were: nobody has written to them."""
        return self._pixels._version == self._written

    def _load(self, indices: Tensor, augment: bool, generator: torch.Generator) -> Tensor:
        indices = indices.to(self.device)
        pixels = self._pixels[indices]
        if augment and self.augments:
            pixels = self._augmented(pixels, indices, generator)
        x = pixels.float().div_(self._scale).sub_(self._offset)
        return x.contiguous(memory_format=self._layout)

    def _augmented(self, pixels: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch; what is stamped is augmented without its stamp, and stamped anew."""
        if self._overlay is None:
            return self.augmentation.apply(pixels, generator)
        overlay = unseal(self._overlay)
        position = overlay.position[indices]
        stamped = position >= 0
        pixels[stamped] = overlay.bare[position[stamped]]
        pixels = self.augmentation.apply(pixels, generator)
        pixels[stamped] = overlay.stamp.apply(pixels[stamped])
        return pixels
