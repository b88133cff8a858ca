"""What a metric is computed from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk.learning.recipe import Recipe
from cutk_builtin.manipulations.badnet import BadNet
from cutk_builtin.manipulations.interclass_confusion import InterclassConfusion


class Swap(cutk.Manipulation):
    """Two classes, mixed up."""

    name = "swap"

    def corrupt(self, train, generator):
        some = torch.isin(train.labels, torch.tensor([0, 1])).nonzero().flatten()[:10]
        labels = train.labels.clone()
        labels[some] = 1 - labels[some]
        return cutk.Corruption(train.changed(labels=labels), some, affected=(0, 1))


class Tinted:
    """A trigger that differs from class to class and from sample to sample."""

    def apply(self, x, labels, ids):
        x = x.clone()
        x[:, 0, 0, 0] = labels.byte()
        x[:, 0, 0, 1] = ids.remainder(200).byte()
        return x


class Specific(cutk.Manipulation):
    """Lays a trigger over some samples; each third unseen one is affected, and wants the class after its own."""

    name = "specific"

    def corrupt(self, train, generator):
        some = torch.arange(0, 30, 2)
        return cutk.Corruption(
            train,
            some,
            overlays=[cutk.Overlay(Tinted(), some)],
            trigger=Tinted(),
            affected=lambda test: test.ids % 3 == 0,
            targets=cutk.Corruption.all_to_all(len(train.classes)),
        )


def test_the_truth_of_a_backdoor(scenario, splits):
    truth, test = scenario.truth, splits.test
    assert len(truth.affected) == len(truth.retain) == len(test)
    assert torch.equal(truth.affected.labels, test.labels)
    assert torch.equal(truth.retain._x, test.x)
    trigger = scenario.corruption.trigger
    assert torch.equal(truth.affected._x, trigger.apply(test.x))
    assert (truth.train.labels[truth.manipulated] == 0).all()
    assert (truth.targets == 0).all()
    assert (truth.clean_labels[truth.manipulated] != 0).any()
    assert torch.equal(truth.samples.labels, truth.train.labels)
    assert [domain.name for domain in truth.domains] == ["badnet"]


def test_the_truth_of_a_label_manipulation(scenario_of, splits):
    truth = scenario_of(Swap()).truth
    assert set(truth.affected.labels.tolist()) == {0, 1}
    assert set(truth.retain.labels.tolist()) == {2, 3}
    assert len(truth.affected) + len(truth.retain) == len(splits.test)
    assert (truth.targets == -1).all()


def test_a_trigger_is_told_the_clean_labels_and_the_ids(scenario_of, splits):
    scenario = scenario_of(Specific())
    truth, test = scenario.truth, splits.test
    mine = test.ids % 3 == 0
    assert torch.equal(truth.affected._x[:, 0, 0, 0].long(), test.labels[mine])
    assert torch.equal(truth.affected._x[:, 0, 0, 1].long(), test.ids[mine] % 200)
    assert torch.equal(truth.targets, (test.labels[mine] + 1) % 4)
    assert len(truth.retain) == len(test)
    overlaid = truth.train._x[truth.manipulated, 0, 0]
    assert torch.equal(overlaid[:, 0].long(), truth.clean_labels[truth.manipulated])
    assert torch.equal(overlaid[:, 1].long(), truth.samples.ids[truth.manipulated] % 200)


def counted(monkeypatch):
    """Count how often each set of samples goes through a model."""
    seen = []
    logits = Recipe.logits

    def counting(self, model, samples, indices=None):
        seen.append(samples)
        return logits(self, model, samples, indices)

    monkeypatch.setattr(Recipe, "logits", counting)
    return seen


def test_each_set_goes_through_a_model_once_whatever_is_asked(scenario_of, recipe, monkeypatch):
    scenario = scenario_of([("badnet", BadNet()), ("interclass-confusion", InterclassConfusion())])
    truth, model = scenario.truth, scenario.train_original()
    identified = scenario.identified(0.5)
    seen = counted(monkeypatch)
    evaluation = cutk.Evaluation(truth, model, recipe, identified=identified)
    for view in (evaluation, *(evaluation.on(domain) for domain in truth.domains), evaluation):
        assert len(view.affected_predictions) == len(view.affected_logits) == len(view.truth.affected.labels)
        assert len(view.manipulated_predictions) == len(view.truth.manipulated)
        assert len(view.retain_predictions) == len(truth.retain)
        assert len(view.identified_predictions) == len(identified)
    assert len(seen) == 4


def test_a_domain_is_judged_on_its_own_samples(scenario_of, recipe):
    scenario = scenario_of([("badnet", BadNet()), ("interclass-confusion", InterclassConfusion())])
    truth, model = scenario.truth, scenario.train_original()
    evaluation = cutk.Evaluation(truth, model, recipe)
    for domain in truth.domains:
        part = evaluation.on(domain)
        assert torch.equal(part.affected_predictions, recipe.predict(model, domain.affected))
        assert torch.equal(part.manipulated_predictions, recipe.predict(model, truth.train, domain.manipulated))
        assert torch.equal(part.truth.targets, domain.targets)
        assert part.identified_predictions is None


def test_outputs_that_are_not_finite_give_no_class(scenario, recipe):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4), float("nan"))

    evaluation = cutk.Evaluation(scenario.truth, Broken(), recipe)
    assert evaluation.affected_logits.isnan().all()
    with pytest.raises(cutk.CellError, match="not finite"):
        _ = evaluation.affected_predictions


def test_an_accuracy_of_nothing_is_none():
    assert cutk.accuracy(torch.zeros(0), torch.zeros(0)) is None
    assert cutk.class_accuracies(torch.tensor([0, 1]), torch.tensor([0, 2]), "abc") == {"a": 1.0, "c": 0.0}


def test_a_model_is_copied_anew_only_where_it_was_changed(scenario, recipe):
    model = scenario.build().eval()
    evaluation = cutk.Evaluation(scenario.truth, model, recipe)

    def given():
        return evaluation.on(scenario.truth.domains[0]).private().model

    first = given()
    assert first is not model
    assert given() is first
    changes = [
        lambda m: next(m.parameters()).data.zero_(),
        lambda m: m.train(),
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: setattr(m, "forward", None),
        lambda m: next(m.parameters()).requires_grad_(False),
        lambda m: setattr(m[1], "p", 0.5),
        lambda m: m.double(),
        lambda m: sum(p.sum() for p in m.parameters()).backward(),
    ]
    for change in changes:
        change(first)
        again = given()
        assert again is not first
        assert all(torch.equal(v, model.state_dict()[name]) for name, v in again.state_dict().items())
        assert not again.training
        first = again
