"""What a developer can measure of a model without the truth: on validation samples, bad ones and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cutk.data.batches import TrainSet
from cutk.data.triggers import Stamp
from cutk.learning.network import layers
from cutk.learning.recipe import Progress, Recipe, classes_of
from cutk.problem.task import Task
from cutk.repair.records import Confusion, Judged, Touched
from cutk.repair.verdict import Proportion, proportion

__all__ = ["Outputs", "Seen", "attacked", "judged", "outputs", "seen", "taught", "touched"]

# A class is taken for another one by the bad samples where so large a part of them says so.
_NOTABLE = 0.1
# So many samples go through a model before it is told how far it has come.
_AT_ONCE = 4096


class Outputs(NamedTuple):
    """What a model says of samples: predicted classes int64 ``[n]``, and the given labels' probabilities ``[n]``."""

    predicted: Tensor
    of_label: Tensor


def outputs(model: nn.Module, samples: TrainSet, recipe: Recipe, tell: Progress | None = None) -> Outputs:
    """Ask a model about all samples, in parts: logits of a million samples in a thousand classes don't fit."""
    parts = []
    for part in torch.split(torch.arange(len(samples)), _AT_ONCE):
        logits = recipe.logits(model, samples, part)
        of_label = logits.softmax(1).gather(1, samples.labels[part, None]).flatten()
        parts.append(Outputs(classes_of(logits), of_label))
        if tell is not None:
            tell(int(part[-1]) + 1, len(samples))
    return Outputs(torch.cat([p.predicted for p in parts]), torch.cat([p.of_label for p in parts]))


@dataclass(frozen=True)
class Seen:
    """What a model says of all training samples, and what it predicts of validation samples, int64 ``[n]``."""

    train: Outputs
    validation: Tensor | None


def seen(model: nn.Module, problem: Task, tell: Progress | None = None) -> Seen:
    """Ask a model about everything that the developer has."""
    validation = None if problem.validation is None else problem.recipe.predict(model, problem.validation)
    return Seen(outputs(model, problem.train, problem.recipe, tell), validation)


def taught(model: nn.Module, problem: Task) -> Tensor:
    """Return which classes the bad samples call what: bool ``[classes, classes]``, row class and column given label.

    Their classes are the original's best other guesses; what a tenth of the bad samples says counts.
    """
    labels, n = problem.train.labels[problem.identified].cpu(), problem.num_classes
    logits = problem.recipe.logits(model, problem.train, problem.identified)
    instead = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    counts = torch.bincount(instead * n + labels, minlength=n * n).view(n, n)
    counts.fill_diagonal_(0)  # of a single class there is no other one
    return counts >= max(1.0, _NOTABLE * len(labels))


def confusion(
    predicted: Tensor, before: Tensor, labels: Tensor, calls: Tensor, classes: tuple[str, ...]
) -> Confusion | None:
    """Return how far a model has learnt what the bad samples' labels teach; none if that can't be seen.

    Args:
        predicted: of validation samples, int64 ``[n]``.
        before: likewise, by the original.
        labels: their classes, int64 ``[n]``.
        calls: which classes the bad samples call what, as by ``taught``.
        classes: by name.
    """
    of_bad = calls.any(1)
    mine = of_bad[labels]
    now, was, count = predicted == labels, before == labels, int(mine.sum())
    mistaken = proportion(int(calls[labels, predicted].sum()), count)
    right = proportion(int(now[mine].sum()), count)
    if mistaken is None or right is None:
        return None
    return Confusion(
        classes=[classes[i] for i in of_bad.nonzero().flatten().tolist()],
        mistaken=mistaken,
        right=right,
        others=proportion(int(now[~mine].sum()), len(labels) - count),
        righted=int((now & ~was & mine).sum()),
        wronged=int((was & ~now & mine).sum()),
    )


