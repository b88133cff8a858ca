"""What holds of a dataset, if its files are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from cutk.data.samples import Images, Splits
from cutk.errors import UsageError
from cutk.learning.recipe import RecipeOptions
from cutk.options import parse_options
from cutk.testing import classes
from cutk.testing.classes import Subject, require_unchanged
from cutk.testing.findings import Check, check
from cutk.testing.surroundings import watched
from cutk.testing.verdicts import NotJudged, Unmet

__all__ = ["CHECKS", "Loads"]


@dataclass(frozen=True)
class _Load:
    """What one call of ``load`` gave, and what global state it changed."""

    splits: Splits
    changed: list[str]


class Loads(Subject):
    """A dataset and what it loads."""

    def load(self, stirred: int = 1) -> _Load:
        """Load it.

        Raises:
            UsageError: if its files aren't there.
        """
        with watched(stirred) as changed:
            splits = self.make().load()
        return _Load(splits, changed)

    @cached_property
    def first(self) -> _Load:
        """What it loads."""
        return self.load()

    @cached_property
    def second(self) -> _Load:
        """What it loads when all that it imports has been imported."""
        _ = self.first
        return self.load(stirred=2)

    @property
    def splits(self) -> Splits:
        """What it loads."""
        return self.first.splits

    def parts(self) -> Iterator[tuple[str, Images]]:
        """Yield the splits that there are, by name."""
        for name in ("train", "test", "validation"):
            part = getattr(self.splits, name)
            if part is not None:
                yield name, part


@check("Set recipe to options of cutk.RecipeOptions, suggests to {component: {option: value}}, model to a name.")
def suggestions_are_valid(loads: Loads) -> None:
    """The recipe that it suggests is a valid one, and what it suggests for components are mappings."""
    component = loads.component
    parse_options(RecipeOptions, component.recipe, "recipe")
    if not isinstance(component.model, str):
        raise Unmet(f"model is {component.model!r}")
    for name, options in component.suggests.items():
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise Unmet(f"suggests has {name!r}: {options!r}")


@check(
    "Return cutk.Splits(train, test). Where files are missing, raise cutk.UsageError, and say how to get them: "
    "cutk.Splits.reading does.",
    essential=True,
)
def load_returns_splits(loads: Loads) -> None:
    """load() returns a cutk.Splits, or raises a UsageError that says how to get the files."""
    try:
        splits = loads.splits
    except UsageError as error:
        if len(str(error).split()) < 5:
            raise Unmet(f"all that it says is {str(error)!r}") from None
        raise NotJudged(f"its data aren't here: {error}") from None
    if not isinstance(splits, Splits):
        raise Unmet(f"it returned {type(splits).__name__}")


@check("Give every part images of one shape, the same classes, and at least one image of each for training.")
def splits_fit_together(loads: Loads) -> None:
    """Training, test and validation images have one shape and the same classes, of which each is trained on."""
    train = loads.splits.train
    for name, part in loads.parts():
        if len(part) == 0:
            raise Unmet(f"there are no {name} images")
        if part.shape != train.shape:
            raise Unmet(f"{name} images are {list(part.shape)}, training images {list(train.shape)}")
        if part.classes != train.classes:
            raise Unmet(f"{name} images have other classes than training images")
    if len(train.classes) < 2:
        raise Unmet(f"there is {len(train.classes)} class, and nothing to tell apart")
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    if missing := [train.classes[label] for label in (counts == 0).nonzero().flatten().tolist()]:
        raise Unmet(f"no training image is of class '{missing[0]}' ({len(missing)} such classes)")


@check("Give normalisation a mean and a positive standard deviation for each channel, of pixels scaled to 0 … 1.")
def normalisation_fits(loads: Loads) -> None:
    """If it brings a normalisation, that has a mean and a standard deviation for each channel."""
    normalisation, channels = loads.splits.normalisation, loads.splits.train.shape[0]
    if normalisation is None:
        return
    if len(normalisation.mean) != channels or len(normalisation.std) != channels:
        raise Unmet(f"images have {channels} channels, the normalisation {len(normalisation.mean)}")
    if min(normalisation.std) <= 0 or not 0 <= min(normalisation.mean) <= max(normalisation.mean) <= 1:
        raise Unmet(f"mean {normalisation.mean}, standard deviation {normalisation.std}")


@check("Read files in a sorted order, and draw from a generator of your own with a seed from the options.")
def loads_are_equal(loads: Loads) -> None:
    """Loaded twice, it is the same: every image, every label, in the same order."""
    first, second = loads.splits, loads.second.splits
    if first.fingerprint() != second.fingerprint():
        raise Unmet("two loads have different fingerprints")


@check("Return images that belong to the caller: what one does to them, the next load must not show.")
def loads_are_independent(loads: Loads) -> None:
    """Writing to loaded images changes no later load."""
    before = loads.second.splits.fingerprint()
    for name in ("train", "test"):
        part = getattr(loads.second.splits, name)
        part.pixels.bitwise_not_()
    after = loads.load().splits.fingerprint()
    if before != after:
        raise Unmet("images that were written to come back written to")


@check("Remove duplicates, or split by what the images show: a test image seen in training measures memory.")
def test_images_are_unseen(loads: Loads) -> str | None:
    """Test images aren't among the training images; a few duplicates, as old datasets have, are only remarked."""
    known = {image.numpy().tobytes() for image in loads.splits.train.pixels}
    test = loads.splits.test.pixels
    count = sum(image.numpy().tobytes() in known for image in test)
    return f"{count} of {len(test)} test images are training images as well" if count else None


@check("Put back what you set.")
def nothing_global_is_left(loads: Loads) -> None:
    """Random states, threads, dtypes, warnings, folder and environment are as they were."""
    require_unchanged(loads.second.changed)


CHECKS: tuple[Check[Loads], ...] = (
    *classes.CHECKS,
    suggestions_are_valid,
    load_returns_splits,
    splits_fit_together,
    normalisation_fits,
    test_images_are_unseen,
    loads_are_equal,
    loads_are_independent,
    nothing_global_is_left,
)
