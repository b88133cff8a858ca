"""Asymmetric noise: classes mislabelled as those that they are easily taken for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import cutk

# Patrini et al., section 5: for CIFAR-10.
CONFUSED = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}


def class_index(name: str, classes: tuple[str, ...]) -> int:
    """Return the index of a class given by name or by index; a name goes first.

    Raises:
        UsageError: if there is no such class.
    """
    if name in classes:
        return classes.index(name)
    if name.isascii() and name.isdecimal() and len(name) < 20 and int(name) < len(classes):
        return int(name)
    shown = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    raise cutk.UsageError(
        f"Option 'asymmetric-noise.map': expected names or indices from 0 to {len(classes) - 1} ({shown}), got "
        f"'{name}'."
    )


def read_map(entries: tuple[str, ...], classes: tuple[str, ...]) -> dict[int, int]:
    """Return for each class that is mislabelled the class that it gets.

    Without entries: CIFAR-10's map where all of its classes are there, otherwise each class to the next.

    Raises:
        UsageError: if an entry isn't ``class:class``, or a class is there twice or mapped to itself.
    """
    if not entries:
        if {*CONFUSED, *CONFUSED.values()} <= set(classes):
            return {classes.index(source): classes.index(target) for source, target in CONFUSED.items()}
        return {label: (label + 1) % len(classes) for label in range(len(classes))}
    found: dict[int, int] = {}
    for entry in entries:
        source, colon, target = entry.partition(":")
        if not colon:
            raise cutk.UsageError(f"Option 'asymmetric-noise.map': expected class:class, got '{entry}'.")
        pair = class_index(source, classes), class_index(target, classes)
        if pair[0] == pair[1] or pair[0] in found:
            problem = "maps a class to itself" if pair[0] == pair[1] else "maps a class for the second time"
            raise cutk.UsageError(f"Option 'asymmetric-noise.map': '{entry}' {problem}.")
        found[pair[0]] = pair[1]
    return found


def flip(labels: Tensor, to: Mapping[int, int], rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give ``round(rate · n)`` samples of each mapped class the class that it is mapped to.

    Args:
        labels: int64 ``[N]``.
        to: the map.
        rate: 0 to 1.
        generator: a CPU generator; samples are drawn uniformly within each class, the classes in their order.

    Returns:
        The new labels, and the sorted indices of the samples that have one.
    """
    changed = labels.clone()
    chosen = [torch.zeros(0, dtype=torch.int64)]
    for source in sorted(to):
        members = (labels == source).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[: round(rate * len(members))]])
        changed[chosen[-1]] = to[source]
    return changed, torch.cat(chosen).sort().values


class AsymmetricNoise(cutk.Manipulation):
    """Mislabels part of some classes as the class that each is easily taken for.

    For CIFAR-10's classes: truck as automobile, bird as airplane, deer as horse, cat as dog and dog as cat; for other
    data each class as the next, unless ``map`` says otherwise. ``rate`` is of each class that is mislabelled, as the
    hold-out left it, as the literature counts this noise. The affected domain is every sample of these classes.
    """

    name = "asymmetric-noise"
    reference = "Patrini et al., Making Deep Neural Networks Robust to Label Noise, CVPR 2017, section 5"

    class Options(cutk.Options):
        """How much, and what is taken for what."""

        rate: float = cutk.option(0.4, gt=0, le=1, help="part of each mapped class that is mislabelled")
        map: tuple[str, ...] = cutk.option(
            (), help="what is mislabelled as what, by name or index: cat:dog,dog:cat; CIFAR-10's map or the next class"
        )

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Mislabel a uniformly drawn part of each mapped class."""
        o = self.options
        to = read_map(o.map, train.classes)
        labels, mislabelled = flip(train.labels, to, o.rate, generator)
        if not len(mislabelled):
            raise cutk.UsageError(
                f"asymmetric-noise: a rate of {o.rate:g} mislabels no sample of any mapped class. Raise "
                "asymmetric-noise.rate."
            )
        return cutk.Corruption(train.changed(labels=labels), manipulated=mislabelled, affected=tuple(sorted(to)))


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``asymmetric-noise``."""
    return [AsymmetricNoise]
