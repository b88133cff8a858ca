"""Each metric by hand: an evaluation with known predictions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import cutk


def evaluation(**changes):
    values = {
        "affected_predictions": torch.tensor([0, 0, 1, 2, 0]),
        "retain_predictions": torch.tensor([0, 1, 1, 2, 2]),
        "manipulated_predictions": torch.tensor([0, 2]),
        "identified_predictions": torch.tensor([0, 2, 1, 0]),
        "identified_before": torch.tensor([0, 0, 0, 0]),
        "scalars": {"importance_ratio_edges": [0, 0.5, 10], "importance_ratio_counts": [7, 3, 1]},
        "cost": cutk.Cost(1.5, passes=2.0, peak_bytes=3 * 2**20),
        "truth": SimpleNamespace(
            classes=("ant", "bee", "cow", *"defghi", "jay"),
            affected=SimpleNamespace(labels=torch.tensor([0, 1, 1, 2, 2])),
            retain=SimpleNamespace(labels=torch.tensor([0, 1, 2, 2, 1])),
            manipulated=torch.tensor([1, 4]),
            clean_labels=torch.tensor([9, 0, 9, 9, 1]),
            targets=torch.tensor([0, 0, 0, 0, 0]),
        ),
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("corrected_accuracy", 3 / 5),  # 0→0 right, 1→0, 1→1 right, 2→2 right, 2→0
        ("retain_accuracy", 3 / 5),
        ("attack_success_rate", 2 / 4),  # of the four whose class isn't 0, two are predicted 0
        ("manipulated_train_accuracy", 1 / 2),  # clean labels 0 and 1, predicted 0 and 2
        ("changed_fraction", 2 / 4),
        ("unlearn_seconds", 1.5),
        ("passes", 2.0),
        ("peak_memory", 3.0),
    ],
)
def test_metrics_by_hand(registry, name, by_hand):
    metric = registry.get("metric", name).component()
    assert metric.compute(evaluation()) == pytest.approx(by_hand)


def test_metrics_that_mean_nothing_are_none(registry):
    def value(name, **changes):
        return registry.get("metric", name).component().compute(evaluation(**changes))

    no_target = SimpleNamespace(**{**vars(evaluation().truth), "targets": torch.full((5,), -1)})
    assert value("attack_success_rate", truth=no_target) is None
    assert value("changed_fraction", identified_predictions=None) is None
    nobody = SimpleNamespace(**{**vars(evaluation().truth), "retain": SimpleNamespace(labels=torch.empty(0))})
    assert value("retain_accuracy", truth=nobody, retain_predictions=torch.empty(0)) is None


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("affected_class_accuracy", {"ant": 1.0, "bee": 1 / 2, "cow": 1 / 2}),
        ("retain_class_accuracy", {"ant": 1.0, "bee": 1 / 2, "cow": 1 / 2}),
        ("manipulated_class_accuracy", {"ant": 1.0, "bee": 0.0}),
        ("importance_ratio", {"0": 7, "0.5": 3, "10": 1}),
    ],
)
def test_metrics_of_several_numbers_by_hand(registry, name, by_hand):
    assert registry.get("metric", name).component().compute(evaluation()) == by_hand


def test_models_that_were_trained_have_no_cost_and_no_importances(registry):
    trained = evaluation(cost=None, scalars={})
    for name in ("unlearn_seconds", "passes", "peak_memory"):
        assert registry.get("metric", name).component().compute(trained) is None
    assert registry.get("metric", "importance_ratio").component().compute(trained) is None
    untold = evaluation(cost=cutk.Cost(1.0))
    assert registry.get("metric", "peak_memory").component().compute(untold) is None


def test_every_class_may_have_a_target_of_its_own(registry):
    rate = registry.get("metric", "attack_success_rate").component()
    # Clean 0 1 1 2 2 become 1 2 2 −1 −1; predicted 0 0 1 2 0: none of the three.
    truth = SimpleNamespace(**{**vars(evaluation().truth), "targets": torch.tensor([1, 2, 2, -1, -1])})
    assert rate.compute(evaluation(truth=truth)) == 0
    # What is wanted of a sample is its own class: it doesn't count.
    truth.targets = torch.tensor([0, 0, 2, 2, 0])
    assert rate.compute(evaluation(truth=truth)) == pytest.approx(2 / 3)


def test_samples_without_a_clean_label_do_not_count(registry):
    truth = SimpleNamespace(**{**vars(evaluation().truth), "clean_labels": torch.tensor([9, 0, 9, 9, -1])})
    seen = evaluation(truth=truth)
    assert registry.get("metric", "manipulated_train_accuracy").component().compute(seen) == 1.0
    assert registry.get("metric", "manipulated_class_accuracy").component().compute(seen) == {"ant": 1.0}
    truth.clean_labels = torch.full((5,), -1)
    assert registry.get("metric", "manipulated_train_accuracy").component().compute(seen) is None


def test_what_depends_on_the_affected_domain_says_so(registry):
    by_domain = {entry.name for entry in registry.of_kind("metric") if entry.component.by_domain}
    assert by_domain == {
        "affected_class_accuracy",
        "attack_success_rate",
        "corrected_accuracy",
        "manipulated_class_accuracy",
        "manipulated_train_accuracy",
    }


def test_evaluation_predicts_each_set_as_the_model_sees_it(tiny_scenario, tiny_recipe):
    truth = tiny_scenario.truth

    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), 2), 4).float()

    seen = cutk.Evaluation(truth, Constant(), tiny_recipe, identified=truth.manipulated[:3])
    assert (len(seen.affected_predictions), len(seen.retain_predictions)) == (80, 80)
    assert seen.manipulated_predictions.tolist() == [2] * 20
    assert seen.identified_predictions.tolist() == [2] * 3
    assert cutk.Evaluation(truth, Constant(), tiny_recipe).identified_predictions is None
