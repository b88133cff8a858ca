"""Samples that never lie in memory all at once: read by workers when they are due."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from cutk.data.batches import Augmentation, TrainSet
from cutk.data.images import ImageFiles, beyond_8_bits
from cutk.data.samples import Normalisation, Shape, form_of, require_labels, told
from cutk.errors import UsageError, one_line

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

__all__ = ["StreamedTrainSet"]

# How many samples are read twice when a set is made, to see that they stay the same.
LOOKED_AT = 4

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Reader:
    """What a worker is given: the dataset, and what is made of its samples."""

    dataset: SupportsLenAndGetItem[Any]
    size: tuple[int, int] | None
    expected: tuple[torch.dtype, Shape] | None = None

    def sample(self, index: int) -> Tensor:
        """Return one sample as a tensor; a ``ValueError`` says that it has no form."""
        item = self.dataset[index]
        value = item[0] if isinstance(item, tuple | list) else item
        if isinstance(value, Image.Image):
            if wrong := beyond_8_bits(value):
                raise ValueError(wrong)
            pixels = np.array(value.convert("L" if value.mode in ("1", "L") else "RGB"))
            value = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)
        x = torch.as_tensor(value)
        form = form_of(x[None])
        if form is None:
            hint = ": leave out ToTensor and Normalize, cutk does their work on the device"
            raise ValueError(
                "expected an image (uint8 [C, H, W]), features (float32 [D]) or tokens (int64 [L]), "
                f"got {told(x)}{hint if x.ndim == 3 and x.is_floating_point() else ''}"
            )
        if form == "images" and self.size is not None and x.shape[1:] != self.size:
            x = torch.nn.functional.interpolate(x[None], self.size, mode="bilinear", antialias=True)[0]
        return x

    def require(self, index: int, x: Tensor, kind: tuple[torch.dtype, Shape]) -> None:
        """Raise a ``UsageError`` unless a sample has the dtype and the shape of the first."""
        if (x.dtype, tuple(x.shape)) != kind:
            scaled = self.size is None and x.ndim == 3 and x.dtype == torch.uint8
            hint = ". Give a size (--size) to scale all images to one" if scaled else ""
            expected = f"expected the shape {list(kind[1])} of the first sample"
            raise UsageError(f"{self.named(index)}: {expected}, got {told(x)}{hint}.")

    def named(self, index: int) -> str:
        """Return what a sample is called."""
        file = f" ('{self.dataset.files[index]}')" if isinstance(self.dataset, ImageFiles) else ""
        return f"Sample {index}{file}"

    def __getitem__(self, indices: Array) -> Array | str:
        """Return a batch, or why it can't be read: what a worker raises arrives with a page of traceback."""
        read: list[Tensor] = []
        for index in indices.tolist():
            try:
                x = self.sample(index)
                first = read[0] if read else x
                self.require(index, x, self.expected or (first.dtype, tuple(first.shape)))
                read.append(x)
            except UsageError as error:  # which says what it is about
                return one_line(error)
            except Exception as error:  # whatever the dataset's own code raises
                return f"{self.named(index)} can't be read: {one_line(error).removesuffix('.')}."
        # As an array it goes through a pipe: a tensor goes through shared memory, of which containers have little.
        return torch.stack(read).numpy()


def _as_is(batch: Any) -> Any:
    return batch


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch from warning of more workers than processors: who asked for them knows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


class _Source:
    """A dataset's samples by their indices; copies of a set share it, and with it the workers."""

    def __init__(self, reader: _Reader, num_workers: int) -> None:
        self._reader, self._num_workers = reader, num_workers
        self._idle: list[DataLoader[Any]] = []

    def _loader(self) -> DataLoader[Any]:
        """Return a loader whose workers stay, from one pass to the next."""
        if self._idle:
            return self._idle.pop()
        return DataLoader(
            self._reader,  # type: ignore[arg-type]  # batches are its items
            batch_size=None,
            sampler=[],  # filled with the indices of the batches to be read
            collate_fn=_as_is,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            # Its own, for else a loader draws the workers' seeds from torch's global state.
            generator=torch.Generator().manual_seed(0),
        )

    def read(self, passes: Iterator[list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the indices and the samples of each batch, reading ahead as far as a pass goes."""
        with _quietly():
            loader = self._loader()
        batches: Iterator[Any] = iter(())
        try:
            for parts in passes:
                loader.sampler[:] = [part.numpy() for part in parts]  # type: ignore[index]
                with _quietly():
                    batches = iter(loader)
                for part in parts:
                    read = next(batches)
                    if isinstance(read, str):
                        raise UsageError(read)
                    yield part, torch.from_numpy(read)
                next(batches, None)  # so that the loader knows that it is done
        except BaseException as error:
            # It still reads what nobody asks for any more. Its workers end now, and not when the traceback is dropped.
            del loader, batches
            if isinstance(error, EOFError | OSError | RuntimeError):  # one was killed, most often for want of memory
                raise UsageError(
                    f"A worker that reads samples ended unexpectedly ({one_line(error)}). Try fewer workers, or none."
                ) from error.with_traceback(None)
            raise
        self._idle.append(loader)

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Source:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": []}


class StreamedTrainSet(TrainSet):
    """Samples that are read when they are due: for whatever doesn't fit into memory, and for datasets of one's own.

    Batches are the same whatever the number of workers, and those of the same samples in memory.

    ``dataset`` is map-style, as torch's: item ``i`` is a sample, or a tuple that begins with one: an image (uint8
    ``[C, H, W]``, or one of Pillow's), features (float32 ``[D]``) or tokens (int64 ``[L]``), the same at every visit.
    Its labels aren't read: ``labels`` (int64 ``[N]``) are those as given. Images that differ in height and width need a
    ``size`` to be scaled to. ``num_workers`` processes read ahead; 0 reads in this one.

    Raises:
        ValueError: if labels or normalisation don't fit.
        UsageError: if a sample can't be read, is none of the three, or differs from one visit to the next.
    """

    def __init__(
        self,
        dataset: SupportsLenAndGetItem[Any],
        labels: Tensor,
        num_classes: int,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
        *,
        size: tuple[int, int] | None = None,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> None:
        require_labels(labels, len(dataset), num_classes)
        # By workers of its own, since a dataset may open its files at the first look, and files that are open must not
        # be handed from one process to others.
        some = torch.arange(min(LOOKED_AT, len(dataset)))
        (_, first), (_, again) = _Source(_Reader(dataset, size), num_workers).read(iter([[some, some]]))
        if first.is_floating_point() and not first.isfinite().all():
            raise UsageError("Expected finite numbers, got others among the first samples. Fill in what is missing.")
        if not torch.equal(first, again):
            raise UsageError(
                "Expected a dataset that gives the same samples at every visit, got others the second time. "
                "Leave out random transforms: cutk augments as the recipe says."
            )
        shape = tuple(first.shape[1:])
        form = form_of(first) or "tokens"  # the reader has refused what has no form
        super().__init__(labels, num_classes, form, shape, normalisation, augmentation, device, generator)
        self._source = _Source(_Reader(dataset, size, (first.dtype, shape)), num_workers)

    def _read(self, passes: Iterator[list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        return self._source.read(passes)
