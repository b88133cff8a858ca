"""Images as they lie in memory: labelled, split, and measured."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cutk.errors import UsageError, one_line

__all__ = ["Images", "Normalisation", "Shape", "Splits"]

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Args:
        pixels: uint8 ``[N, C, H, W]``, 0 to 255.
        labels: int64 ``[N]``, 0 to ``len(classes) - 1``.
        classes: the classes' names, in the order of their indices.

    Raises:
        ValueError: if a shape, a dtype or a label doesn't fit.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise ValueError(f"Expected pixels uint8 [N, C, H, W], got {self.pixels.dtype} {list(self.pixels.shape)}.")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(
                f"Expected labels int64 [{len(self.pixels)}], got {self.labels.dtype} {list(self.labels.shape)}."
            )
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"Expected labels from 0 to {len(self.classes) - 1}, got one outside.")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def select(self, indices: Tensor) -> Images:
        """Return the images at ``indices`` (int64 ``[n]``), copied."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixel values scaled to 0 … 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Images) -> Normalisation:
        """Measure ``images``; a channel without variance gets the standard deviation 1."""
        # Counting the 256 possible values is exact, and needs no float copy of the whole dataset.
        values = torch.arange(256, dtype=torch.float64) / 255
        mean, std = [], []
        for channel in range(images.shape[0]):
            counts = torch.bincount(images.pixels[:, channel].flatten(), minlength=256).double()
            weight = counts / counts.sum()
            centre = float((weight * values).sum())
            spread = float((weight * (values - centre) ** 2).sum().sqrt())
            mean.append(centre)
            std.append(spread or 1.0)
        return cls(tuple(mean), tuple(std))


@dataclass(frozen=True, eq=False)
class Splits:
    """What a dataset provides.

    Args:
        train: the training pool, clean.
        test: unseen samples, used to measure and never to choose.
        validation: held-out samples, if the dataset brings its own; otherwise cutk holds some out of ``train``.
        normalisation: measured on ``train`` if not given.
    """

    train: Images
    test: Images
    validation: Images | None = None
    normalisation: Normalisation | None = None

    @classmethod
    def of(cls, images: Images, test_fraction: float, seed: int) -> Splits:
        """Split ``images`` at random into training and test images, each class by itself.

        Of ``n`` images of a class, ``round(test_fraction · n)`` are for testing: at least one, and never all of them.
        Both parts keep the order of ``images``.

        Args:
            images: what to split.
            test_fraction: in (0, 1).
            seed: equal seeds give equal splits.

        Raises:
            UsageError: if a class has fewer than two images.
        """
        generator = torch.Generator().manual_seed(seed)
        testing = torch.zeros(len(images), dtype=torch.bool)
        for label, name in enumerate(images.classes):
            members = (images.labels == label).nonzero().flatten()
            if len(members) < 2:
                raise UsageError(
                    f"Class '{name}': expected at least 2 images, one to train on and one to test on, "
                    f"got {len(members)}."
                )
            count = min(max(round(test_fraction * len(members)), 1), len(members) - 1)
            testing[members[torch.randperm(len(members), generator=generator)[:count]]] = True
        return cls(
            train=images.select((~testing).nonzero().flatten()),
            test=images.select(testing.nonzero().flatten()),
        )

    @staticmethod
    @contextlib.contextmanager
    def reading(title: str, root: Path, expected: Path, download: bool = False) -> Iterator[None]:
        """Turn what goes wrong while a published dataset is read into words that say how to get its files.

        For the ``load()`` of a dataset with the options ``root`` and ``download``: ``with Splits.reading(…):`` around
        whatever opens or fetches the files.

        Args:
            title: the dataset's name, as people write it.
            root: the folder that ``--data-root`` sets.
            expected: the file or folder that should be there.
            download: whether the files may be fetched.

        Raises:
            UsageError: in place of the errors that missing, damaged and malformed files, and failed downloads, raise.
        """
        try:
            yield
        # Readers of pickles, idx, MATLAB and HDF5 files don't agree on what a damaged one raises.
        except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            if download:
                raise UsageError(
                    f"{title} cannot be fetched into '{root}', or its files there are damaged ({one_line(error)}). "
                    "Get it another way, and give --data-root DIR."
                ) from error
            raise UsageError(
                f"{title} is not in '{root}', or its files are damaged: expected '{expected}'. "
                "Give its folder with --data-root DIR, or let it be fetched with --download."
            ) from error

    def fingerprint(self) -> str:
        """Return a SHA-256 over every pixel, label, class name and constant: equal data, equal fingerprint."""
        digest = hashlib.sha256(repr((self.normalisation, self.train.classes)).encode())
        for part in (self.train, self.test, self.validation):
            if part is not None:
                digest.update(repr(tuple(part.pixels.shape)).encode())
                digest.update(part.pixels.contiguous().numpy().data)
                digest.update(part.labels.contiguous().numpy().data)
        return digest.hexdigest()
