"""Samples as they reach a model: in batches, augmented, overlaid and normalised on the device."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from cutk.data.samples import Form, Normalisation, Samples, Shape, raw, told
from cutk.data.sealed import Sealed, unseal
from cutk.data.triggers import Overlay, Trigger
from cutk.errors import CellError
from cutk.machine import choose_layout, moved
from cutk.turns import turns

__all__ = ["Augmentation", "Batch", "ResidentTrainSet", "TrainSet"]


@dataclass(frozen=True)
class Augmentation:
    """Random crop after padding, and horizontal flip."""

    padding: int = 0  # pixels added on each side before the crop back to the original size; 0 means no crop
    flip: bool = False  # whether half of the images are mirrored
    border: Literal["black", "reflect"] = "black"  # what is added: black pixels, or the image mirrored at its border
    alternate: bool = False  # whether an image is mirrored at every other visit, instead of at random

    def __bool__(self) -> bool:
        return bool(self.padding or self.flip)

    def mirrored(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw which of so many images are mirrored: bool ``[count]``."""
        return torch.rand(count, generator=generator) < (0.5 if self.flip else 0.0)

    def apply(self, pixels: Tensor, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        """Augment a batch (uint8 ``[B, C, H, W]``) with draws on the CPU, so that a seed gives one result anywhere.

        ``mirrored`` (bool ``[B]``) says which images are, where that isn't drawn.
        """
        count, _, height, width = pixels.shape
        device, pad = pixels.device, self.padding
        shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
        mirrored = self.mirrored(count, generator) if mirrored is None else mirrored
        rows = shift[0] + torch.arange(height)
        columns = shift[1] + torch.where(mirrored[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))
        if self.border == "reflect" and pad:
            # By position: padding of that kind isn't there for all dtypes.
            rows, columns = (_reflected(places - pad, size) for places, size in ((rows, height), (columns, width)))
            pad = 0
        padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        which = torch.arange(count, device=device)[:, None, None]
        crop = padded[which, moved(rows, device)[:, :, None], moved(columns, device)[:, None, :]]
        return crop.permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return places beyond the border of ``size`` pixels as those that they mirror, the border itself not repeated."""
    period = max(1, 2 * (size - 1))
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded)


class Batch(NamedTuple):
    """One batch on the device; ``index`` hides a tuple's own, which nobody needs here."""

    x: Tensor  # float32 [B, *shape], normalised, images in the memory layout that suits the device; tokens int64
    y: Tensor  # int64 [B], the given labels
    index: Tensor  # type: ignore[assignment]  # int64 [B], positions in the training set


class Scaling:
    """Turns samples as they lie in memory into what a model takes: normalised, in the layout that suits the device."""

    def __init__(self, form: Form, shape: Shape, normalisation: Normalisation, device: torch.device) -> None:
        expected = 0 if form == "tokens" else shape[0]
        if {len(normalisation.mean), len(normalisation.std)} != {expected}:
            raise ValueError(
                f"Expected a normalisation with {expected} means and standard deviations, "
                f"got {len(normalisation.mean)} and {len(normalisation.std)}."
            )
        self.form, self.layout = form, choose_layout(device)
        mean = torch.tensor(normalisation.mean, dtype=torch.float32, device=device)
        std = torch.tensor(normalisation.std, dtype=torch.float32, device=device)
        # One division and one subtraction for each pixel: scaling to 0 … 1 is part of both.
        self.scale = std.view(-1, 1, 1) * 255 if form == "images" else std
        self.offset = mean.view(-1, 1, 1) * 255 / self.scale if form == "images" else mean

    def copied(self) -> Scaling:
        """Return the same with numbers of its own."""
        other = copy.copy(self)
        other.scale, other.offset = self.scale.clone(), self.offset.clone()
        return other

    def __call__(self, x: Tensor) -> Tensor:
        """Return a batch as a model takes it."""
        if self.form == "images":
            return x.float().div_(self.scale).sub_(self.offset).contiguous(memory_format=self.layout)
        # In this order, since a feature's mean may be far larger than what it varies by.
        return x if self.form == "tokens" else (x - self.offset).div_(self.scale)


class TrainSet(ABC):
    """Labelled samples as a developer holds them: their number, their given labels, and batches of them."""

    labels: Tensor  # int64 [N], as given
    num_classes: int  # how many classes there are
    form: Form  # what the samples are: images, features or tokens
    shape: Shape  # shape of one sample: channels, height and width of an image
    augmentation: Augmentation  # what augment=True applies
    normalisation: Normalisation  # what is subtracted from a sample, and what that is divided by
    device: torch.device  # where the batches come out
    generator: torch.Generator  # where shuffling and augmentation draw from by default
    drawn: int = 0  # how many samples have come out of batches() so far: what a method costs, counted

    def __init__(
        self,
        labels: Tensor,
        num_classes: int,
        form: Form,
        shape: Shape,
        normalisation: Normalisation,
        augmentation: Augmentation | None,
        device: torch.device | str,
        generator: torch.Generator | None,
    ) -> None:
        self.labels, self.num_classes = labels, num_classes
        self.form, self.shape, self.normalisation = form, shape, normalisation
        self.augmentation = augmentation if form == "images" and augmentation else Augmentation()
        self.device = torch.device(device)
        self.generator = generator or torch.Generator().manual_seed(0)
        self._scaling = Scaling(form, shape, normalisation, self.device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def intact(self) -> bool:
        """Whether the samples are what they were; a set that shares memory with others says no once it is changed."""
        return True

    @property
    def augments(self) -> bool:
        """Whether ``augment=True`` changes anything: if not, a sample is the same at every visit."""
        return bool(self.augmentation)

    def drawing_from(self, generator: torch.Generator) -> Self:
        """Return a set of the same samples with another default generator, its own labels, and nothing drawn yet."""
        other = copy.copy(self)
        other.generator, other.labels, other.drawn = generator, self.labels.clone(), 0
        other._scaling = self._scaling.copied()
        return other

    @abstractmethod
    def _read(self, passes: Iterator[list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch's indices, and its samples as they lie in memory.

        Asking for the next pass may draw from a generator, so it is asked for when a batch of it is due, and no sooner.
        """

    def _augmented(
        self,
        x: Tensor,
        index: Tensor,  # noqa: ARG002
        generator: torch.Generator,
        mirrored: Tensor | None,
    ) -> Tensor:
        return self.augmentation.apply(x, generator, mirrored)

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
            indices: int64 ``[n]``, n ≥ 1, each from 0 to N − 1; all samples if not given.
            batch_size: samples per batch; if not given, as many as are evaluated comfortably at once.
            shuffle: draw a new order for every pass.
            augment: apply the recipe's augmentation; each visit of a sample draws anew.
            steps: how many batches, all of them full: one may span the end of a pass and the start of the next, and a
                set smaller than ``batch_size`` is yielded whole. Without it: one pass, the last batch may be smaller.
            generator: where the draws come from (on the CPU); the set's own, seeded by cutk, if not given.

        Raises:
            ValueError: if indices, ``batch_size`` or ``steps`` are something else.
        """
        chosen = torch.arange(len(self)) if indices is None else indices.cpu()
        area = math.prod(self.shape[1:] if self.form == "images" else self.shape)
        size = max(64, min(4096, 2**20 // max(1, area))) if batch_size is None else batch_size
        if size < 1 or (steps is not None and steps < 1):
            raise ValueError(f"Expected batch_size and steps of at least 1, got {size} and {steps}.")
        if chosen.dtype != torch.int64 or chosen.ndim != 1:
            raise ValueError(f"Expected indices int64 [n], got {told(chosen)}.")
        if len(chosen) == 0:
            raise ValueError("Expected at least one sample to make batches of, got none.")
        first, last = int(chosen.min()), int(chosen.max())
        if not 0 <= first <= last < len(self):
            raise ValueError(f"Expected indices from 0 to {len(self) - 1}, got {first} to {last}.")
        draws = generator or self.generator
        # Which images are mirrored when they are visited next.
        next_time = self.augmentation.mirrored(len(self), draws) if augment and self.augmentation.alternate else None
        for part, samples in self._read(_passes(chosen, size, steps, draws if shuffle else None)):
            x = moved(samples, self.device)
            if augment and self.augments:
                now = None if next_time is None else next_time[part]
                x = self._augmented(x, part, draws, now)
                if now is not None and next_time is not None and self.augmentation.flip:
                    next_time[part] = ~now
            self.drawn += len(part)
            yield Batch(self._scaling(x), moved(self.labels[part], self.device), moved(part, self.device))


def _passes(indices: Tensor, size: int, steps: int | None, shuffling: torch.Generator | None) -> Iterator[list[Tensor]]:
    """Yield the indices of ``steps`` full batches, those that end in one pass at a time; or of one pass."""

    def ordered() -> Tensor:
        return indices if shuffling is None else indices[torch.randperm(len(indices), generator=shuffling)]

    if steps is None:
        yield list(torch.split(ordered(), size))
        return
    size, rest = min(size, len(indices)), indices[:0]
    while steps:
        rest = torch.cat([rest, ordered()])
        full = min(len(rest) // size, steps)
        yield list(torch.split(rest[: full * size], size))
        rest, steps = rest[full * size :], steps - full


def _placed(trigger: Trigger, device: torch.device) -> Trigger:
    """Return a trigger whose own tensors lie on ``device``, which would wait if they were sent with every batch."""
    other = copy.copy(trigger)
    with contextlib.suppress(TypeError):  # one with slots stays where it is
        vars(other).update(
            {name: value.to(device) for name, value in vars(trigger).items() if isinstance(value, Tensor)}
        )
    return other


class _Overlaid(NamedTuple):
    """Triggers, each with bool ``[N]``: which samples carry it; and the samples without them, under clean labels.

    Which they are lies on the CPU, where it is known without waiting for the device.
    """

    triggers: tuple[tuple[Trigger, Tensor], ...]
    bare: Tensor
    labels: Tensor
    ids: Tensor

    def laid_over(self, x: Tensor, index: Tensor) -> Tensor:
        """Return a batch, of the samples at ``index`` (on the CPU), with its triggers.

        Raises:
            CellError: if one returns samples of another form.
        """
        for trigger, carrying in self.triggers:
            here = carrying[index].nonzero().flatten()
            if len(here) == 0:
                continue
            mine, which = moved(here, x.device), moved(index[here], x.device)
            given = x[mine]
            if given.dtype != self.bare.dtype:
                given = given.round().clamp(0, 255).to(self.bare.dtype)
            laid = trigger.apply(given, self.labels[which], self.ids[which])
            brighter = given.dtype == torch.uint8 and laid.dtype == torch.float32
            if laid.shape != given.shape or not (brighter or laid.dtype == given.dtype):
                raise CellError(
                    f"The trigger '{type(trigger).__name__}': expected {told(given)} as it was given, got {told(laid)}."
                )
            x = x.to(laid.dtype) if brighter else x.clone()
            x[mine] = laid.to(x.dtype)
        return x


class ResidentTrainSet(TrainSet):
    """Samples that lie on the device: the fast way, for whatever fits.

    What can be reached from it are the samples as a developer has them, overlaid ones with their trigger. Overlays are
    laid on after augmentation; they are sealed, with the clean labels that triggers are told (else the given ones).
    """

    def __init__(
        self,
        samples: Samples,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
        *,
        device: torch.device | str = "cpu",
        overlays: Sequence[Overlay] = (),
        clean_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        classes, form, shape = len(samples.classes), samples.form, samples.shape
        super().__init__(samples.labels, classes, form, shape, normalisation, augmentation, device, generator)
        x, everywhere = samples.x.to(self.device), torch.arange(len(samples))
        self._overlaid: Sealed[_Overlaid] | None = None
        if overlays:
            labels = samples.labels if clean_labels is None else clean_labels
            triggers = tuple(
                (_placed(trigger, self.device), torch.isin(everywhere, indices.cpu())) for trigger, indices in overlays
            )
            overlaid = _Overlaid(triggers, x, labels.to(self.device), samples.ids.to(self.device))
            x = overlaid.laid_over(x, everywhere)
            self._overlaid = Sealed(overlaid)
        # A part of a larger tensor would lead to the rest of it: to the test set, say.
        self._x = x.clone() if x.untyped_storage().nbytes() > x.nbytes else x
        self._hash = self._hashed()

    @classmethod
    def joined(cls, sets: Sequence[ResidentTrainSet]) -> ResidentTrainSet:
        """Return the samples of several sets, one behind the other, as they are read without augmentation."""
        if len(sets) == 1:
            return sets[0]
        whole = copy.copy(sets[0])
        whole._x = torch.cat([each._x for each in sets])
        whole.labels = torch.cat([each.labels for each in sets])
        whole._overlaid, whole.augmentation, whole.drawn = None, Augmentation(), 0
        whole._hash = whole._hashed()
        return whole

    def _hashed(self) -> bytes:
        return hashlib.sha256(raw(self._x)).digest()

    @property
    def intact(self) -> bool:
        """Whether the samples are what they were: nobody has written to them, by whatever way."""
        return self._hashed() == self._hash

    @property
    def x(self) -> Tensor:
        """The samples as they are read without augmentation: ``[N, *shape]``, on the device, shared."""
        return self._x

    @property
    def has_overlays(self) -> bool:
        """Whether triggers are laid over samples after augmentation."""
        return self._overlaid is not None

    def augmented(self, index: Tensor, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        """Return the samples at ``index`` (int64 ``[n]``, on the CPU) as ``batches`` does, not normalised yet."""
        return self._augmented(self._x[moved(index, self.device)], index, generator, mirrored)

    def _read(self, passes: Iterator[list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        with turns() if self.device.type == "cpu" else contextlib.nullcontext(lambda: None) as before_step:
            for part in itertools.chain.from_iterable(passes):
                before_step()
                yield part, self._x[moved(part, self.device)]

    def _augmented(self, x: Tensor, index: Tensor, generator: torch.Generator, mirrored: Tensor | None) -> Tensor:
        """Augment a batch; what carries a trigger is augmented without it, and overlaid anew."""
        if self._overlaid is None:
            return super()._augmented(x, index, generator, mirrored)
        overlaid = unseal(self._overlaid)
        bare = overlaid.bare[moved(index, self.device)]
        return overlaid.laid_over(super()._augmented(bare, index, generator, mirrored), index)
