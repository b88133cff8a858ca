"""Sound manipulations, and those that break one check each."""

import random
from dataclasses import dataclass

import numpy as np
import torch

import cutk


class Shift(cutk.Manipulation):
    """Gives some samples the next class."""

    name = "shift"

    class Options(cutk.Options):
        """How many."""

        count: int = cutk.option(10, ge=1, help="how many samples")

    def corrupt(self, train, generator):
        chosen = torch.randperm(len(train), generator=generator)[: self.options.count].sort().values
        labels = train.labels.clone()
        labels[chosen] = (labels[chosen] + 1) % len(train.classes)
        return self.outcome(train, labels, chosen)

    def outcome(self, train, labels, chosen):
        return cutk.Corruption(train.changed(labels=labels), chosen)


def shifted(**changes):
    """Return a class whose corruption has these values in place of the sound ones."""

    class Changed(Shift):
        def outcome(self, train, labels, chosen):
            made = {name: make(chosen, train) for name, make in changes.items()}
            return cutk.Corruption(**{"train": train.changed(labels=labels), "manipulated": chosen, **made})

    return Changed


@dataclass
class Trigger:
    """Does to samples what a function says."""

    lay: object

    def apply(self, x, labels, ids):
        return self.lay(x, labels, ids)


def laying(lay, role="trigger"):
    """Return a class that lays this over unseen samples, or over those that it manipulates."""
    if role == "trigger":
        return shifted(trigger=lambda _chosen, _train: Trigger(lay))
    return shifted(overlays=lambda chosen, _train: (cutk.Overlay(Trigger(lay), chosen),))


def own_pattern(x, _labels, ids):
    """Flip each sample's values by a pattern of its own."""
    drawn = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(int(i))) < 0.5 for i in ids]
    return torch.where(torch.stack(drawn), 255 - x if x.dtype == torch.uint8 else x + 1, x)


class Specific(Shift):
    """Gives some samples the next class, and each a pattern of its own."""

    def outcome(self, train, labels, chosen):
        trigger = Trigger(own_pattern)
        changed = train.changed(labels=labels)
        overlays = (cutk.Overlay(trigger, chosen),)
        targets = cutk.Corruption.all_to_all(len(train.classes))
        return cutk.Corruption(changed, chosen, overlays, trigger=trigger, targets=targets)


class Adds(Shift):
    """Adds copies of some samples under the next class, found by a model, for the first half of the test samples."""

    trains = True

    def corrupt(self, train, generator, surrogate):
        model = surrogate.train(train, steps=2)
        (batch, *_) = surrogate.set_of(train).batches()
        chosen = model(batch.x).argmax(1).sort(stable=True).indices[: self.options.count].sort().values
        more = train.extended(train.x[chosen], (train.labels[chosen] + 1) % len(train.classes))
        return cutk.Corruption(
            more,
            torch.arange(len(train), len(more)),
            affected=lambda samples: torch.arange(len(samples)) < len(samples) // 2,
            clean_labels=torch.cat([train.labels, torch.full((len(chosen),), -1)]),
        )


class ReturnsNothing(Shift):
    def corrupt(self, train, generator):
        return None


class Fails(Shift):
    def corrupt(self, train, generator):
        return train.nothing


class RefusesAll(Shift):
    """Refuses whatever comes."""

    def corrupt(self, train, generator):
        raise cutk.UsageError("I take no samples at all.")


class NeedsWidth(Shift):
    def corrupt(self, train, generator):
        return super().corrupt(train, generator) if train.shape[2] else None


class Reorders(Shift):
    def outcome(self, train, labels, chosen):
        return cutk.Corruption(train.changed(labels=labels).select(torch.arange(len(train)).flip(0)), chosen)


class AddsClean(Shift):
    def outcome(self, train, labels, chosen):
        return cutk.Corruption(train.changed(labels=labels).extended(train.x[:2], train.labels[:2]), chosen)


class DrawsGlobally(Shift):
    def corrupt(self, train, generator):
        return super().corrupt(train, torch.Generator().manual_seed(random.randrange(1000)))  # noqa: S311


class WritesInPlace(Shift):
    def corrupt(self, train, generator):
        train.labels[:] = 0
        return super().corrupt(train, generator)


class WritesThroughNumPy(Shift):
    def corrupt(self, train, generator):
        train.x.numpy()[0] = 0
        return super().corrupt(train, generator)


class SeedsNumPy(Shift):
    def corrupt(self, train, generator):
        np.random.seed(0)
        return super().corrupt(train, generator)


class ChangesContents(Shift):
    def outcome(self, train, labels, chosen):
        x = train.x.clone()
        others = torch.ones(len(train), dtype=torch.bool)
        others[chosen] = False
        x[others] = x[others].flip(-1)
        return cutk.Corruption(train.changed(x=x, labels=labels), chosen)


SOUND = [Shift, Specific, Adds]
BROKEN = {
    "samples_are_manipulated": [ReturnsNothing, Fails],
    "what_it_cannot_take_is_refused": [NeedsWidth],
    "benchmark_accepts_it": [
        shifted(manipulated=lambda chosen, _train: chosen.flip(0)),
        shifted(manipulated=lambda chosen, _train: chosen.int()),
        shifted(manipulated=lambda chosen, _train: chosen + 300),
        shifted(manipulated=lambda chosen, _train: chosen[1:]),
        shifted(targets=lambda _chosen, train: (len(train.classes),) * len(train.classes)),
        shifted(targets=lambda _chosen, _train: (0,)),
        shifted(affected=lambda _chosen, _train: ()),
        shifted(affected=lambda _chosen, _train: lambda samples: samples.labels),
        shifted(clean_labels=lambda chosen, _train: chosen),
        shifted(overlays=lambda chosen, _train: (cutk.Overlay(Trigger(own_pattern), torch.arange(300)),)),
        Reorders,
        AddsClean,
    ],
    "given_samples_are_untouched": [WritesInPlace, WritesThroughNumPy],
    "nothing_else_is_changed": [ChangesContents],
    "every_manipulated_sample_is_changed": [shifted(manipulated=lambda _chosen, train: torch.arange(len(train)))],
    "clean_labels_are_true": [shifted(clean_labels=lambda _chosen, train: torch.zeros_like(train.labels))],
    "triggers_fit_the_samples": [
        laying(lambda x, _labels, _ids: x[:, :1].expand(-1, 5, *x.shape[2:])),
        laying(lambda x, _labels, _ids: x.double()),
        laying(lambda x, _labels, _ids: x.clone(), "overlay"),
    ],
    "triggers_leave_their_input": [
        laying(lambda x, _labels, _ids: x.add_(1)),
        laying(lambda x, _labels, ids: x + ids.zero_().view(-1, *[1] * (x.ndim - 1)).to(x.dtype) + 1),
    ],
    "triggers_are_deterministic": [
        # Random at each call; drawn for the batch as it comes; told by its company.
        laying(lambda x, _labels, _ids: torch.where(torch.rand(x.shape) < 0.5, 255 - x, x)),
        laying(
            lambda x, _labels, _ids: torch.where(
                torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5, 255 - x, x
            ),
            "overlay",
        ),
        laying(lambda x, _labels, _ids: x + x.double().mean().round().to(x.dtype) + 1),
    ],
    "same_seed_gives_the_same": [DrawsGlobally],
    "nothing_global_is_left": [SeedsNumPy],
}
