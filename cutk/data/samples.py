"""Samples as they lie in memory: labelled, named, split, and measured."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cutk.components import Published
from cutk.errors import UsageError, one_line

__all__ = ["Form", "Images", "Normalisation", "Samples", "Shape", "Splits", "raw", "require_labels", "told"]

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


def raw(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes, for a hash."""
    return tensor.detach().contiguous().cpu().numpy().data


def form_of(x: Tensor) -> Form | None:
    """Return what samples of this dtype and number of dimensions are, if they are any."""
    return _FORMS.get((x.dtype, x.ndim))


def require_labels(labels: Tensor, count: int, classes: int) -> None:
    """Raise a ``ValueError`` unless ``labels`` are ``count`` class indices below ``classes``."""
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise ValueError(f"Expected labels int64 [{count}], got {told(labels)}.")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"Expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}.")


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples; a ``ValueError`` refuses those whose shapes, dtypes or labels don't fit.

    An id is a sample's position in the dataset as published, which it keeps in every selection.
    """

    x: Tensor  # uint8 [N, C, H, W], 0 to 255 (images), float32 [N, D] (features) or int64 [N, L] (tokens)
    labels: Tensor  # int64 [N], 0 to the number of classes − 1
    classes: tuple[str, ...]  # the classes' names, in the order of their indices
    ids: Tensor = None  # type: ignore[assignment]  # int64 [N], without repeats; 0 … N − 1 if not given
    names: tuple[str, ...] | None = None  # each sample's file name, where it has one
    published: int | None = None  # how many samples the dataset has, where that is known; N where ids aren't given

    def __post_init__(self) -> None:
        self._require_fitting()
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(len(self.x)))
            object.__setattr__(self, "published", len(self.x))
        if len(torch.unique(self.ids)) != len(self):
            raise ValueError("Expected ids without repeats.")
        if self.names is not None and len(self.names) != len(self):
            raise ValueError(f"Expected {len(self)} names, got {len(self.names)}.")

    def _require_fitting(self) -> None:
        if form_of(self.x) is None:
            raise ValueError(
                "Expected x as uint8 [N, C, H, W] (images), float32 [N, D] (features) or int64 [N, L] (tokens), "
                f"got {told(self.x)}."
            )
        require_labels(self.labels, len(self.x), len(self.classes))
        if self.ids is not None and (self.ids.dtype != torch.int64 or self.ids.shape != self.labels.shape):
            raise ValueError(f"Expected ids int64 [{len(self)}], got {told(self.ids)}.")

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
        """Return the same samples with other contents or labels; ids and names stay."""
        other = copy.copy(self)
        vars(other).update({name: new for name, new in (("x", x), ("labels", labels)) if new is not None})
        other._require_fitting()  # that ids don't repeat is known, and takes the longest
        return other

    def extended(self, x: Tensor, labels: Tensor) -> Samples:
        """Return these samples and further ones behind them, which nobody published: their ids are new."""
        first = max(int(self.ids.max()) + 1 if len(self) else 0, self.published or 0)
        return replace(
            self,
            x=torch.cat([self.x, x]),
            labels=torch.cat([self.labels, labels]),
            ids=torch.cat([self.ids, torch.arange(first, first + len(x))]),
            names=None if self.names is None else (*self.names, *(f"added-{i}" for i in range(len(x)))),
        )

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
            digest.update(raw(tensor))
        return digest.digest()


def Images(pixels: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Samples:  # noqa: N802  # it was a class
    """Return samples, under the name that they had when all of them were images."""
    return Samples(pixels, labels, classes)


@dataclass(frozen=True)
class Normalisation:
    """What to subtract and divide by: for each channel of pixels scaled to 0 … 1, or each feature; none for tokens."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def reversed(self) -> Normalisation:
        """Return it for images whose channels come the other way round."""
        return Normalisation(self.mean[::-1], self.std[::-1])

    @classmethod
    def of(cls, samples: Samples) -> Normalisation:
        """Measure ``samples``; a channel or feature without variance gets the standard deviation 1."""
        if samples.form == "tokens":
            return cls((), ())
        if samples.form == "features":
            values = samples.x.double()
            mean, std = values.mean(0), values.std(0, correction=0)
        else:
            # Counting the 256 possible values is exact, and needs no float copy of the whole dataset.
            levels = torch.arange(256, dtype=torch.float64) / 255
            channels = [torch.bincount(channel.flatten(), minlength=256) for channel in samples.x.unbind(1)]
            weights = torch.stack(channels).double() / channels[0].sum()
            mean = (weights * levels).sum(1)
            std = (weights * (levels - mean[:, None]) ** 2).sum(1).sqrt()
        return cls(tuple(mean.tolist()), tuple((std + (std == 0)).tolist()))


