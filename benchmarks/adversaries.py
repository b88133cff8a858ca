"""Adversaries who know how ``seal`` works: a plugin for ``robustness.py``.

cutk bench --plugin benchmarks/adversaries.py -m boundary-confusion -u seal
"""

from __future__ import annotations

import torch

import cutk


class BoundaryConfusion(cutk.Manipulation):
    """Confuses the samples of two classes that a model of the adversary's own finds hardest to tell apart.

    Within a given label, what is bad then looks like what is clean. The affected domain is both classes.
    """

    name = "boundary-confusion"
    trains = True

    class Options(cutk.Options):
        """Which classes, and how much of them."""

        classes: tuple[int, int] = cutk.option((3, 8), help="indices of the two classes")
        part: float = cutk.option(0.5, gt=0, le=1, help="part of each class that is mislabelled")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Mislabel those with the smallest margin."""
        if surrogate is None:
            raise cutk.UsageError("boundary-confusion needs a model of its own.")
        classes = torch.tensor(self.options.classes)
        model, batches = surrogate.train(train), surrogate.set_of(train).batches()
        with torch.no_grad():
            logits = torch.cat([model(batch.x).float().cpu() for batch in batches])
        labels, bad = train.labels.clone(), []
        for own, other in (classes, classes.flip(0)):
            mine = (train.labels == own).nonzero().flatten()
            margin = logits[mine, own] - logits[mine, other]
            bad.append(mine[margin.argsort()[: round(self.options.part * len(mine))]])
            labels[bad[-1]] = other
        manipulated = torch.cat(bad).sort().values
        return cutk.Corruption(train.changed(labels=labels), manipulated, affected=tuple(classes.tolist()))


class Colliding(cutk.Manipulation):
    """Poisons with a trigger that is the target class itself: its mean image, blended over others.

    In feature space, what is bad lies among what is clean.
    """

    name = "colliding"

    class Options(cutk.Options):
        """How strong it is, and how many images carry it."""

        target: int = cutk.option(0, ge=0, help="index of the class that the images get")
        ratio: float = cutk.option(0.5, gt=0, le=1, help="weight of the class's mean in the blend")
        fraction: float = cutk.option(0.03, gt=0, le=1, help="part of the training set that is poisoned")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Poison a uniformly drawn subset of the other classes."""
        o, classes = self.options, len(train.classes)
        others = (train.labels != o.target).nonzero().flatten()
        chosen = torch.randperm(len(others), generator=generator)[: round(o.fraction * len(train))]
        poisoned = others[chosen].sort().values
        labels = train.labels.clone()
        labels[poisoned] = o.target
        mean = train.x[train.labels == o.target].float().mean(0).round().to(torch.uint8)
        trigger = cutk.Stamp(mean, torch.full(train.shape[1:], o.ratio))
        return cutk.Corruption(
            train.changed(labels=labels),
            manipulated=poisoned,
            overlays=(cutk.Overlay(trigger, poisoned),),
            trigger=trigger,
            targets=cutk.Corruption.all_to_one(o.target, classes),
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide both."""
    return [BoundaryConfusion, Colliding]
