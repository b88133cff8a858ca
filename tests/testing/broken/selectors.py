"""A sound selector, and those that break one check each."""

import itertools
import random

import cutk


class Cautious(cutk.Selector):
    """Validation accuracy, and half as much what has changed of S_f."""

    name = "cautious"
    measures = ("validation_accuracy", "changed_fraction")

    def value(self, score):
        return (score.validation_accuracy or 0.0) + 0.5 * score.changed_fraction


class First(cutk.Selector):
    """Whatever comes first."""

    name = "first"

    def value(self, score):
        return 0.0


def choosing(**attributes):
    return type("Choosing", (Cautious,), {"__doc__": Cautious.__doc__, **attributes})


SOUND = [Cautious, First]
BROKEN = {
    "class_is_sound": [choosing(measures=("test_accuracy",))],
    "values_are_finite": [
        choosing(value=lambda _self, score: score.retained_accuracy + 1),
        choosing(value=lambda _self, _score: float("inf")),
        choosing(value=lambda _self, _score: None),
    ],
    "missing_measurements_are_borne": [choosing(value=lambda _self, s: s.validation_accuracy + s.changed_fraction)],
    "every_measurement_counts": [
        choosing(value=lambda _self, score: score.changed_fraction),
        choosing(value=lambda _self, s: Cautious.value(_self, s) + (s.identified_accuracy or 0.0)),
    ],
    "failed_points_are_passed_over": [
        choosing(choose=lambda _self, _scores: 0),
        choosing(choose=lambda self, scores: max(range(len(scores)), key=lambda i: self.value(scores[i]))),
        choosing(choose=lambda _self, scores: next((i for i, score in enumerate(scores) if score), None)),
    ],
    "same_seed_gives_the_same": [
        choosing(count=itertools.count(), value=lambda self, s: Cautious.value(self, s) + next(self.count)),
    ],
    "nothing_global_is_left": [choosing(value=lambda self, s: Cautious.value(self, s) + 0 * random.random())],  # noqa: S311
}
