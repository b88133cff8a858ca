"""Each selector by hand."""

from __future__ import annotations

import pytest

import cutk

HEALED = cutk.Score(0.9, 1.0, 0.1, 0.95)
FORGOT = cutk.Score(0.5, 1.0, 0.0, 0.5)
STUCK = cutk.Score(0.95, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("paper", [0.95, 0.75, 0.475]),
        ("validation", [0.9, 0.5, 0.95]),
        ("product", [0.95 * 0.8, 0.5 * 0.8, 0.0]),
    ],
)
def test_values_by_hand(registry, name, values):
    selector = registry.get("selector", name).component()
    assert [selector.value(score) for score in (HEALED, FORGOT, STUCK)] == pytest.approx(values)
    assert selector.choose([FORGOT, None, HEALED, STUCK]) == (3 if name == "validation" else 2)


def test_without_held_out_samples(registry):
    changed = [cutk.Score(None, fraction, 1 - fraction, 0.9) for fraction in (0.2, 0.8, 0.8)]
    for name, chosen in (("paper", 1), ("validation", 0), ("product", 1)):
        assert registry.get("selector", name).component().choose(changed) == chosen


def test_where_everything_is_identified_s_f_decides(registry):
    product = registry.get("selector", "product").component()
    assert product.choose([cutk.Score(None, None, 0.9, None), cutk.Score(None, None, 0.3, None)]) == 1


def test_equal_values_go_to_the_better_validation_accuracy_then_to_the_earlier(registry):
    paper = registry.get("selector", "paper").component()
    assert paper.choose([cutk.Score(0.4, 0.6), cutk.Score(0.6, 0.4), cutk.Score(0.6, 0.4)]) == 1
    with pytest.raises(ValueError, match="at least one scored point"):
        paper.choose([None, None])


def test_rules_say_what_they_assume(registry):
    assumes = {entry.name: entry.component.assumes_wrong_labels for entry in registry.of_kind("selector")}
    assert assumes == {"paper": True, "validation": False, "product": True}