def touched(before: nn.Module, after: nn.Module) -> list[Touched]:
    """Say layer by layer what became of the weights; layers are called as the user's state dict calls them."""
    names = {id(module): name for name, module in before.named_modules()}
    old, new = before.state_dict(), after.state_dict()
    found = []
    for group in layers(before):
        keys = [
            f"{names[id(module)]}.{own}".lstrip(".")
            for module in group
            for own, _ in module.named_parameters(recurse=False)
        ]
        pairs = [(old[key].double().cpu(), new[key].double().cpu()) for key in dict.fromkeys(keys)]
        if not pairs:
            continue
        size = sum(float((a**2).sum()) for a, _ in pairs) ** 0.5
        change = sum(float(((b - a) ** 2).sum()) for a, b in pairs) ** 0.5
        found.append(
            Touched(
                layer=keys[0].removeprefix("inner.").rpartition(".")[0] or keys[0].removeprefix("inner."),
                numbers=sum(a.numel() for a, _ in pairs),
                changed=sum(int((a != b).sum()) for a, b in pairs),
                relative=change / size if size else 0.0,
            )
        )
    return found


def _by_class(predicted: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, Proportion]:
    found = {}
    for label in torch.unique(labels).tolist():
        mine = labels == label
        share = proportion(int((predicted[mine] == label).sum()), int(mine.sum()))
        if share is not None:
            found[classes[label]] = share
    return found


def attacked(model: nn.Module, samples: TrainSet, trigger: Stamp, target: int, recipe: Recipe) -> dict[str, Any]:
    """Return how many samples of other classes a model takes for ``target`` with a trigger and without, for ``judged``.

    A few are taken for it by any model: only what the trigger adds is its own doing.
    """
    others = (samples.labels != target).nonzero().flatten()
    parts = []
    for _, x in samples._read(iter([list(torch.split(others, 128))])) if len(others) else ():
        plain = x.to(samples.device)
        with torch.inference_mode(), recipe.autocast():
            each = [model.eval()(samples._scaling(images)) for images in (trigger.apply(plain), plain)]
        parts.append(torch.stack([logits.argmax(1) == target for logits in each]).cpu())
    marked, plain = torch.cat(parts, 1) if parts else torch.zeros(2, 0, dtype=torch.bool)
    return {
        "attack": proportion(int(marked.sum()), len(others)),
        "attack_without": proportion(int(plain.sum()), len(others)),
        "attack_alone": int((marked & ~plain).sum()),
    }


def judged(
    name: str,
    says: Seen,
    original: Seen,
    problem: Task,
    classes: tuple[str, ...],
    calls: Tensor | None,
    **measured: Any,
) -> Judged:
    """Return what the developer can tell of a model, and how it differs from the original, with what was measured.

    ``calls`` is which classes the bad samples call what (``taught``), if validation samples are there to show it.
    """
    bad, rest = problem.identified, problem.retained
    labels, now, was = problem.train.labels, says.train.predicted, original.train.predicted
    as_labelled = proportion(int((now[bad] == labels[bad]).sum()), len(bad))
    if as_labelled is None:
        raise ValueError("expected at least one bad sample")
    counted = was[bad] == labels[bad]
    counts = torch.bincount(now[bad], minlength=len(classes)).tolist()
    validation, right, learnt = None, {}, None
    if says.validation is not None and problem.validation is not None:
        truth = problem.validation.labels
        validation = proportion(int((says.validation == truth).sum()), len(truth))
        right = _by_class(says.validation, truth, classes)
        if calls is not None and original.validation is not None:
            learnt = confusion(says.validation, original.validation, truth, calls, classes)
    return Judged(
        name=name,
        validation=validation,
        classes=right,
        confusion=learnt,
        as_labelled=as_labelled,
        no_longer=int((counted & (now[bad] != labels[bad])).sum()),
        counted=int(counted.sum()),
        predictions={classes[i]: n for i, n in enumerate(counts) if n},
        agreement=proportion(int((now[rest] == was[rest]).sum()), len(rest)),
        **measured,
    )
