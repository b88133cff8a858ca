"""Manipulations one after the other: what each did to a training set, and what came of all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutk.components import Corruption, Manipulation, Surrogate
from cutk.data.batches import Overlay, checksum
from cutk.data.samples import Samples
from cutk.errors import CellError
from cutk.problem.identification import require_indices

__all__ = ["Composition", "Part"]


def _lacking(done: object, clean: Samples, who: str) -> str:
    """Say what is expected of what a manipulation returned and isn't so; empty if a benchmark can stand on it."""
    if not isinstance(done, Corruption):
        return f"corrupt() to return a cutk.Corruption, got {type(done).__name__}"
    after, count, classes = done.train, len(clean), len(clean.classes)
    if (after.form, after.shape, after.classes) != (clean.form, clean.shape, clean.classes):
        return "a training set of the form, shape and classes of the clean one"
    if len(after) < count or not torch.equal(after.ids[:count], clean.ids):
        return "the clean samples in their order, and behind them those that were added"
    marked = torch.zeros(len(after), dtype=torch.bool)
    marked[require_indices(done.manipulated, len(after), f"{who}: manipulated")] = True
    if not marked[count:].all():
        return f"all {len(after) - count} samples that were added among manipulated"
    if ((after.labels[:count] != clean.labels) & ~marked[:count]).any():
        return "every sample with another label among manipulated"
    if not all(marked[require_indices(laid, len(after), f"{who}: overlay")].all() for _, laid in done.overlays):
        return "every overlaid sample among manipulated"
    targets, known = done.targets, done.clean_labels
    if targets is not None and (len(targets) != classes or not all(-1 <= target < classes for target in targets)):
        return f"targets for {classes} classes, each from −1 to {classes - 1}, got {targets}"
    if known is not None and (known.dtype != torch.int64 or known.shape != after.labels.shape):
        return f"clean_labels int64 [{len(after)}]"
    return ""


@dataclass(frozen=True, eq=False)
class Part:
    """What one manipulation did.

    Attributes:
        name: the manipulation's.
        done: what it returned; its indices are positions among the samples that it was given.
        manipulated: int64 ``[n]``, sorted: its part of S_m, as positions in the whole training set.
        overlays: its overlays, likewise.
    """

    name: str
    done: Corruption
    manipulated: Tensor
    overlays: tuple[Overlay, ...]

    def moved(self, to: Tensor) -> Part:
        """Return the same where the sample at ``i`` stands at ``to[i]`` now."""
        overlays = tuple(Overlay(trigger, to[indices].sort().values) for trigger, indices in self.overlays)
        return replace(self, manipulated=to[self.manipulated].sort().values, overlays=overlays)

    def affected(self, samples: Samples) -> Tensor:
        """Return which of ``samples`` lie in the affected domain, bool ``[n]``.

        Raises:
            CellError: if the manipulation's own function returns something else.
        """
        affected = self.done.affected
        if affected is None:
            return torch.ones(len(samples), dtype=torch.bool)
        if not callable(affected):
            return torch.isin(samples.labels, torch.tensor(affected, dtype=torch.int64))
        # A copy: the test samples are everybody's.
        mask = affected(samples.changed(x=samples.x.clone(), labels=samples.labels.clone()))
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != samples.labels.shape:
            raise CellError(f"'{self.name}': expected affected() to return bool [{len(samples)}].")
        return mask


def _identified(done: Corruption, given: Samples) -> Corruption:
    """Return the same with the ids and names of what was given, where a manipulation made samples without them."""
    after = getattr(done, "train", None)
    if not isinstance(after, Samples) or len(after) != len(given) or after.published != len(after):
        return done
    return replace(done, train=replace(after, ids=given.ids, names=given.names, published=given.published))


class Composition:
    """A training set on which one manipulation after another works, each on what the others left alone.

    Attributes:
        samples: the training set so far.
        clean_labels: int64 ``[N]``, −1 where nobody knows any.
        same_x: whether the contents of all samples are as they were.
        parts: what each manipulation did.
    """

    def __init__(self, clean: Samples) -> None:
        self.samples = clean
        self.clean_labels = clean.labels
        self.same_x = True
        self.parts: list[Part] = []

    def add(self, name: str, corrupt: Manipulation, generator: torch.Generator, *surrogate: Surrogate) -> None:
        """Let a manipulation work on the samples that are still as they were.

        Raises:
            CellError: if no benchmark could stand on what it returns, or it wrote to what it was given.
        """
        free = torch.ones(len(self.samples), dtype=torch.bool)
        for part in self.parts:
            free[part.manipulated] = False
        rest = free.nonzero().flatten()
        given = self.samples.select(rest) if self.parts else self.samples
        before = checksum(given.x), checksum(given.labels)
        done = corrupt.corrupt(given, generator, *surrogate)
        if (checksum(given.x), checksum(given.labels)) != before:
            raise CellError(f"'{name}' wrote to the clean samples. Work on copies: train.x.clone().")
        done = _identified(done, given)
        if lacking := _lacking(done, given, f"'{name}'"):
            raise CellError(f"'{name}': expected {lacking}.")
        after, count = done.train, len(given)
        added = len(after) - count
        where = torch.cat([rest, torch.arange(len(self.samples), len(self.samples) + added)])
        overlays = tuple(Overlay(trigger, where[indices]) for trigger, indices in done.overlays)
        self.parts.append(Part(name, done, where[done.manipulated], overlays))
        unknown = torch.full((added,), -1) if done.clean_labels is None else done.clean_labels[count:]
        self.clean_labels = torch.cat([self.clean_labels, unknown])
        if given is self.samples:
            self.samples, self.same_x = after, after.x is given.x
            return
        labels, x = self.samples.labels.clone(), self.samples.x
        labels[rest] = after.labels[:count]
        if after.x is not given.x:
            self.same_x, x = False, x.clone()
            x[rest] = after.x[:count]
        self.samples = self.samples.changed(x=x, labels=labels)
        if added:
            self.samples = self.samples.extended(after.x[count:], after.labels[count:])

    def rearrange(self, order: Tensor) -> None:
        """Put the sample at ``order[i]`` in place ``i``."""
        self.samples, self.clean_labels = self.samples.select(order), self.clean_labels[order]
        self.parts = [part.moved(order.argsort()) for part in self.parts]

    @property
    def told_labels(self) -> Tensor:
        """What triggers are told: the clean labels, or the given ones where nobody knows any; int64 ``[N]``."""
        return torch.where(self.clean_labels < 0, self.samples.labels, self.clean_labels)

    def union(self) -> Corruption:
        """Return what all did together; trigger, targets and affected domain only where there was but one."""
        alone = self.parts[0].done if len(self.parts) == 1 else None
        return Corruption(
            train=self.samples,
            manipulated=torch.cat([part.manipulated for part in self.parts]).sort().values,
            overlays=tuple(overlay for part in self.parts for overlay in part.overlays),
            trigger=alone.trigger if alone else None,
            affected=alone.affected if alone else None,
            targets=alone.targets if alone else None,
            clean_labels=self.clean_labels,
        )
