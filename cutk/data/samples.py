"""Samples as they lie in memory: labelled, named, split, and measured."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cutk.components import Published
from cutk.errors import UsageError, one_line

__all__ = ["Form", "Images", "Normalisation", "Samples", "Shape", "Splits", "require_labels", "told"]

Shape = tuple[int, ...]
Form = Literal["images", "features", "tokens"]

_FORMS: dict[tuple[torch.dtype, int], Form] = {
    (torch.uint8, 4): "images",
    (torch.float32, 2): "features",
    (torch.int64, 2): "tokens",
}


def told(tensor: Tensor) -> str:
    """Return a tensor's dtype and shape as errors name them: ``int64 [3, 4]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def form_of(x: Tensor) -> Form | None:
    """Return what samples of this dtype and number of dimensions are, if they are any."""
    return _FORMS.get((x.dtype, x.ndim))


def require_labels(labels: Tensor, count: int, classes: int) -> None:
    """Refuse labels that aren't ``count`` class indices below ``classes``.

    Raises:
        ValueError: says what was expected and what came.
    """
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise ValueError(f"Expected labels int64 [{count}], got {told(labels)}.")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"Expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}.")


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples.

    Args:
        x: uint8 ``[N, C, H, W]``, 0 to 255 (images), float32 ``[N, D]`` (features) or int64 ``[N, L]`` (tokens).
        labels: int64 ``[N]``, 0 to ``len(classes) - 1``.
        classes: the classes' names, in the order of their indices.
        ids: int64 ``[N]``, without repeats: each sample's position in the dataset as published, which it keeps in
            every selection; 0 … N − 1 if not given.
        names: each sample's file name, where it has one.
        published: how many samples the dataset has as published, where that is known; ids are below it, but for those
            of samples that were added. N where ``ids`` isn't given.

    Raises:
        ValueError: if a shape, a dtype or a label doesn't fit.
    """

    x: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: Tensor = None  # type: ignore[assignment]  # set below where it isn't given
    names: tuple[str, ...] | None = None
    published: int | None = None

    def __post_init__(self) -> None:
        if form_of(self.x) is None:
            raise ValueError(
                "Expected x as uint8 [N, C, H, W] (images), float32 [N, D] (features) or int64 [N, L] (tokens), "
                f"got {told(self.x)}."
            )
        require_labels(self.labels, len(self.x), len(self.classes))
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(len(self.x)))
            object.__setattr__(self, "published", len(self.x))
        if self.ids.dtype != torch.int64 or self.ids.shape != self.labels.shape:
            raise ValueError(f"Expected ids int64 [{len(self)}], got {told(self.ids)}.")
        if len(torch.unique(self.ids)) != len(self):
            raise ValueError("Expected ids without repeats.")
        if self.names is not None and len(self.names) != len(self):
            raise ValueError(f"Expected {len(self)} names, got {len(self.names)}.")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def form(self) -> Form:
        """What the samples are: images, features or tokens."""
        return _FORMS[self.x.dtype, self.x.ndim]

    @property
    def shape(self) -> Shape:
        """Shape of one sample: channels, height and width of an image."""
        return tuple(self.x.shape[1:])

    @property
    def pixels(self) -> Tensor:
        """What ``x`` was called when all samples were images."""
        warnings.warn("Samples.pixels is called x since cutk 0.2.", DeprecationWarning, stacklevel=2)
        return self.x

    def select(self, indices: Tensor) -> Samples:
        """Return the samples at ``indices`` (int64 ``[n]`` without repeats, or bool ``[N]``), copied."""
        indices = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        names = None if self.names is None else tuple(self.names[i] for i in indices.tolist())
        return Samples(self.x[indices], self.labels[indices], self.classes, self.ids[indices], names, self.published)

    def changed(self, *, x: Tensor | None = None, labels: Tensor | None = None) -> Samples:
        """Return the same samples with other contents or other labels; ids and names stay.

        Raises:
            ValueError: if what is given doesn't fit.
        """
        return replace(self, x=self.x if x is None else x, labels=self.labels if labels is None else labels)

    def extended(self, x: Tensor, labels: Tensor) -> Samples:
        """Return these samples and further ones behind them, which nobody published: their ids are new."""
        first = max(int(self.ids.max()) + 1 if len(self) else 0, self.published or 0)
        ids = torch.cat([self.ids, torch.arange(first, first + len(x))])
        names = None if self.names is None else (*self.names, *(f"added-{i}" for i in range(len(x))))
        both = torch.cat([self.x, x]), torch.cat([self.labels, labels])
        return Samples(*both, self.classes, ids, names, self.published)

    def require(self, form: Form, who: str) -> None:
        """Raise a ``UsageError`` if the samples have another form than ``who``, a component, can take."""
        if self.form != form:
            raise UsageError(
                f"{who} needs {form}, and these samples are {self.form} ({told(self.x)}). Manipulations that change "
                "labels alone fit any samples; see: cutk plugins list"
            )

    def digest(self) -> bytes:
        """Return a SHA-256 over everything that the samples hold."""
        digest = hashlib.sha256(repr((told(self.x), self.classes, self.names)).encode())
        for tensor in (self.x, self.labels, self.ids):
            digest.update(tensor.contiguous().cpu().numpy().data)
        return digest.digest()


def Images(pixels: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Samples:  # noqa: N802  # it was a class
    """Return samples, under the name that they had when all of them were images."""
    return Samples(pixels, labels, classes)


@dataclass(frozen=True)
class Normalisation:
    """What to subtract and divide by: for each channel of pixels scaled to 0 … 1, or each feature; none for tokens."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, samples: Samples) -> Normalisation:
        """Measure ``samples``; a channel or feature without variance gets the standard deviation 1."""
        if samples.form == "tokens":
            return cls((), ())
        if samples.form == "features":
            values = samples.x.double()
            std = values.std(0, correction=0)
            return cls(tuple(values.mean(0).tolist()), tuple((std + (std == 0)).tolist()))
        # Counting the 256 possible values is exact, and needs no float copy of the whole dataset.
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean, deviation = [], []
        for channel in range(samples.shape[0]):
            counts = torch.bincount(samples.x[:, channel].flatten(), minlength=256).double()
            weight = counts / counts.sum()
            centre = float((weight * levels).sum())
            spread = float((weight * (levels - centre) ** 2).sum().sqrt())
            mean.append(centre)
            deviation.append(spread or 1.0)
        return cls(tuple(mean), tuple(deviation))


