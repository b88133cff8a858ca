from __future__ import annotations

import pytest

import cutk
from cutk_builtin.summaries.alpha_star import AlphaStar, smallest_alpha


def curve(accuracy, gold=0.9, original=0.2):
    return cutk.Curve(
        values={"corrected_accuracy": accuracy},
        gold={} if gold is None else {"corrected_accuracy": gold},
        original={"corrected_accuracy": original},
    )


@pytest.mark.parametrize(
    ("accuracy", "by_hand"),
    [
        ({0.1: 0.3, 0.5: 0.81, 0.8: 0.82, 1.0: 0.9}, 0.5),  # 0.9 · 0.9 = 0.81
        ({0.1: 0.95, 0.5: 0.685, 0.8: 0.85, 1.0: 0.9}, 0.8),  # what is above the bar at 0.1 doesn't stay there
        ({1.0: 0.9, 0.8: 0.85, 0.1: 0.2}, 0.8),  # in whatever order
        ({0.1: 0.9, 1.0: 0.5}, None),
        ({0.1: 0.3}, None),
        ({0.1: 0.9, 1.0: 0.9}, 0.1),
        ({}, None),
    ],
)
def test_alpha_star_by_hand(accuracy, by_hand):
    assert smallest_alpha(accuracy, gold=0.9) == by_hand
    assert AlphaStar().summarise(curve(accuracy)) == by_hand


def test_where_nothing_was_to_correct_there_is_no_alpha_star():
    accuracy = {0.5: 0.9, 1.0: 0.9}
    assert AlphaStar().summarise(curve(accuracy, original=0.81)) is None
    assert AlphaStar().summarise(curve(accuracy, original=0.8)) == 0.5


def test_where_gold_is_missing_there_is_no_alpha_star():
    assert AlphaStar().summarise(curve({1.0: 0.9}, gold=None)) is None
    assert AlphaStar().summarise(cutk.Curve({}, {"corrected_accuracy": 0.9}, {})) is None
