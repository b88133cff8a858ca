"""What holds of a manipulation, tried on random images, grey and in colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cutk.components import Corruption, Manipulation
from cutk.data.batches import Stamp
from cutk.data.samples import Images, Splits
from cutk.errors import UsageError
from cutk.testing import classes
from cutk.testing.classes import Subject, require_unchanged
from cutk.testing.findings import Check, check
from cutk.testing.states import difference
from cutk.testing.surroundings import watched
from cutk.testing.tiny import scenario_of, tiny_images
from cutk.testing.verdicts import NotJudged, Unmet

__all__ = ["CHECKS", "Doings"]

GREY, COLOUR = 1, 3


@dataclass(frozen=True)
class _Deed:
    """What a manipulation did to images.

    Attributes:
        clean: the images as they were given.
        untouched: a copy of them, made before.
        corruption: what it returned.
        changed: what global state was changed.
    """

    clean: Images
    untouched: Images
    corruption: Corruption
    changed: list[str]

    @property
    def differing(self) -> Tensor:
        """Which samples have other pixels or another label than before, bool ``[N]``."""
        after = self.corruption.train
        pixels = (after.pixels != self.untouched.pixels).flatten(1).any(1)
        return pixels | (after.labels != self.untouched.labels)


class Doings(Subject):
    """A manipulation and what it does to 300 images of 16 by 16 pixels in 10 classes.

    Args:
        component: the class.
        given: options over its own defaults.
    """

    def __init__(self, component: type[Manipulation], given: Mapping[str, Any] | None = None) -> None:
        super().__init__(component, given)

    def corrupt(self, channels: int, stirred: int = 1) -> _Deed:
        """Let it work on fresh images."""
        clean = tiny_images(300, channels, 16, 10)
        copy = Images(clean.pixels.clone(), clean.labels.clone(), clean.classes)
        with watched(stirred) as changed:
            corruption = self.make().corrupt(clean, torch.Generator().manual_seed(0))
        return _Deed(clean, copy, corruption, changed)

    @cached_property
    def deeds(self) -> dict[str, _Deed]:
        """What it did to grey images and to coloured ones; those that it refuses with a ``UsageError`` are left out."""
        done, refused = {}, []
        for name, channels in (("grey", GREY), ("coloured", COLOUR)):
            try:
                done[name] = self.corrupt(channels)
            except UsageError as error:
                refused.append(f"{name} images: {error}")
        if not done:
            raise Unmet(f"it refuses {refused[0]}")
        return done

    @cached_property
    def again(self) -> dict[str, _Deed]:
        """The same once more, when all that it imports has been imported."""
        return {name: self.corrupt(GREY if name == "grey" else COLOUR, stirred=2) for name in self.deeds}


@check(
    "Choose defaults that suit 300 images in 10 classes (parts and not numbers, say), or give options=. For images "
    "that it can't work on, raise cutk.UsageError.",
    essential=True,
)
def images_are_manipulated(doings: Doings) -> str | None:
    """corrupt() returns a cutk.Corruption for grey or coloured images, or refuses them with a UsageError."""
    for name, deed in doings.deeds.items():
        if not isinstance(deed.corruption, Corruption):
            raise Unmet(f"for {name} images it returned {type(deed.corruption).__name__}")
        if deed.corruption.train.pixels.shape != deed.clean.pixels.shape:
            raise Unmet(f"for {name} images the training set has another number or shape of images")
        if deed.corruption.train.classes != deed.clean.classes:
            raise Unmet(f"for {name} images the training set has other classes")
    return None if len(doings.deeds) > 1 else f"it takes {next(iter(doings.deeds))} images alone"


@check(
    "Return the indices sorted, each once: torch.randperm(n, generator=generator)[:count].sort().values.",
    essential=True,
)
def indices_are_sorted_and_unique(doings: Doings) -> None:
    """Manipulated indices are int64 [n], n ≥ 1, sorted, without repeats, and lie within the training set."""
    for deed in doings.deeds.values():
        indices = deed.corruption.manipulated
        if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.ndim != 1 or not len(indices):
            raise Unmet(f"got {indices!r}"[:120])
        if not (indices[1:] > indices[:-1]).all():
            raise Unmet("they are not sorted, or some are there twice")
        if int(indices[0]) < 0 or int(indices[-1]) >= len(deed.clean):
            raise Unmet(f"they reach from {int(indices[0])} to {int(indices[-1])} for {len(deed.clean)} images")


@check("Draw from the generator that corrupt() is given, and from nothing else.")
def same_seed_manipulates_the_same(doings: Doings) -> None:
    """The same generator gives the same manipulation."""
    for name, deed in doings.deeds.items():
        if found := difference(deed.corruption, doings.again[name].corruption, "the corruption"):
            raise Unmet(f"two runs on {name} images differ in {found}")


@check("Work on copies, train.labels.clone() and train.pixels.clone(): the given images are the evaluator's.")
def given_images_are_untouched(doings: Doings) -> None:
    """The images that corrupt() is given stay as they are."""
    for name, deed in doings.deeds.items():
        if not torch.equal(deed.clean.pixels, deed.untouched.pixels):
            raise Unmet(f"it writes to the pixels of the {name} images")
        if not torch.equal(deed.clean.labels, deed.untouched.labels):
            raise Unmet(f"it writes to the labels of the {name} images")


@check("Put the index of every sample that you change into manipulated: what isn't there counts as clean.")
def nothing_else_is_changed(doings: Doings) -> None:
    """Samples that are not said to be manipulated keep their pixels and their labels."""
    for deed in doings.deeds.values():
        differing = deed.differing
        differing[deed.corruption.manipulated] = False
        if others := differing.nonzero().flatten().tolist():
            raise Unmet(f"sample {others[0]} differs, and isn't in manipulated ({len(others)} such samples)")


@check("Leave out of manipulated what stays as it was, by drawing from the samples that the manipulation changes.")
def every_manipulated_sample_is_changed(doings: Doings) -> None:
    """Each sample that is said to be manipulated has other pixels, another label, or the stamp."""
    for deed in doings.deeds.values():
        if deed.corruption.stamp is not None:
            continue  # laid over all of them whenever they are read
        same = ~deed.differing[deed.corruption.manipulated]
        if same.any():
            first = int(deed.corruption.manipulated[same][0])
            raise Unmet(f"sample {first} is in manipulated and as it was ({int(same.sum())} such samples)")


def _problem_with(stamp: Stamp, images: Images) -> str:
    if stamp.pattern.dtype != torch.uint8 or tuple(stamp.pattern.shape) != images.shape:
        return f"the pattern is {stamp.pattern.dtype} {list(stamp.pattern.shape)}".replace("torch.", "")
    if tuple(stamp.opacity.shape) != images.shape[1:] or not stamp.opacity.is_floating_point():
        return f"the opacity is {stamp.opacity.dtype} {list(stamp.opacity.shape)}".replace("torch.", "")
    if not 0 <= float(stamp.opacity.min()) <= float(stamp.opacity.max()) <= 1:
        return f"the opacity reaches from {float(stamp.opacity.min()):g} to {float(stamp.opacity.max()):g}"
    if torch.equal(stamp.apply(images.pixels), images.pixels):
        return "it changes no image"
    return ""


@check("Make it cutk.Stamp(pattern uint8 [C, H, W], opacity float32 [H, W] from 0 to 1), in the images' own shape.")
def stamps_fit_the_images(doings: Doings) -> None:
    """Stamp and trigger, if there are any, have the images' shape and change them."""
    stamps = 0
    for name, deed in doings.deeds.items():
        for role in ("stamp", "trigger"):
            stamp = getattr(deed.corruption, role)
            if stamp is None:
                continue
            stamps += 1
            if problem := _problem_with(stamp, deed.clean):
                raise Unmet(f"the {role} for {name} images: {problem}")
    if not stamps:
        raise NotJudged("it lays nothing over images")


