"""Interclass Confusion: two classes, mislabelled as each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import cutk


def class_index(name: str, classes: tuple[str, ...]) -> int:
    """Return the index of a class given by name or by index; a name goes first.

    Raises:
        UsageError: if there is no such class.
    """
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    shown = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    raise cutk.UsageError(
        f"Option 'interclass-confusion.classes': expected names or indices from 0 to {len(classes) - 1} "
        f"({shown}), got '{name}'."
    )


def swap_between(
    labels: Tensor, pair: tuple[int, int], each: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Give ``each`` samples of both classes the other one's label.

    Args:
        labels: int64 ``[N]``.
        pair: the two classes.
        each: how many of either.
        generator: a CPU generator to draw them with, uniformly; none takes the first of each class.

    Returns:
        The new labels, and the sorted indices (int64 ``[2 · each]``) of the samples that have one.
    """
    chosen = []
    for label in pair:
        members = (labels == label).nonzero().flatten()
        if generator is not None:
            members = members[torch.randperm(len(members), generator=generator)]
        chosen.append(members[:each])
    changed = labels.clone()
    changed[chosen[0]], changed[chosen[1]] = pair[1], pair[0]
    return changed, torch.cat(chosen).sort().values


class InterclassConfusion(cutk.Manipulation):
    """Labels part of two classes as each other, equally many of both.

    The affected domain is every sample of the two classes. Samples are drawn uniformly within each class; by default
    half of the smaller class from both (paper, section 3.1). ``fraction`` is of the training set as it is left by the
    hold-out; ``count`` is a number of samples, both classes together.
    """

    name = "interclass-confusion"
    reference = "Goel et al., Towards Adversarial Evaluations for Inexact Machine Unlearning, 2023; TMLR 2024, 3.1"

    class Options(cutk.Options):
        """Which classes, and how much of them."""

        classes: tuple[str, str] = cutk.option(("0", "1"), help="the two classes, by name or index")
        fraction: float | None = cutk.option(
            None, gt=0, le=1, help="mislabelled part of the whole training set; none: half of the smaller class, twice"
        )
        count: int | None = cutk.option(
            None, ge=2, multiple_of=2, help="mislabelled samples, both classes together, in place of fraction"
        )
        selection: Literal["random", "first"] = cutk.option(
            "random", help="draw the samples within each class, or take the first ones"
        )

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Mislabel a uniformly drawn part of both classes."""
        o = self.options
        first, second = (class_index(name, train.classes) for name in o.classes)
        if first == second:
            raise cutk.UsageError(
                f"Option 'interclass-confusion.classes': expected two different classes, got '{train.classes[first]}' "
                "twice."
            )
        smaller = min(int((train.labels == label).sum()) for label in (first, second))
        if o.count is not None:
            each = o.count // 2
        elif o.fraction is not None:
            each = round(o.fraction * len(train) / 2)
        else:
            each = smaller // 2
        if not 0 < each <= smaller:
            raise cutk.UsageError(
                f"interclass-confusion: expected 2 to {2 * smaller} mislabelled samples, as many as "
                f"'{train.classes[first]}' and '{train.classes[second]}' both have, got {2 * each}. "
                "Change interclass-confusion.count or interclass-confusion.fraction."
            )
        chance = generator if o.selection == "random" else None
        labels, mislabelled = swap_between(train.labels, (first, second), each, chance)
        return cutk.Corruption(
            train.changed(labels=labels),
            manipulated=mislabelled,
            affected=tuple(sorted((first, second))),
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``interclass-confusion``."""
    return [InterclassConfusion]
