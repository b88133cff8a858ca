"""Components for the test kit: a sound one of each kind, and beside it those that break one check each."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import numpy as np
import torch
from pydantic import field_validator
from torch import nn

import cutk


class Counter:
    """What a component must not keep: how often it has been asked."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return self.count


# Sound components, and what is broken about each of the others.


class Ascent(cutk.Unlearner):
    """Climbs the loss on S_f for three steps."""

    name = "ascent"

    class Options(cutk.Options):
        """How far."""

        steps: int = cutk.option(3, ge=1, help="steps")
        weight: float = cutk.option(1.0, gt=0, help="weight of the prepared direction")
        halves: bool = cutk.option(False, help="read by prepare")

    grid = ({"steps": 1}, {"steps": 2})
    prepared_by = ("halves",)

    def prepare(self, task):
        return {"mean": task.identified.float().mean() * (0.5 if self.options.halves else 1.0)}

    def unlearn(self, task, state=None):
        steps = self.options.steps
        batches = task.train.batches(task.identified, 4, shuffle=True, augment=True, steps=steps)
        return task.recipe.fit(
            task.original, batches, lambda logits, batch: -cutk.cross_entropy(logits, batch), steps=steps, lr=1e-3
        )


class BadName(Ascent):
    name = "Bad Name!"


class Undocumented(Ascent):
    __doc__ = "Ascent"


class Unexplained(Ascent):
    class Options(Ascent.Options):
        steps: int = cutk.option(3, help=" ")


class Indescribable(Ascent):
    class Options(Ascent.Options):
        bag: dict[str, int] = cutk.option({}, help="what can't be put into words")


class InvalidDefault(Ascent):
    class Options(Ascent.Options):
        steps: int = cutk.option(0, ge=1, help="steps")


class LosesItsOptions(Ascent):
    class Options(Ascent.Options):
        @field_validator("steps")
        @classmethod
        def more(cls, value):
            return value + 1


class InvalidGrid(Ascent):
    grid = ({"steps": 1}, {"steps": 0})


class WrongPasses(Ascent):
    @classmethod
    def passes(cls, options, sizes):
        return (1.0, float("nan"))


class PassesAsANumber(Ascent):
    @classmethod
    def passes(cls, options, sizes):
        return 1.0


class ReturnsWeights(Ascent):
    def unlearn(self, task, state=None):
        return task.original.state_dict()


class ReturnsFeatures(Ascent):
    def unlearn(self, task, state=None):
        return task.original[:-1]


class ReturnsNaN(Ascent):
    def unlearn(self, task, state=None):
        task.original[-1].bias.data[0] = float("nan")
        return task.original


class Doubles(Ascent):
    def unlearn(self, task, state=None):
        return task.original.double()


class DrawsElsewhere(Ascent):
    counter = Counter()

    def unlearn(self, task, state=None):
        task.original[-1].bias.data += self.counter()
        return task.original


HOOKS = []


class HooksEveryone(Ascent):
    def unlearn(self, task, state=None):
        def double(module, _inputs, outputs):
            return 2 * outputs if isinstance(module, nn.Linear) else None

        HOOKS.append(nn.modules.module.register_module_forward_hook(double))
        return task.original


class WritesLabels(Ascent):
    def unlearn(self, task, state=None):
        task.train.labels[0] += 1
        return task.original


class WritesIndices(Ascent):
    def prepare(self, task):
        task.identified.zero_()


class WritesPixels(Ascent):
    def unlearn(self, task, state=None):
        task.train._pixels[0] = 0
        return task.original


class LeavesGradOff(Ascent):
    def unlearn(self, task, state=None):
        torch.set_grad_enabled(False)
        return task.original


class Seeds(Ascent):
    def unlearn(self, task, state=None):
        torch.manual_seed(0)
        return task.original


class WritesItsState(Ascent):
    def unlearn(self, task, state=None):
        state["mean"] += 1
        return task.original


class ReadsMoreInPrepare(Ascent):
    prepared_by = ()