# Readers of pickles, idx, MATLAB and HDF5 files don't agree on what a damaged one raises.
_MALFORMED = (
    *(AssertionError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.PickleError, struct.error, zlib.error),
)


def _remove_empty(folder: Path) -> None:
    """Remove what is empty of a tree of folders."""
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # there is something in it
            os.rmdir(place)


def _unreadable(expected: Path) -> Path | None:
    """Return the first on the way to ``expected``, or within it, that is there and may not be read."""
    # As who runs this, which needn't be who started it.
    allowed = partial(os.access, effective_ids=os.access in os.supports_effective_ids)
    listed = os.path.isdir(expected) and allowed(expected, os.R_OK | os.X_OK)
    inside = sorted(expected.iterdir()) if listed else []
    for path in (*reversed(expected.parents), expected, *inside):
        needed = os.X_OK if os.path.isdir(path) else os.R_OK
        if os.path.exists(path) and not allowed(path, needed):
            return path
    return None


@dataclass(frozen=True, eq=False)
class Splits:
    """What a dataset provides."""

    train: Samples  # the training pool, clean
    test: Samples  # unseen samples, used to measure and never to choose
    validation: Samples | None = None  # held out, if the dataset brings its own; otherwise cutk holds some out of train
    normalisation: Normalisation | None = None  # measured on train if not given

    @cached_property
    def scale(self) -> Normalisation:
        """``normalisation``, or what is measured on train."""
        return self.normalisation or Normalisation.of(self.train)

    @classmethod
    def of(cls, samples: Samples, test_fraction: float, seed: int) -> Splits:
        """Split ``samples`` at random into those to train on and those to test on, in their order.

        Of ``n`` samples of a class, ``round(test_fraction · n)`` are for testing: at least one, and never all of them,
        so a ``UsageError`` refuses a class of fewer than two.
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
        return cls(train=samples.select(~testing), test=samples.select(testing))

    @classmethod
    def blank(cls, published: Published) -> Splits:
        """Return samples without content, as many as a dataset was published with: enough to tell what a run costs."""

        def part(count: int) -> Samples:
            images = len(published.shape) == 3
            x = torch.zeros(count, *published.shape, dtype=torch.uint8 if images else torch.float32)
            return Samples(x, torch.arange(count) % len(published.classes), published.classes)

        validation = part(published.validation) if published.validation else None
        return cls(part(published.train), part(published.test), validation)

    @staticmethod
    @contextlib.contextmanager
    def reading(title: str, root: Path, expected: Path, download: bool = False) -> Iterator[None]:
        """Turn what goes wrong in the block into a ``UsageError`` that says how to get a dataset's files.

        For the ``load()`` of a dataset with the options ``root`` and ``download``, around whatever opens the files.

        Args:
            title: the dataset's name, as people write it.
            root: the folder that ``--data-root`` sets.
            expected: the file or folder that should be there.
            download: whether the files may be fetched.
        """
        missing = [
            place for place in (expected, *expected.parents) if not os.path.exists(place)
        ]  # quiet where none may look
        try:
            yield
        except _MALFORMED as error:
            for place in missing[-1:]:
                _remove_empty(place)  # what was made for files that never came
            if barred := _unreadable(expected):
                advice = (
                    f"cannot be read: permission to read '{barred}' is denied. "
                    "Change that, or give another folder with --data-root DIR."
                )
            elif download:
                advice = (
                    f"cannot be fetched into '{root}', or its files there are damaged ({one_line(error)}). "
                    "Get it another way, and give --data-root DIR."
                )
            else:
                advice = (
                    f"is not in '{root}', or its files are damaged: expected '{expected}'. "
                    "Give its folder with --data-root DIR, or let it be fetched with --download."
                )
            raise UsageError(f"{title} {advice}") from error

    def fingerprint(self) -> str:
        """Return a SHA-256 over every sample, label, id, class name and constant: equal data, equal fingerprint."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.normalisation).encode())
        for part in (self.train, self.test, self.validation):
            digest.update(b"none" if part is None else part.digest())
        return digest.hexdigest()