@check("Give target and affected_classes as indices of train.classes, or None.")
def classes_are_there(doings: Doings) -> None:
    """Target and affected classes are classes of the images."""
    for deed in doings.deeds.values():
        count, corruption = len(deed.clean.classes), deed.corruption
        target = () if corruption.target is None else (corruption.target,)
        for role, classes_ in (("target", target), ("affected_classes", corruption.affected_classes or ())):
            for label in classes_:
                if not isinstance(label, int) or not 0 <= label < count:
                    raise Unmet(f"{role} has {label!r} where classes go from 0 to {count - 1}")
        if corruption.affected_classes == ():
            raise Unmet("affected_classes is empty, so that nothing is affected; None means all classes")


@check("Read the error: it is what users would see.")
def benchmark_accepts_it(doings: Doings) -> None:
    """The benchmark can build a scenario on it, affected and retained test samples included."""
    channels = GREY if "grey" in doings.deeds else COLOUR
    images = tiny_images(300, channels, 16, 10)
    truth = scenario_of(Splits(train=images, test=images), doings.make()).truth
    if len(truth.affected) == 0:
        raise Unmet("no test sample is affected")


@check("Put back what you set, and draw from the given generator alone.")
def nothing_global_is_left(doings: Doings) -> None:
    """Random states, threads, dtypes, warnings, folder and environment are as they were."""
    for deed in doings.again.values():
        require_unchanged(deed.changed)


CHECKS: tuple[Check[Doings], ...] = (
    *classes.CHECKS,
    images_are_manipulated,
    indices_are_sorted_and_unique,
    same_seed_manipulates_the_same,
    given_images_are_untouched,
    nothing_else_is_changed,
    every_manipulated_sample_is_changed,
    stamps_fit_the_images,
    classes_are_there,
    benchmark_accepts_it,
    nothing_global_is_left,
)