class NeedsTwo(Ascent):
    def unlearn(self, task, state=None):
        task.original[-1].bias.data += task.train.labels[task.identified].float().std()
        return task.original


class NeedsSomeLeft(Ascent):
    def unlearn(self, task, state=None):
        if len(task.identified) == 8:
            raise ZeroDivisionError("all of them")
        return task.original


class NeedsValidation(Ascent):
    def unlearn(self, task, state=None):
        return task.original if len(task.validation) else None


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
        return cutk.Corruption(cutk.Images(train.pixels, labels, train.classes), chosen)


def shifted(**changes):
    """Return a class whose corruption has these values in place of the sound ones."""

    class Changed(Shift):
        def outcome(self, train, labels, chosen):
            values = {"manipulated": chosen, **{name: make(chosen, train) for name, make in changes.items()}}
            return cutk.Corruption(cutk.Images(train.pixels, labels, train.classes), **values)

    return Changed


def dark(train, opacity=1.0, channels=None):
    channels = channels or train.shape[0]
    return cutk.Stamp(torch.zeros(channels, *train.shape[1:], dtype=torch.uint8), torch.full(train.shape[1:], opacity))


class ReturnsNothing(Shift):
    def corrupt(self, train, generator):
        return None


class RefusesAll(Shift):
    def corrupt(self, train, generator):
        raise cutk.UsageError("I take no images at all.")


class DrawsGlobally(Shift):
    def corrupt(self, train, generator):
        return super().corrupt(train, torch.Generator().manual_seed(random.randrange(1000)))  # noqa: S311


class WritesInPlace(Shift):
    def corrupt(self, train, generator):
        train.labels[:] = 0
        return super().corrupt(train, generator)


class SeedsNumPy(Shift):
    def corrupt(self, train, generator):
        np.random.seed(0)
        return super().corrupt(train, generator)


class Linear(cutk.Model):
    """One linear layer, and a normalisation."""

    name = "linear"

    def build(self, shape, num_classes):
        flat = shape[0] * shape[1] * shape[2]
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(flat), nn.Linear(flat, num_classes))


def built(change):
    """Return a class that changes the sound network."""

    class Changed(Linear):
        def build(self, shape, num_classes):
            return change(super().build(shape, num_classes))

    return Changed


class OneClassTooMany(Linear):
    def build(self, shape, num_classes):
        return super().build(shape, num_classes + 1)


class TakesNothing(Linear):
    def build(self, shape, num_classes):
        raise cutk.UsageError("Too small.")