# Readers of pickles, idx, MATLAB and HDF5 files don't agree on what a damaged one raises.
_MALFORMED = (
    *(AssertionError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.PickleError, struct.error, zlib.error),
)


def _unreadable(expected: Path) -> Path | None:
    """Return the first on the way to ``expected``, or within it, that is there and may not be read."""
    effective = os.access in os.supports_effective_ids
    listed = os.path.isdir(expected) and os.access(expected, os.R_OK | os.X_OK, effective_ids=effective)
    inside = sorted(expected.iterdir()) if listed else []
    for path in (*reversed(expected.parents), expected, *inside):
        needed = os.X_OK if os.path.isdir(path) else os.R_OK
        if os.path.exists(path) and not os.access(path, needed, effective_ids=effective):
            return path
    return None


@dataclass(frozen=True, eq=False)
class Splits:
    """What a dataset provides.

    Args:
        train: the training pool, clean.
        test: unseen samples, used to measure and never to choose.
        validation: held-out samples, if the dataset brings its own; otherwise cutk holds some out of ``train``.
        normalisation: measured on ``train`` if not given.
    """

    train: Samples
    test: Samples
    validation: Samples | None = None
    normalisation: Normalisation | None = None

    @classmethod
    def of(cls, samples: Samples, test_fraction: float, seed: int) -> Splits:
        """Split ``samples`` at random into those to train on and those to test on, each class by itself.

        Of ``n`` samples of a class, ``round(test_fraction · n)`` are for testing: at least one, and never all of them.
        Both parts keep the order of ``samples``.

        Args:
            samples: what to split.
            test_fraction: in (0, 1).
            seed: equal seeds give equal splits.

        Raises:
            UsageError: if a class has fewer than two samples.
        """
        generator = torch.Generator().manual_seed(seed)
        testing = torch.zeros(len(samples), dtype=torch.bool)
        for label, name in enumerate(samples.classes):
            members = (samples.labels == label).nonzero().flatten()
            if len(members) < 2:
                raise UsageError(
                    f"Class '{name}': expected at least 2 samples, one to train on and one to test on, "
                    f"got {len(members)}."
                )
            count = min(max(round(test_fraction * len(members)), 1), len(members) - 1)
            testing[members[torch.randperm(len(members), generator=generator)[:count]]] = True
        return cls(
            train=samples.select((~testing).nonzero().flatten()),
            test=samples.select(testing.nonzero().flatten()),
        )

    @classmethod
    def blank(cls, published: Published) -> Splits:
        """Return samples without content, as many as a dataset was published with: enough to tell what a run costs.

        Labels go round the classes.
        """

        def part(count: int) -> Samples:
            images = len(published.shape) == 3
            x = torch.zeros(count, *published.shape, dtype=torch.uint8 if images else torch.float32)
            return Samples(x, torch.arange(count) % len(published.classes), published.classes)

        validation = part(published.validation) if published.validation else None
        return cls(part(published.train), part(published.test), validation)

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
            UsageError: in place of the errors that missing, unreadable, damaged and malformed files, and failed
                downloads, raise.
        """
        try:
            yield
        except _MALFORMED as error:
            if barred := _unreadable(expected):
                raise UsageError(
                    f"{title} cannot be read: permission to read '{barred}' is denied. "
                    "Change that, or give another folder with --data-root DIR."
                ) from error
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
        """Return a SHA-256 over every sample, label, id, class name and constant: equal data, equal fingerprint."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.normalisation).encode())
        for part in (self.train, self.test, self.validation):
            digest.update(b"none" if part is None else part.digest())
        return digest.hexdigest()
