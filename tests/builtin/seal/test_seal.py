"""Seal as a whole, on tiny problems, and what it follows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
import cutk_builtin.unlearners.seal as seal_module
from cutk_builtin.doubt import (
    Following,
    Suspicion,
    agreed,
    complementary_loss,
    correcting,
    latest,
    otherwise,
    teaching,
    unchanging,
    weighted,
)
from cutk_builtin.looking import Outputs, concerned
from cutk_builtin.seeded import (
    Posterior,
)
from cutk_builtin.unlearners.seal import Seal, shrunk


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_what_was_learned_fades():
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    for model, value in ((old, 10.0), (new, 0.0)):
        nn.init.constant_(model.weight, value)
    assert shrunk(old, new, 0.3).weight.item() == pytest.approx(3.0)


@pytest.mark.parametrize("final", ["tune", "restart", "retrain"])
@pytest.mark.parametrize("identified", [[1], [1, 4], list(range(12))])
def test_seal_corrects_whatever_is_known_and_the_same_twice(task, final, identified):
    options = Seal.Options(final=final, rounds=2)
    task = task.knowing(torch.tensor(identified))
    calls = [task.private(seed=3) for _ in range(2)]
    one, two = (Seal(options).unlearn(call) for call in calls)
    for name, value in one.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, two.state_dict()[name])
    assert len(calls[0].log.scalars["known_part"]) == 2 + (final != "tune")


@pytest.mark.parametrize("trusted", [True, False])
def test_after_a_round_the_probe_counts_beside_the_model_if_it_knew_what_is_clean(task, trusted, monkeypatch):
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    call = task.knowing(torch.tensor([0])).private(seed=3)
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])  # label 0 is settled
    probed = torch.linspace(0.1, 0.9, 12).index_fill(0, torch.tensor([0]), 1.0)
    among = labels == 0
    probed *= among
    told = Posterior(probed[among], 0.5, {0: 0.3}, (0,) if trusted else (1, 2))
    monkeypatch.setattr(seal_module, "suspected", lambda *_: told)
    logits = torch.randn(12, 3, generator=seeded())
    found = Seal()._suspicion(call, [], [Outputs(torch.zeros(4, 1), logits[among])], w)
    own = otherwise(logits, labels, w[labels])
    said = agreed(own, probed) if trusted else own
    expected = torch.where((labels == 0).index_fill(0, torch.tensor([0]), False), said, probed)
    assert torch.equal(found.q, expected)
    assert torch.equal(found.probed, probed)
    assert found.q[0] == 1
    # Before a round there is nobody to ask.
    assert torch.equal(Seal()._suspicion(call, [], [], w).q, probed)


def following(task, suspicion, weights, steps):
    once = len(task.train) // task.recipe.options.batch_size
    return Following(
        suspicion, Seal()._asked(task, weights), weights, steps=steps, of_pass=once, device=torch.device("cpu")
    )


def test_of_a_sample_that_a_batch_has_twice_the_model_is_heard_the_last_time(task):
    assert latest(torch.tensor([3])).tolist() == [0]
    assert sorted(latest(torch.tensor([5, 1, 5, 5, 0, 1])).tolist()) == [3, 4, 5]
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])
    q = torch.full((12,), 0.25)
    asks = following(task.knowing(torch.tensor([0])), Suspicion(q, q, q > 2), w, 2)
    logits, index = torch.randn(6, 3, generator=seeded()), torch.tensor([3, 6, 3, 9, 6, 3])
    batch = cutk.Batch(torch.zeros(6, 1), labels[index], index)
    assert torch.equal(asks(logits, batch), q[index])
    own = otherwise(logits, labels[index], w[labels[index]])
    assert torch.equal(asks(logits, batch), own[torch.tensor([5, 4, 5, 3, 4, 5])])


@pytest.mark.parametrize("final", ["tune", "restart", "retrain"])
def test_progress_is_told_step_by_step_of_the_whole(task, final):
    told = []
    call = task.private(seed=3, log=cutk.Log(lambda *given: told.append(given)))
    Seal(Seal.Options(final=final, rounds=2, restart_part=0.75)).unlearn(call)
    whole = 2 * 2 + {"tune": 0, "restart": 3, "retrain": 4}[final]
    assert told == [(done + 1, whole) for done in range(whole)]


def test_with_nothing_after_the_rounds_there_is_a_round():
    with pytest.raises(ValueError, match="expected rounds of at least 1, got 0"):
        Seal.Options(final="tune", rounds=0)
    assert Seal.Options(rounds=0).final == "restart"


@pytest.mark.parametrize("trusted", [True, False])
def test_the_last_training_asks_the_model_what_suspects_are(task, trusted):
    # Label 0 is settled: its suspects are 1. Four steps on two batches a pass, so it asks before the third.
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    task = task.knowing(torch.tensor([0]))
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])
    q = torch.full((12,), 0.25)
    q[0] = 1.0
    probed, heard = torch.linspace(0.1, 0.9, 12), torch.full((12,), trusted)
    loss = correcting(task, following(task, Suspicion(q, probed, heard), w, 4), w, open_too=False)
    logits = torch.randn(12, 3, generator=seeded())

    def given(suspicion):
        batch = cutk.Batch(torch.zeros(12, 1), labels, torch.arange(12))
        complement = complementary_loss(logits, w[labels]) * torch.tensor([1.0, 0, 0])[labels]
        return task.recipe.loss(weighted(logits, 1 - suspicion), batch) + (suspicion * complement).mean()

    for indices in torch.arange(12).split(6):
        loss(logits[indices], cutk.Batch(torch.zeros(6, 1), labels[indices], indices))
    everything = cutk.Batch(torch.zeros(12, 1), labels, torch.arange(12))
    own = otherwise(logits, labels, w[labels])
    asked = torch.where(labels == 0, agreed(own, probed) if trusted else own, q)
    asked[0] = 1.0
    assert not torch.allclose(given(asked), given(q))
    assert torch.allclose(loss(logits, everything), given(asked))
    # In a round nothing is asked, and suspects whose class is open learn that it is another one.
    before = correcting(task, unchanging(q), w, open_too=True)
    whole = task.recipe.loss(weighted(logits, 1 - q), everything) + (q * complementary_loss(logits, w[labels])).mean()
    assert not torch.allclose(whole, given(q))
    assert all(torch.allclose(before(logits, everything), whole) for _ in range(4))


@pytest.mark.parametrize(("final", "rounds"), [("restart", 1), ("retrain", 2)])
def test_of_two_classes_nobody_is_suspected_under_a_label_that_nobody_known_has(final, rounds, two_classes):
    task, truth = two_classes
    call, clean = task.private(seed=3), task.train.labels == 0
    model = Seal(Seal.Options(final=final, rounds=rounds)).unlearn(call)
    assert not call.log.suspected.values[clean].any()
    assert call.log.suspected.values[~clean].any()
    wrong = (task.recipe.predict(model, task.train) != truth)[clean]
    assert wrong.float().mean() < 0.02


@pytest.mark.parametrize("final", ["restart", "retrain"])
def test_the_whole_method_hears_a_probe_under_the_labels_that_it_was_told_of(final, monkeypatch, two_classes):
    task, _ = two_classes
    probed = torch.linspace(0, 1, 400) * (task.train.labels == 1)
    probed[task.identified] = 1.0

    def weights(trusted):
        settled = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        told = Posterior(probed[concerned(task)], 0.5, {1: 0.3}, trusted)
        monkeypatch.setattr(seal_module, "suspected", lambda *_: told)
        monkeypatch.setattr(Seal, "_transition", lambda *_: settled)
        return Seal(Seal.Options(final=final)).unlearn(task.private(seed=3)).state_dict()["0.weight"]

    assert not torch.equal(weights((1,)), weights(()))
    assert torch.equal(weights((0,)), weights(()))


@pytest.mark.parametrize("final", ["tune", "restart", "retrain"])
def test_a_token_that_says_the_label_is_unlearnt(final, poisoned_sentences):
    task, bad, truth, triggered, classes = poisoned_sentences

    def right(model):
        with torch.no_grad():
            return float((model.eval()(triggered).argmax(1) == classes).double().mean())

    clean = torch.ones(len(truth), dtype=torch.bool).index_fill(0, bad, False)
    gold = task.private(seed=3).retrain(clean.nonzero().flatten())
    assert right(task.original) < 0.1 < right(gold)
    call = task.private(seed=3)
    model = Seal(Seal.Options(final=final, passes=5)).unlearn(call)
    assert right(model) > 0.9 * right(gold)
    assert (task.recipe.predict(model, task.train) == truth)[clean].double().mean() > 0.95
    assert (call.log.suspected.values[bad] > 0.5).double().mean() > 0.9


def test_nor_does_the_last_training_suspect_them(two_classes):
    task, _ = two_classes
    labels, q, w = task.train.labels, torch.zeros(400), torch.tensor([[0.0, 1], [1, 0]])
    probed, logits = torch.full((400,), 0.3), torch.randn(400, 2, generator=seeded())
    loss = correcting(task, following(task, Suspicion(q, probed, probed > 0), w, 2), w, open_too=False)
    batch = cutk.Batch(torch.zeros(400, 1), labels, torch.arange(400))
    loss(logits, batch)  # from the half on, those of label 1 are what the model said here
    asked = (labels == 1).index_fill(0, task.identified, False)
    q = torch.where(asked, agreed(otherwise(logits, labels, w[labels]), probed), q)
    expected = task.recipe.loss(weighted(logits, 1 - q), batch) + (q * complementary_loss(logits, w[labels])).mean()
    assert torch.allclose(loss(logits, batch), expected)


@pytest.mark.parametrize(
    ("settled", "lr", "rate"),
    [((0, 1), 0.03, 0.03), ((0, 1), None, 0.05), ((0,), 0.03, None), ((), None, None)],
)
def test_a_restart_is_as_slow_as_a_round_where_all_suspects_are_taught(task, settled, lr, rate, monkeypatch):
    task = task.knowing(torch.tensor([1, 2, 4]))
    labels = task.train.labels[task.identified].unique()
    weights = 1 - torch.eye(task.num_classes)
    for place in settled:
        weights[labels[place]] = torch.eye(task.num_classes)[labels[1 - place]]
    monkeypatch.setattr(Seal, "_transition", lambda *_: weights)
    rates, fit, taught = [], Seal._fit, []
    monkeypatch.setattr(seal_module, "teaching", lambda *given: (taught.append(given), teaching(*given))[1])
    monkeypatch.setattr(Seal, "_fit", lambda *given: (rates.append(given[-2]), fit(*given))[1])
    Seal(Seal.Options(lr=lr)).unlearn(task.private(seed=3))
    assert rates == [lr or 0.05, rate]
    assert len(taught) == (rate is not None)
    Seal(Seal.Options(lr=lr, final="retrain")).unlearn(task.private(seed=3))
    assert len(taught) == (rate is not None)


def test_a_restart_that_teaches_asks_the_model_whom_to_teach(two_classes):
    task, _ = two_classes
    labels, q, w = task.train.labels, torch.full((400,), 0.25), torch.tensor([[0.0, 1], [1, 0]])
    probed, logits = torch.full((400,), 0.3), torch.randn(400, 2, generator=seeded())
    batch = cutk.Batch(torch.zeros(400, 1), labels, torch.arange(400))
    loss = teaching(task, following(task, Suspicion(q, probed, probed > 0), w, 2), w)
    assert torch.equal(loss(logits, batch), teaching(task, unchanging(q), w)(logits, batch))
    asked = (labels == 1).index_fill(0, task.identified, False)
    said = torch.where(asked, agreed(otherwise(logits, labels, w[labels]), probed), q)
    assert torch.equal(loss(logits, batch), teaching(task, unchanging(said), w)(logits, batch))


def test_seal_may_retrain_without_a_round(task):
    call = task.private(seed=3)
    Seal(Seal.Options(final="retrain", rounds=0)).unlearn(call)
    assert len(call.log.scalars["known_part"]) == 1


def test_seal_counts_its_passes():
    sizes = cutk.Sizes(train=12, identified=2, batch_size=6, steps=4)
    for final, after in (("tune", 1 / 3), ("restart", 2 / 3 + 0.5), ("retrain", 2 / 3 + 2)):
        prepare, rest = Seal.passes(Seal.Options(final=final, rounds=2, passes=1.5, restart_part=0.25), sizes)
        assert (prepare, rest) == (pytest.approx(2 / 3), pytest.approx(3.0 + after))


def test_retraining_with_a_loss_of_ones_own(task):
    given = task.retrain(torch.arange(12), loss=lambda logits, batch: 2 * cutk.cross_entropy(logits, batch))
    plain = task.retrain(torch.arange(12), loss=cutk.cross_entropy)
    again = task.retrain(torch.arange(12))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), given.parameters(), strict=True))
