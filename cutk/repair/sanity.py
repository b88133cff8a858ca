"""A look before any work: do these weights and these samples belong together, and if not, what would fit?"""

from __future__ import annotations

import itertools
import shlex
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cutk.data.batches import Scaling, TrainSet
from cutk.data.samples import Form, Normalisation, Shape
from cutk.errors import UsageError
from cutk.learning.recipe import Recipe, classes_of
from cutk.repair.records import Judged, Sanity
from cutk.repair.verdict import percent

__all__ = [
    *("advice", "balanced_accuracy", "checked", "class_order", "fitting", "near_chance", "require_fitting"),
    "tried_with",
]

# Accuracy counts as chance up to this part of the way from chance to certainty.
_NEAR = 0.2
# Alternatives are tried on so many samples; on fewer where the weights are off chance, and may just be weak.
_TRIED_ON, _TRIED_ON_WEAK = 512, 128
# Below this balanced accuracy it is asked whether another way of preparing samples is so much better.
_WEAK, _BETTER = 0.8, 0.1
# Normalisations that differ by so little in accuracy are as good as each other; so many of them are named.
_EQUAL, _TOLD = 0.005, 3
# How images are most often normalised, by the options that say so.
_COMMON = {
    "--mean 0 --std 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "--mean 0.5 --std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "--mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "--mean 0.1307 --std 0.3081": ((0.1307,) * 3, (0.3081,) * 3),
    "--mean 0 --std 0.00392157": ((0.0,) * 3, (1 / 255,) * 3),
}


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean over the classes in ``labels`` of what is right of each (both int64 ``[n]``, n ≥ 1).

    >>> balanced_accuracy(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]))
    0.5
    """
    recalls = [float((predicted[labels == label] == label).double().mean()) for label in torch.unique(labels).tolist()]
    return sum(recalls) / len(recalls)


def near_chance(accuracy: float, classes: int) -> bool:
    """Say whether a balanced accuracy over so many classes is about what guessing gives.

    >>> near_chance(0.25, 10), near_chance(0.6, 10), near_chance(0.55, 2)
    (True, False, True)
    """
    chance = 1 / classes
    return classes > 1 and accuracy <= chance + _NEAR * (1 - chance)


def class_order(predicted: Tensor, labels: Tensor, classes: int) -> list[int]:
    """Return for each class of the data the output that stands for it: pairs are taken by how often they meet.

    >>> class_order(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]), 2)
    [1, 0]
    """
    met = torch.zeros(classes, classes)
    met.index_put_((labels, predicted), torch.ones(len(labels)), accumulate=True)
    found, free = [-1] * classes, set(range(classes))
    for flat in met.flatten().argsort(descending=True, stable=True).tolist():
        label, output = divmod(flat, classes)
        if found[label] < 0 and output in free:
            found[label] = output
            free.discard(output)
    return found


def _raw(samples: TrainSet, most: int) -> tuple[Tensor, Tensor]:
    """Return evenly spaced samples as they lie there, and their labels."""
    which = torch.unique(torch.linspace(0, len(samples) - 1, min(most, len(samples))).long())
    parts = list(samples._read(iter([list(torch.split(which, 128))])))
    return torch.cat([x for _, x in parts]), samples.labels[which]


class _Way(NamedTuple):
    """A way in which samples could reach the model: how to ask for it, and what becomes of a batch."""

    options: str
    normalisation: Normalisation
    reversed: bool


def _in_python(options: str) -> str:
    """Return a way's options as arguments of ``cutk.unlearn``, or what to do where it has none.

    >>> _in_python("--mean 0.5 --std 0.2,0.3 --channels bgr")
    'mean=0.5, std=[0.2, 0.3], channels the other way round'
    """
    words, said = options.split(), []
    for word, value in itertools.pairwise([*words, ""]):
        if word in ("--mean", "--std"):
            said.append(f"{word[2:]}={'[' + value.replace(',', ', ') + ']' if ',' in value else value}")
        elif word == "--channels":
            said.append("channels the other way round")
        elif word == "--normalise":
            said.append("mean= and std= of each feature as measured on the samples")
    return ", ".join(said)


def _classes_as(names: tuple[str, ...], order: list[int], python: bool) -> str:
    """Say that a class of the data is what another output stands for: ``order`` holds each class's output."""
    named = [names[order.index(output)] for output in range(len(names))]
    if not python:
        return f"--classes {shlex.quote(','.join(named))}"
    if names != tuple(map(str, range(len(names)))):
        return f"classes={named}"
    moved = [f"{label} → {output}" for label, output in enumerate(order) if label != output]
    return f"labels as the outputs stand, {', '.join(moved)}"


def _ways(form: Form, shape: Shape, x: Tensor, bgr: bool) -> list[_Way]:
    if form == "tokens":
        return []
    if form == "features":
        mean, std = x.double().mean(0), x.double().std(0, correction=0)
        own = Normalisation(tuple(mean.tolist()), tuple((std + (std == 0)).tolist()))
        return [_Way("--normalise", own, False)]
    channels = shape[0]
    known = {
        " ".join(part.split(",")[0] for part in name.split()) if channels == 1 else name: Normalisation(
            mean[:channels], std[:channels]
        )
        for name, (mean, std) in _COMMON.items()
    }
    values = x.double() / 255
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)
    texts = [",".join(f"{value:.4g}" for value in each.tolist()) for each in (mean, std)]
    known[f"--mean {texts[0]} --std {texts[1]}"] = Normalisation(
        tuple(mean.tolist()), tuple((std + (std == 0)).tolist())
    )
    orders = (False, True) if channels == 3 else (False,)
    turned = " --channels rgb" if bgr else " --channels bgr"
    return [
        _Way(name + (turned if other else ""), norm, other)
        for (name, norm), other in itertools.product(known.items(), orders)
        if channels in (1, 3)
    ]