class FailsWithin(Linear):
    def build(self, shape, num_classes):
        return nn.Sequential(nn.MaxPool2d(2), super().build((shape[0], shape[1] // 2, shape[2] // 2), num_classes))


class SeedsWeights(Linear):
    def build(self, shape, num_classes):
        torch.manual_seed(0)
        return super().build(shape, num_classes)


class DrawsWeightsElsewhere(Linear):
    counter = Counter()

    def build(self, shape, num_classes):
        network = super().build(shape, num_classes)
        network[-1].bias.data += self.counter()
        return network


def unused(network):
    network.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    return network


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class BatchMean(nn.Module):
    def forward(self, x):
        return x - 0.5 * x.mean(0)


class Hidden(nn.Module):
    """Has weights that no state dict knows of."""

    def __init__(self):
        super().__init__()
        self.scale = torch.rand(7)

    def forward(self, x):
        return x * self.scale


class NoCopy(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


class SetsThreads(Linear):
    def build(self, shape, num_classes):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().build(shape, num_classes)


class Retained(cutk.Metric):
    """Accuracy on retained samples."""

    name = "retained"

    def compute(self, evaluation):
        return cutk.accuracy(evaluation.retain_predictions, evaluation.truth.retain.labels)


def judging(compute, **attributes):
    return type("Judging", (Retained,), {"__doc__": Retained.__doc__, "compute": compute, **attributes})


class ByClass(cutk.Breakdown):
    """Accuracy on retained samples of each class."""

    name = "by-class"

    def breakdown(self, evaluation):
        truth = evaluation.truth
        return cutk.class_accuracies(evaluation.retain_predictions, truth.retain.labels, truth.classes)


class TrainsTheModel(Retained):
    def compute(self, evaluation):
        evaluation.model.train()
        return super().compute(evaluation)


class WritesPredictions(Retained):
    def compute(self, evaluation):
        evaluation.affected_predictions.zero_()
        return super().compute(evaluation)


class ChangesFilters(Retained):
    def compute(self, evaluation):
        warnings.simplefilter("ignore")
        return super().compute(evaluation)


class Best(cutk.Summary):
    """The best value over all α."""

    name = "best"
    of = ("corrected",)

    def summarise(self, curve):
        return max(curve.values["corrected"].values())


def summing(summarise, **attributes):
    return type("Summing", (Best,), {"__doc__": Best.__doc__, "summarise": summarise, **attributes})


class ChangesFolder(Best):
    def summarise(self, curve):
        os.chdir("/")
        return super().summarise(curve)


def noise(count, size=8, seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return cutk.Images(pixels, torch.arange(count) % 2, ("a", "b"))


class Noise(cutk.Dataset):
    """Noise, and two classes."""

    name = "noise"

    def load(self):
        return cutk.Splits(train=noise(20), test=noise(10, seed=1))


def loading(load, **attributes):
    return type("Loading", (Noise,), {"__doc__": Noise.__doc__, "load": load, **attributes})


class Missing(Noise):
    def load(self):
        raise cutk.UsageError(
            "Noise is not in 'data': expected 'data/noise.npz'. Give its folder with --data-root DIR."
        )


class Curt(Noise):
    def load(self):
        raise cutk.UsageError("Not there.")


class Growing(Noise):
    counter = Counter()

    def load(self):
        return cutk.Splits(train=noise(20, seed=self.counter()), test=noise(10, seed=99))


class Shared(Noise):
    splits = cutk.Splits(train=noise(20), test=noise(10, seed=1))

    def load(self):
        return self.splits


class ChangesDtype(Noise):
    def load(self):
        torch.set_default_dtype(torch.float64)
        return super().load()


def splits(**changes):
    return loading(lambda _self: cutk.Splits(**{"train": noise(20), "test": noise(10, seed=1), **changes}))


ANY_KIND = {
    "class_is_sound": [BadName],
    "class_is_documented": [Undocumented],
    "options_are_described": [Unexplained, Indescribable],
    "defaults_are_valid": [InvalidDefault],
    "options_survive_json": [LosesItsOptions],
}
BROKEN = {
    "unlearner": {
        **ANY_KIND,
        "grid_points_are_valid": [InvalidGrid],
        "passes_are_two_numbers": [WrongPasses, PassesAsANumber],
        "unlearn_returns_a_network": [ReturnsWeights, ReturnsFeatures, ReturnsNaN],
        "device_and_dtype_are_kept": [Doubles],
        "same_seed_gives_the_same_model": [DrawsElsewhere],
        "original_is_untouched": [HooksEveryone],
        "task_is_untouched": [WritesLabels, WritesIndices, WritesPixels],
        "nothing_global_is_left": [LeavesGradOff],
        "seed_is_left_to_cutk": [Seeds],
        "prepared_state_is_shared": [WritesItsState],
        "prepared_by_names_what_prepare_reads": [ReadsMoreInPrepare],
        "one_identified_sample_is_enough": [NeedsTwo],
        "all_may_be_identified": [NeedsSomeLeft],
        "validation_may_be_missing": [NeedsValidation],
    },
    "manipulation": {
        "images_are_manipulated": [ReturnsNothing, RefusesAll],
        "indices_are_sorted_and_unique": [
            shifted(manipulated=lambda chosen, _train: chosen.flip(0)),
            shifted(manipulated=lambda chosen, _train: chosen.int()),
            shifted(manipulated=lambda chosen, _train: chosen + 300),
        ],
        "same_seed_manipulates_the_same": [DrawsGlobally],
        "given_images_are_untouched": [WritesInPlace],
        "nothing_else_is_changed": [shifted(manipulated=lambda chosen, _train: chosen[1:])],
        "every_manipulated_sample_is_changed": [shifted(manipulated=lambda _chosen, train: torch.arange(len(train)))],
        "stamps_fit_the_images": [
            shifted(stamp=lambda _chosen, train: dark(train, channels=train.shape[0] + 1)),
            shifted(trigger=lambda _chosen, train: dark(train, opacity=2.0)),
            shifted(trigger=lambda _chosen, train: dark(train, opacity=0.0)),
        ],
        "classes_are_there": [shifted(target=lambda _chosen, train: len(train.classes))],
        "benchmark_accepts_it": [shifted(affected_classes=lambda _chosen, _train: ())],
        "nothing_global_is_left": [SeedsNumPy],
    },
    "model": {
        "images_become_logits": [OneClassTooMany, TakesNothing, built(lambda _network: None)],
        "refusals_say_why": [FailsWithin],
        "seed_decides_the_weights": [SeedsWeights, DrawsWeightsElsewhere],
        "gradients_reach_every_parameter": [built(unused), built(lambda network: network.requires_grad_(False))],
        "evaluation_is_deterministic": [
            built(lambda network: nn.Sequential(network, AlwaysDrops())),
            built(lambda network: nn.Sequential(network, BatchMean())),
        ],
        "weights_survive_a_file": [built(lambda network: nn.Sequential(network, Hidden()))],
        "copies_are_their_own": [built(lambda network: NoCopy(network))],
        "nothing_global_is_left": [SetsThreads],
    },
    "metric": {
        "values_are_within_bounds": [
            judging(lambda _self, _evaluation: 1.5),
            judging(lambda _self, _evaluation: float("nan")),
            judging(lambda _self, _evaluation: torch.tensor(0.5)),
            judging(lambda _self, evaluation: 1 / evaluation.identified.sum()),
        ],
        "same_model_has_the_same_value": [
            judging(lambda self, _evaluation: 1 / self.counter(), counter=Counter()),
        ],
        "evaluation_is_untouched": [TrainsTheModel, WritesPredictions],
        "nothing_global_is_left": [ChangesFilters],
        "direction_is_honest": [judging(Retained.compute, higher_is_better=False)],
    },
    "summary": {
        "curves_have_a_value": [
            summing(lambda _self, curve: curve.gold["retained"]),
            summing(lambda _self, curve: curve.values["corrected"][1.0]),
            summing(Best.summarise, of=()),
        ],
        "summaries_are_within_bounds": [summing(lambda _self, _curve: 2)],
        "same_curve_has_the_same_value": [
            summing(lambda self, _curve: 1 / self.counter(), counter=Counter()),
        ],
        "curve_is_untouched": [summing(lambda _self, curve: curve.values["corrected"].popitem()[1])],
        "no_summary_leaves_anything_global": [ChangesFolder],
    },
    "dataset": {
        "suggestions_are_valid": [
            loading(Noise.load, recipe={"stepz": 5}),
            loading(Noise.load, suggests={"shift": 5}),
            loading(Noise.load, model=None),
        ],
        "load_returns_splits": [
            loading(lambda _self: noise(5)),
            Curt,
            loading(lambda _self: Path("/not/there").read_bytes()),
        ],
        "splits_fit_together": [
            splits(test=noise(10, size=9)),
            splits(test=noise(0)),
            splits(train=noise(1)),
        ],
        "normalisation_fits": [
            splits(normalisation=cutk.Normalisation((0.5,) * 3, (0.2,) * 3)),
            splits(normalisation=cutk.Normalisation((0.5,), (0.0,))),
        ],
        "loads_are_equal": [Growing],
        "loads_are_independent": [Shared],
        "nothing_global_is_left": [ChangesDtype],
    },
}
SOUND = [Ascent, Shift, Linear, Retained, ByClass, Best, Noise]
