"""Sound metrics, and those that break one check each."""

import itertools
import warnings

import torch

import cutk


class Retained(cutk.Metric):
    """Accuracy on retained samples."""

    name = "retained"

    def compute(self, evaluation):
        return cutk.accuracy(evaluation.retain_predictions, evaluation.truth.retain.labels)


class ByClass(cutk.Metric):
    """Accuracy on retained samples of each class."""

    name = "by-class"

    def compute(self, evaluation):
        truth = evaluation.truth
        return cutk.class_accuracies(evaluation.retain_predictions, truth.retain.labels, truth.classes)


class Corrected(cutk.Metric):
    """Accuracy on affected samples."""

    name = "corrected"
    by_domain = True

    def compute(self, evaluation):
        return cutk.accuracy(evaluation.affected_predictions, evaluation.truth.affected.labels)


def judging(compute, **attributes):
    return type("Judging", (Retained,), {"__doc__": Retained.__doc__, "compute": compute, **attributes})


class TrainsTheModel(Retained):
    def compute(self, evaluation):
        evaluation.model.train()
        return super().compute(evaluation)


class WritesTheTruth(Retained):
    def compute(self, evaluation):
        evaluation.truth.targets.zero_()
        return super().compute(evaluation)


class ChangesFilters(Retained):
    def compute(self, evaluation):
        warnings.simplefilter("ignore")
        return super().compute(evaluation)


SOUND = [Retained, ByClass, Corrected]
BROKEN = {
    "values_are_within_bounds": [
        judging(lambda _self, _evaluation: 1.5),
        judging(lambda _self, _evaluation: float("nan")),
        judging(lambda _self, _evaluation: torch.tensor(0.5)),
        judging(lambda _self, evaluation: 1 / evaluation.identified.sum()),
        judging(lambda _self, _evaluation: {0: 0.5}),
        judging(lambda _self, _evaluation: {"a": None}),
        judging(lambda _self, evaluation: 1.0 / (len(evaluation.truth.domains[0].targets) - 20), by_domain=True),
    ],
    "evaluation_is_untouched": [TrainsTheModel, WritesTheTruth],
    "direction_is_honest": [judging(Retained.compute, higher_is_better=False)],
    "same_seed_gives_the_same": [judging(lambda self, _e: 1 / next(self.count), count=itertools.count(1))],
    "nothing_global_is_left": [ChangesFilters],
}