def fitting(
    model: nn.Module,
    samples: TrainSet,
    recipe: Recipe,
    names: tuple[str, ...],
    bgr: bool,
    *,
    weak: bool = False,
    python: bool = False,
) -> str:
    """Return what would suit the weights better than what was tried, as options of the command; empty if nothing.

    With ``python`` it comes as arguments of ``cutk.unlearn``. Of ``weak`` weights, not near chance, the order of
    classes is taken for right, and a small difference for chance.
    """
    x, labels = _raw(samples, _TRIED_ON_WEAK if weak else _TRIED_ON)
    classes, floor = len(names), 0.5
    found: list[tuple[float, str, bool]] = []  # balanced accuracy, options, and whether normalisation alone is other
    given = _Way("", samples.normalisation, False)
    for way in (given, *_ways(samples.form, samples.shape, x, bgr)):
        scaling = Scaling(samples.form, samples.shape, way.normalisation, samples.device)
        predicted = []
        for part in torch.split(x.flip(1) if way.reversed else x, 128):
            with torch.inference_mode(), recipe.autocast():
                predicted.append(model.eval()(scaling(part.to(samples.device))).float().cpu())
        guesses = classes_of(torch.cat(predicted).nan_to_num())
        straight = balanced_accuracy(guesses, labels)
        asked = _in_python(way.options) if python else way.options
        if weak:
            if way is given:
                floor = max(floor, straight + _BETTER)
            elif straight > floor:
                found.append((straight, asked, not way.reversed))
            continue
        order = class_order(guesses, labels, classes)
        mixed = balanced_accuracy(guesses, torch.tensor(order)[labels])
        others = (", " if python else " ").join(filter(None, (asked, _classes_as(names, order, python))))
        for value, text in ((straight, asked), (mixed - 1e-6, others)):
            # What is learnt from the samples themselves has to be well beyond what such a choice gives by chance.
            if text and not near_chance(value, classes) and value > floor:
                found.append((value, text, text == asked and not way.reversed))
    return _told(found)


def _told(found: list[tuple[float, str, bool]]) -> str:
    """Return the best of what was tried, and other normalisations as good as that: nobody can tell these apart."""
    if not found:
        return ""
    found = sorted(found, key=lambda each: -each[0])
    best = found[0]
    equal = [each for each in found if each[2] and each[0] >= best[0] - _EQUAL][:_TOLD] if best[2] else [best]
    return " or ".join(f"{text} ({percent(value)})" for value, text, _ in equal)


def checked(
    model: nn.Module,
    samples: TrainSet,
    predicted: Tensor,
    original: Judged,
    recipe: Recipe,
    names: tuple[str, ...],
    bgr: bool = False,
    stands_in: bool = False,
    python: bool = False,
) -> Sanity:
    """Say how the weights do on held-out samples, or those that stand in for them, and on the bad ones.

    ``bgr`` says that images come in that order of channels, ``stands_in`` that ``samples`` were trained on, ``python``
    that what would fit is said in the terms of ``cutk.unlearn``.
    """
    reached = "–" if original.validation is None else original.validation.percent
    line = (
        f"The weights reach {reached} on {'training samples that are not listed' if stands_in else 'validation'}; "
        f"{original.as_labelled.percent} of the bad samples get their given label."
    )
    tried = tried_with(samples.normalisation, names)
    reaches = balanced_accuracy(predicted, samples.labels)
    near = near_chance(reaches, len(torch.unique(samples.labels)))
    fits = ""
    if near or reaches < _WEAK:
        fits = fitting(model, samples, recipe, names, bgr, weak=not near, python=python)
    return Sanity(line=line, near_chance=near, tried=tried, fits=fits)


def tried_with(norm: Normalisation, names: tuple[str, ...]) -> str:
    """Return in words how samples reached the model: normalised with what, and the classes in which order."""
    tried = f"mean {_listed(norm.mean)}, std {_listed(norm.std)}" if norm.mean else "no normalisation"
    return tried + ", classes " + ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def advice(tried: str, fits: str, go_on: str = "") -> str:
    """Say what may be wrong with weights that are near chance, what would fit, and by which option to ``go_on``."""
    said = f"That is near chance: wrong normalisation, order of classes or channels are likely. Tried: {tried}."
    said += f" What would fit: {fits}." if fits else " No other usual way fits better: is this the model's data?"
    if not go_on:
        return said
    return f"{said} {'Give what training used, or go' if fits else 'Go'} on with {go_on}."


def require_fitting(sanity: Sanity) -> None:
    """Raise a ``UsageError`` where weights are near chance, in the terms of ``cutk.unlearn``."""
    if sanity.near_chance:
        raise UsageError(f"{sanity.line} {advice(sanity.tried, sanity.fits, 'force=True')}")


def _listed(values: tuple[float, ...]) -> str:
    texts = [f"{value:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")
