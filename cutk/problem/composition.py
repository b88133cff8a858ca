"""Manipulations one after the other: what each did to a training set, and what came of all."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from cutk.components import Corruption
from cutk.data.samples import Samples
from cutk.data.triggers import Overlay
from cutk.errors import CellError
from cutk.problem.identification import all_but, require_indices

__all__ = ["Composition", "affected_by", "compose"]


def _lacking(done: object, given: Samples, who: str) -> str:
    """Say what is expected of what a manipulation returned and isn't so; empty if a benchmark can stand on it."""
    if not isinstance(done, Corruption):
        return f"corrupt() to return a cutk.Corruption, got {type(done).__name__}"
    after, count, classes = done.train, len(given), len(given.classes)
    if (after.form, after.shape, after.classes) != (given.form, given.shape, given.classes):
        return "a training set of the form, shape and classes of the clean one"
    without_ids = len(after) == count == after.published  # made anew, as plugins for the API 1.0 do
    if len(after) < count or not (without_ids or torch.equal(after.ids[:count], given.ids)):
        return "the clean samples in their order, and behind them those that were added"
    marked = torch.zeros(len(after), dtype=torch.bool)
    marked[require_indices(done.manipulated, len(after), f"{who}: manipulated")] = True
    if not marked[count:].all():
        return f"all {len(after) - count} samples that were added among manipulated"
    if ((after.labels[:count] != given.labels) & ~marked[:count]).any():
        return "every sample with another label among manipulated"
    if not all(marked[require_indices(laid, len(after), f"{who}: overlay")].all() for _, laid in done.overlays):
        return "every overlaid sample among manipulated"
    targets, known = done.targets, done.clean_labels
    if targets is not None and (len(targets) != classes or not all(-1 <= target < classes for target in targets)):
        return f"targets for {classes} classes, each from −1 to {classes - 1}, got {targets}"
    if known is not None and (known.dtype != torch.int64 or known.shape != after.labels.shape):
        return f"clean_labels int64 [{len(after)}]"
    return ""


class Composition(NamedTuple):
    """What manipulations did: each by its name, in positions in the whole training set, and all together.

    Trigger, targets and affected domain are part of ``union`` only where there was but one manipulation.
    """

    parts: Mapping[str, Corruption]
    union: Corruption
    clean_labels: Tensor  # int64 [N], −1 where nobody knows any
    same_x: bool  # whether the contents of all samples are as they were

    @property
    def told_labels(self) -> Tensor:
        """What triggers are told: the clean labels, or the given ones where nobody knows any; int64 ``[N]``."""
        return torch.where(self.clean_labels < 0, self.union.train.labels, self.clean_labels)


def compose(
    clean: Samples, manipulations: Mapping[str, Callable[[Samples], Corruption]], arrangement: torch.Generator
) -> Composition:
    """Let one manipulation after another work on the samples that are still as they were.

    Where samples are added, the order of all is drawn from ``arrangement``. A ``CellError`` says that no benchmark
    could stand on what one returned, or that it wrote to what it was given.
    """
    samples, clean_labels, same_x = clean, clean.labels, True
    free = torch.arange(len(clean))
    steps: dict[str, tuple[Corruption, Tensor]] = {}
    for name, corrupt in manipulations.items():
        given = samples.select(free) if steps else samples
        before = given.digest()
        done = corrupt(given)
        if given.digest() != before:
            raise CellError(f"'{name}' wrote to the clean samples. Work on copies: train.x.clone().")
        if lacking := _lacking(done, given, f"'{name}'"):
            raise CellError(f"'{name}': expected {lacking}.")
        after, count = done.train, len(given)
        added = len(after) - count
        where = torch.cat([free, torch.arange(len(samples), len(samples) + added)])
        steps[name] = done, where
        unknown = torch.full((added,), -1) if done.clean_labels is None else done.clean_labels[count:]
        clean_labels = torch.cat([clean_labels, unknown])
        labels, x = samples.labels.index_copy(0, free, after.labels[:count]), samples.x
        if after.x is not given.x:
            same_x, x = False, x.index_copy(0, free, after.x[:count])
        samples = samples.changed(x=x, labels=labels)
        if added:
            samples = samples.extended(after.x[count:], after.labels[count:])
        free = where[all_but(done.manipulated, len(after))]
    place = torch.arange(len(samples))
    if len(samples) > len(clean):
        # What was added stands at the end, which would tell who was.
        order = torch.randperm(len(samples), generator=arrangement)
        samples, clean_labels, place = samples.select(order), clean_labels[order], order.argsort()

    def moved(done: Corruption, where: Tensor) -> Corruption:
        to = place[where]
        overlays = tuple(Overlay(trigger, to[indices].sort().values) for trigger, indices in done.overlays)
        manipulated = to[done.manipulated].sort().values
        return replace(done, train=samples, manipulated=manipulated, overlays=overlays, clean_labels=clean_labels)

    parts = {name: moved(*step) for name, step in steps.items()}
    union, *others = parts.values()
    if others:
        manipulated = torch.cat([part.manipulated for part in parts.values()]).sort().values
        overlays = tuple(overlay for part in parts.values() for overlay in part.overlays)
        union = Corruption(samples, manipulated, overlays, clean_labels=clean_labels)
    return Composition(parts, union, clean_labels, same_x)


def affected_by(name: str, done: Corruption, samples: Samples) -> Tensor:
    """Return which of ``samples`` lie in a manipulation's affected domain, bool ``[n]``."""
    if done.affected is None:
        return torch.ones(len(samples), dtype=torch.bool)
    if not callable(done.affected):
        classes = range(len(samples.classes))
        try:
            those = [operator.index(one) for one in done.affected]
        except TypeError:
            those = []
        if not those or not all(one in classes for one in those):
            raise CellError(
                f"'{name}': expected affected to be None, a function, or classes from 0 to {classes[-1]}, got "
                f"{done.affected!r}."
            )
        return torch.isin(samples.labels, torch.tensor(those))
    # A copy: the test samples are everybody's.
    mask = done.affected(samples.changed(x=samples.x.clone(), labels=samples.labels.clone()))
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != samples.labels.shape:
        raise CellError(f"'{name}': expected affected() to return bool [{len(samples)}].")
    return mask
