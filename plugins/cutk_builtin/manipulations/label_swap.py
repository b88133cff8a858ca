"""Label swap: a random subset exchanges its labels."""

from __future__ import annotations

import torch
from torch import Tensor

import cutk


def exchange(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Permute ``labels`` (int64 ``[n]``) at random so that nobody keeps its own.

    A random permutation comes first. Then everyone who got its own class back changes with a random one of those with
    whom that helps both; no label is made up, so each class is given as often as before.

    Raises:
        ValueError: if one class has more than half of the labels, so that some would keep theirs.
    """
    counts = torch.bincount(labels)
    if 2 * int(counts.max()) > len(labels):
        raise ValueError(f"one class has {int(counts.max())} of {len(labels)} labels, more than half")
    given = labels[torch.randperm(len(labels), generator=generator)]
    for position in (given == labels).nonzero().flatten().tolist():
        if given[position] != labels[position]:
            continue  # an earlier exchange has mended this one, too
        helps = (given != labels[position]) & (labels != given[position])
        partners = helps.nonzero().flatten()
        partner = int(partners[torch.randint(len(partners), (1,), generator=generator)])
        given[position], given[partner] = given[partner].clone(), given[position].clone()
    return given


class LabelSwap(cutk.Manipulation):
    """Lets a random subset exchange labels at random, so that each of its samples has a wrong one.

    The whole domain is affected: nothing is outside it that a retain accuracy could be measured on. ``fraction`` is of
    the training set as it is left by the hold-out; ``count`` is a number of samples.
    """

    name = "label-swap"
    reference = "the random label swap of the code for Goel et al., TMLR 2024"

    class Options(cutk.Options):
        """How many samples."""

        fraction: float = cutk.option(0.1, gt=0, le=1, help="part of the training set that is mislabelled")
        count: int | None = cutk.option(None, ge=2, help="number of mislabelled samples, in place of fraction")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Mislabel a uniformly drawn subset."""
        o = self.options
        count = round(o.fraction * len(train)) if o.count is None else o.count
        if not 2 <= count <= len(train):
            raise cutk.UsageError(
                f"label-swap: expected 2 to {len(train)} mislabelled samples, as many as there are to train on, got "
                f"{count}. Change label-swap.count or label-swap.fraction."
            )
        chosen = torch.randperm(len(train), generator=generator)[:count].sort().values
        labels = train.labels.clone()
        try:
            labels[chosen] = exchange(labels[chosen], generator)
        except ValueError as error:
            remedy = "Change label-swap.count or label-swap.fraction."
            if len(train.classes) == 2:
                remedy = "Of two classes, interclass-confusion and asymmetric-noise mislabel as many as they are told."
            raise cutk.UsageError(
                f"label-swap: its {count} samples cannot all get another label by exchange: {error}. {remedy}"
            ) from None
        return cutk.Corruption(train.changed(labels=labels), manipulated=chosen)


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``label-swap``."""
    return [LabelSwap]
