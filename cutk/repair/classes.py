"""Which output of a model stands for which class, where a caller's data name classes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cutk.data.given import Given
from cutk.data.samples import Samples
from cutk.errors import UsageError
from cutk.repair.inputs import own_classes

__all__ = ["named", "of_outputs", "validation_as"]

_NAMED = 10


def named(given: Given, classes: Sequence[str]) -> Given:
    """Return training samples with ``classes``, the caller's names in the order of the model's outputs.

    Where the data name classes as well, labels go by the names; where they share none, they are called anew.

    Raises:
        UsageError: if there are fewer names than labels, or the data have a class that isn't among them.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise UsageError(f'classes: expected a list of names, such as ["cat", "dog"], got {classes!r:.80}.')
    names, own = tuple(map(str, classes)), own_classes(given)
    if len(set(names)) < len(names):
        raise UsageError(f"classes: expected each name once, got {_few(names)}.")
    if own is not None and set(own) & set(names):
        return _by_name(given, own, names, "classes")
    highest = int(given.labels.max())
    if highest >= len(names):
        raise UsageError(
            f"classes: expected at least {highest + 1} names, as there are labels up to {highest}, got {len(names)} "
            f"({_few(names)})."
        )
    return _relabelled(given, given.labels, names)


def of_outputs(given: Given, classes: Sequence[str] | None, outputs: int) -> Given:
    """Return training samples with as many classes as the model tells apart, where nobody has named these.

    Raises:
        UsageError: if the caller named ``classes``, and not so many.
    """
    if classes is not None:
        if len(given.classes) != outputs:
            raise UsageError(
                f"classes: expected {outputs} names, as the model tells {outputs} classes apart, got "
                f"{len(given.classes)} ({_few(given.classes)})."
            )
        return given
    if isinstance(given.content, Samples) or int(given.labels.max()) >= outputs:
        return given
    own = own_classes(given)
    if own is None:
        return replace(given, classes=_numbers(outputs))
    # A part of a dataset that has more of them, say.
    return replace(given, classes=own[:outputs]) if len(own) > outputs else given


def validation_as(held_out: Given, train: Given, given: Given) -> Given:
    """Return validation samples with the classes of the training samples.

    Args:
        held_out: as they came.
        train: the training samples as they came.
        given: the training samples with the classes in the order of the model's outputs.

    Raises:
        UsageError: if some are of a class that the model doesn't know, or it can't be told of which they are.
    """
    own, known, classes = own_classes(held_out), own_classes(train), given.classes
    if own is not None and set(own) & set(classes):
        return _by_name(held_out, own, classes, "validation")
    # They count as the training samples do, by another name for each class.
    same = own is None or own in (known, _numbers(len(own)))
    if not same and (known is not None or classes != _numbers(len(classes))):
        raise UsageError(f"validation: expected classes among {_few(classes)}, got {_few(own or ())}.")
    if own is None and known is not None and not torch.equal(train.labels, given.labels):
        raise UsageError(
            f"validation: the training samples' own classes ({_few(known)}) come in another order than classes= "
            f"({_few(classes)}), and the validation samples name none: expected a dataset with classes."
        )
    highest = int(held_out.labels.max())
    if highest >= len(classes):
        raise UsageError(
            f"validation: expected labels from 0 to {len(classes) - 1}, as there are {len(classes)} classes, got "
            f"{highest}."
        )
    return _relabelled(held_out, held_out.labels, classes)


def _by_name(given: Given, own: Sequence[str], classes: tuple[str, ...], what: str) -> Given:
    unknown = [own[i] for i in torch.unique(given.labels).tolist() if own[i] not in classes]
    if unknown:
        raise UsageError(f"{what}: expected classes among {_few(classes)}, got {_few(unknown)}.")
    place = torch.tensor([classes.index(name) if name in classes else -1 for name in own], dtype=torch.int64)
    return _relabelled(given, place[given.labels], classes)


def _relabelled(given: Given, labels: Tensor, classes: tuple[str, ...]) -> Given:
    content = given.content
    if isinstance(content, Samples):
        content = Samples(content.x, labels, classes, content.ids, content.names, content.published)
    return replace(given, content=content, labels=labels, classes=classes, validation=None)


def _numbers(count: int) -> tuple[str, ...]:
    """Return what classes are called that nobody names."""
    return tuple(map(str, range(count)))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
