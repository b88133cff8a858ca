"""``cutk.unlearn``: a repaired model for whoever holds one in Python."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from cutk.data.batches import TrainSet
from cutk.data.given import Given
from cutk.data.samples import Normalisation, Samples
from cutk.errors import UsageError
from cutk.learning.recipe import Recipe
from cutk.machine import cudnn_put_back
from cutk.plugins.registry import load_registry
from cutk.repair.calibrating import ALPHA, calibrated
from cutk.repair.classes import named, of_outputs, validation_as
from cutk.repair.inputs import (
    Adapted,
    bad_indices,
    class_counts,
    given_by,
    normalisation_by,
    require_logits,
    set_of,
    shape_of,
)
from cutk.repair.page import thumbnails
from cutk.repair.problem import Methods, Problem, methods_of, opened
from cutk.repair.records import limits_of
from cutk.repair.repairing import repair
from cutk.repair.result import Repair, handed_over
from cutk.repair.sanity import require_fitting
from cutk.repair.sources import overlap
from cutk.repair.triggers import read_trigger
from cutk.repair.weights import noted
from cutk.run.observer import Observer

__all__ = ["posed", "unlearn"]

# Where no validation samples are given, so many training samples stand in for them at most.
_STAND_IN = 2000
# Of so many samples it is seen whether validation samples were trained on.
_COMPARED = 20_000


def restored(original: nn.Module, repaired: nn.Module) -> nn.Module:
    """Return a copy of the user's model with repaired weights, in its own dtypes, device, mode and flags."""
    model = copy.deepcopy(original)
    model.load_state_dict(repaired.state_dict())  # which copies into the user's own dtypes, on its device
    return model


def working_copy(model: nn.Module, shape: tuple[int, ...] | None) -> nn.Module:
    """Return a copy for methods to work on: float32, every parameter trainable, taking samples as sets hold them."""
    inner = copy.deepcopy(model).float()
    for parameter in inner.parameters():
        parameter.requires_grad_(True)
    return Adapted(inner, shape)


def _restricted(given: Given, indices: Tensor) -> Given:
    """Return the samples at ``indices`` alone, which aren't copied if they don't lie in memory."""
    content = given.content
    part: Any = content.select(indices) if isinstance(content, Samples) else Subset(content, indices.tolist())  # type: ignore[arg-type]
    names = None if given.names is None else tuple(given.names[i] for i in indices.tolist())
    return Given(part, given.labels[indices], given.classes, names, normalisation=given.normalisation)


def posed(
    model: nn.Module,
    given: Given,
    bad: Tensor,
    validation: Given | None,
    methods: Methods,
    *,
    normalisation: Normalisation | None = None,
    size: tuple[int, int] | None = None,
    bgr: bool = False,
    workers: int = 0,
    recipe: Recipe | None = None,
    build: Callable[[], nn.Module] | None = None,
    python: bool = False,
    tell: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> Problem:
    """Return a user's model and data as a problem for methods, and what the original says of them.

    ``python`` says that whoever asks does so by ``cutk.unlearn``.

    Raises:
        UsageError: if they don't fit each other.
    """
    shape = shape_of(given)
    if validation is not None and shape_of(validation) != shape:
        raise UsageError(f"validation: expected samples of the shape {list(shape or ())}, as the training samples.")
    made: Recipe = methods.recipe.make() if recipe is None else recipe
    augmentation = made.options.augmentation if shape is None else None

    def samples_of(which: Given, augmented: bool = False) -> TrainSet:
        extra = augmentation if augmented else None
        count = len(which.classes)
        return set_of(
            *(which, normalisation or given.normalisation, extra, methods.device),
            num_classes=count,
            size=size,
            bgr=bgr,
            workers=workers,
        )

    def stand_in(indices: Tensor) -> TrainSet:
        kept = torch.ones(len(given), dtype=torch.bool)
        kept[indices] = False
        rest = kept.nonzero().flatten()
        drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))[:_STAND_IN]
        return samples_of(_restricted(given, rest[drawn].sort().values))

    train = samples_of(given, augmented=True)
    working = working_copy(model, shape).to(methods.device)
    outputs = require_logits(working, train)
    if outputs != len(given.classes):
        raise UsageError(class_counts(outputs, given.classes))
    made_anew = None if build is None else (lambda: Adapted(build().float(), shape))
    return opened(
        *(working, train, bad, None if validation is None else samples_of(validation), methods, given.classes),
        names=given.names,
        build=made_anew,
        recipe=recipe,
        stand_in=stand_in,
        bgr=bgr,
        python=python,
        tell=tell,
    )


