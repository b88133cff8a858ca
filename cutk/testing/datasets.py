"""What is checked of a dataset, if its files are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cutk.data.samples import Samples, Splits
from cutk.errors import UsageError
from cutk.learning.recipe import RecipeOptions
from cutk.options import parse_options
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check

__all__ = ["CHECKS", "SUBJECT", "LoadedDataset"]


class LoadedDataset(Subject):
    """A dataset and what it loads."""

    def work(self) -> Any:
        """Load it.

        Raises:
            UsageError: if its files aren't there.
        """
        return self.make().load()

    def decided(self, result: Splits) -> str:
        """Return the fingerprint."""
        return result.fingerprint()

    def parts(self) -> Iterator[tuple[str, Samples]]:
        """Yield the splits that there are, by name."""
        for name in ("train", "test", "validation"):
            part = getattr(self.first.result, name)
            if part is not None:
                yield name, part


@check("Set recipe to options of cutk.RecipeOptions, suggests to {component: {option: value}}, model to a name.")
def suggestions_are_valid(subject: LoadedDataset) -> None:
    """What it suggests suits any recipe, and what it suggests for components are mappings."""
    component = subject.component
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
def load_returns_splits(subject: LoadedDataset) -> None:
    """load() returns a cutk.Splits, or raises a UsageError that says how to get the files."""
    try:
        splits = subject.first.result
    except UsageError as error:
        if len(str(error).split()) < 5:
            raise Unmet(f"all that it says is {str(error)!r}") from None
        raise NotJudged(f"its data aren't here: {error}") from None
    if not isinstance(splits, Splits):
        raise Unmet(f"it returned {type(splits).__name__}")


@check("Give every part samples of one form and shape, the same classes, and at least one of each for training.")
def splits_fit_together(subject: LoadedDataset) -> None:
    """Training, test and validation samples have one shape and the same classes, of which each is trained on."""
    train = subject.first.result.train
    for name, part in subject.parts():
        if len(part) == 0:
            raise Unmet(f"there are no {name} samples")
        if (part.form, part.shape) != (train.form, train.shape):
            raise Unmet(f"{name} samples are {part.form} {part.shape}, training samples {train.form} {train.shape}")
        if part.classes != train.classes:
            raise Unmet(f"{name} samples have other classes than training samples")
        if part.x.is_floating_point() and not torch.isfinite(part.x).all():
            raise Unmet(f"some {name} samples are infinite or not a number")
    if len(train.classes) < 2:
        raise Unmet(f"there is {len(train.classes)} class, and nothing to tell apart")
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    if missing := [train.classes[label] for label in (counts == 0).nonzero().flatten().tolist()]:
        raise Unmet(f"no training sample is of class '{missing[0]}' ({len(missing)} such classes)")


@check(
    "Give normalisation a mean and a positive standard deviation for each channel of images, of pixels scaled to "
    "0 … 1, or for each feature; none for tokens."
)
def normalisation_fits(subject: LoadedDataset) -> None:
    """If it brings a normalisation, that has a mean and a standard deviation for each channel or feature."""
    splits = subject.first.result
    normalisation, count = splits.normalisation, 0 if splits.train.form == "tokens" else splits.train.shape[0]
    if normalisation is None:
        return
    if len(normalisation.mean) != count or len(normalisation.std) != count:
        raise Unmet(f"{splits.train.form} have {count} of them, the normalisation {len(normalisation.mean)}")
    highest = 1.0 if splits.train.form == "images" else float("inf")
    if any(std <= 0 for std in normalisation.std) or any(
        not -highest <= mean <= highest for mean in normalisation.mean
    ):
        raise Unmet(f"mean {normalisation.mean}, standard deviation {normalisation.std}")


@check("Return samples that belong to the caller: what one does to them, the next load must not show.")
def loads_are_independent(subject: LoadedDataset) -> None:
    """Writing to loaded samples changes no later load."""
    loaded = subject.work()
    before = loaded.train.digest(), loaded.test.digest()
    for part in (loaded.train, loaded.test):
        part.x.zero_()
        part.labels.zero_()
    again = subject.work()
    if before != (again.train.digest(), again.test.digest()):
        raise Unmet("samples that were written to come back written to")


@check("Remove duplicates, or split by what the samples show: a test sample seen in training measures memory.")
def test_samples_are_unseen(subject: LoadedDataset) -> str | None:
    """Test samples aren't among the training samples; a few duplicates, as old datasets have, are only remarked."""
    known = {sample.numpy().tobytes() for sample in subject.first.result.train.x}
    test = subject.first.result.test.x
    count = sum(sample.numpy().tobytes() in known for sample in test)
    return f"{count} of {len(test)} test samples are training samples as well" if count else None


SUBJECT = LoadedDataset
CHECKS = all_checks(globals())