@cudnn_put_back()
def unlearn(
    model: nn.Module,
    dataset: object,
    bad: Iterable[int] | Tensor,
    method: str | Sequence[str] | None = None,
    validation: object | None = None,
    recipe: str | Mapping[str, Any] | Recipe | None = None,
    select: str | None = None,
    *,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    build: Callable[[], nn.Module] | None = None,
    suspect_trigger: str | os.PathLike[str] | None = None,
    suspects_by: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    search: str | None = None,
    budget: float | None = None,
    max_accuracy_loss: float = 0.02,
    device: str | None = None,
    precision: str | None = None,
    workers: int = 0,
    seed: int = 0,
    calibrate: bool | float = False,
    calibration_runs: str | os.PathLike[str] | None = None,
    plugins: Iterable[Any] = (),
    progress: Callable[[str, int, int], None] | None = None,
    force: bool = False,
) -> Repair:
    """Repair a model that was trained on bad samples; what is passed in stays as it was.

    Methods are candidates beside the original, and a rule chooses among them by what can be measured without the truth.

    Args:
        model: a classifier: it takes a batch of samples and returns logits ``[B, classes]``, or an object with them.
        dataset: the samples that it was trained on, bad ones included, with the labels as given: a map-style torch
            ``Dataset`` of ``(sample, label)``, or ``cutk.Samples``. A sample is an image (Pillow's, or uint8
            ``[C, H, W]``), features (float32 ``[D]``), tokens (int64 ``[L]``), or any floating-point tensor as the
            model takes it, normalised already. It is the same at every visit: leave out random transforms.
        bad: the indices of the samples that are known to be bad, or true and false for each sample.
        method: the name of an unlearner, or several; the preset ``unlearn`` says which if not given.
        validation: samples that the model wasn't trained on, in the same form. Without them some of the training
            samples stand in, which says little about new samples.
        recipe: how methods train that do: a name, options (with the ``name`` among them), or a ``cutk.Recipe`` of your
            own, with its own loss.
        select: the rule that chooses.
        labels: int64 ``[N]``, as given, where the dataset doesn't hold them or reading them takes long.
        classes: their names, in the order of the model's outputs, as many as it has. Where the dataset names classes
            itself (``dataset.classes``), labels go by the names; validation samples that name classes always do.
        collate: makes ``(x, labels)`` of a list of the dataset's items, where these are dictionaries, say.
        mean: what to subtract from images scaled to 0 … 1, or from features: one number, or one for each channel or
            feature; 0 if not given.
        std: what to divide by, likewise; 1 if not given.
        size: height and width to scale images to, where they differ.
        build: makes the architecture with new weights, for methods that train one from scratch. Without it, modules
            draw their own anew.
        suspect_trigger: a picture of a trigger, transparent around it: how well it works on validation images is
            measured before and after.
        suspects_by: the name of a detector that ranks suspects; if not given, they are ranked by what the method
            suspects, as ``seal`` and those with a detector before them do, or by what it took from them.
        options: of unlearners by name: ``{"ssd": {"dampening": 1}}``.
        search: ``grid``, ``default``, or ``random:N``.
        budget: seconds after which no further candidate is tried.
        max_accuracy_loss: how much validation accuracy may be lost, 0 to 1.
        device: where to compute; ``auto`` asks the machine.
        precision: ``fp32`` if not given, or ``bf16``.
        workers: processes that read samples ahead; 0 reads in this one.
        seed: of the methods' chance.
        calibrate: plant each registered manipulation that fits into the samples that aren't bad, train on that, and
            measure what each method heals: ``report.calibration``. A number in (0, 1] says what part of all bad samples
            ``bad`` is taken for there; 0.5 if True.
        calibration_runs: the folder that keeps these models, so that the same call goes on where one was stopped.
        plugins: Python files whose components may be used without being installed.
        progress: called as ``progress(what, done, total)``.
        force: go on though the model is near chance on these samples, or validation samples were trained on.

    Raises:
        UsageError: if the request can't be carried out as given, or the model is near chance on these samples: it says
            what would fit. A method that fails raises nothing: see
            ``report.failed``.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(model).__name__}.")
    bad = list(bad) if isinstance(bad, Iterator) else bad  # which is looked at more than once
    given_plan: dict[str, Any] = {}
    for name, value in (("select", select), ("search", search), ("device", device), ("precision", precision)):
        if value is not None:
            given_plan[name] = value
    if method is not None:
        given_plan["unlearners"] = [method] if isinstance(method, str) else list(method)
    if isinstance(recipe, str):
        given_plan["recipe"] = {"name": recipe}
    elif isinstance(recipe, Mapping):
        given_plan["recipe"] = dict(recipe)
    for name, count in (("seed", seed), ("workers", workers)):
        if type(count) is not int or count < 0:
            raise UsageError(f"{name}: expected a whole number from 0 up, got {count!r}.")
    for name, values in (options or {}).items():
        if not isinstance(values, Mapping):
            raise UsageError(f"options: expected a mapping of options for '{name}', got {values!r}.")
    if options:
        given_plan["options"] = {name: dict(values) for name, values in options.items()}
    limits = limits_of(max_accuracy_loss, budget)
    registry, began = load_registry(inline=plugins), time.monotonic()
    methods = methods_of(registry, given_plan, limits, seed, suspects_by=suspects_by)
    given, held_out = _read(model, dataset, bad, validation, labels, classes, collate, size, methods.device)
    if held_out is not None and not force:
        _require_apart(given, held_out)
    tell = progress or (lambda _what, _done, _total: None)
    problem = posed(
        *(model, given, bad_indices(bad, len(given)), held_out, methods),
        normalisation=normalisation_by(given, mean, std),
        size=size,
        workers=workers,
        recipe=recipe if isinstance(recipe, Recipe) else None,
        build=build,
        python=True,
        tell=tell,
    )
    if not force:
        require_fitting(problem.sanity)
    if suspect_trigger is not None:
        problem.suspect(read_trigger(Path(suspect_trigger), problem.task.train.shape))
    found = repair(problem, methods, Observer(), tell)
    if calibrate:
        part, runs = (
            ALPHA if calibrate is True else calibrate,
            None if calibration_runs is None else Path(calibration_runs),
        )
        left = math.inf if budget is None else budget - (time.monotonic() - began)
        planted = calibrated(problem, methods, registry, part, runs, left, Observer(), tell)
        found.report = found.report.model_copy(update={"calibration": planted})
    pictures = thumbnails(problem.task.train, found.moved)
    inner: Any = found.model
    material = handed_over(model, problem, methods, given, held_out)
    # Samples of a shape of their own were normalised by whoever hands them over.
    metadata = noted(problem.classes, None if inner.shape else problem.task.train.normalisation, {})
    return Repair(restored(model, inner.inner), found.report, found.suspects, pictures, material, metadata)


def _read(
    model: nn.Module,
    dataset: object,
    bad: object,
    validation: object | None,
    labels: Tensor | None,
    classes: Sequence[str] | None,
    collate: Callable[[list[Any]], Any] | None,
    size: tuple[int, int] | None,
    device: torch.device,
) -> tuple[Given, Given | None]:
    """Return training and validation samples with the classes in the order of the model's outputs.

    Raises:
        UsageError: if they don't fit each other or the model.
    """
    train = given_by(dataset, labels, collate, bad=bad)
    held_out = None if validation is None else given_by(validation, None, collate, "validation")
    given = train if classes is None else named(train, classes)
    shape = shape_of(given)
    probe = set_of(given, None, None, device, num_classes=len(given.classes), size=size)
    given = of_outputs(given, classes, require_logits(working_copy(model, shape).to(device), probe))
    if held_out is not None:
        held_out = validation_as(held_out, train, given)
    return given, held_out


def _require_apart(given: Given, held_out: Given) -> None:
    """Refuse validation samples that were trained on, as far as that is quickly seen."""
    if max(len(given), len(held_out)) <= _COMPARED and (shared := overlap(given, held_out)):
        listed = ", ".join(map(str, shared[:5]))
        raise UsageError(
            f"validation: {len(shared)} of {len(held_out)} samples are among the training samples ({listed}): expected "
            "others. Take them out, or go on with force=True."
        )
