"""What is corrupted, composed, held out and trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.chance import derive_seed
from cutk.problem.scenario import hold_out
from cutk_builtin.datasets.fake import Fake
from cutk_builtin.manipulations.badnet import BadNet
from cutk_builtin.manipulations.interclass_confusion import InterclassConfusion
from cutk_builtin.manipulations.label_swap import LabelSwap


def composed(*names, badnet=20):
    made = {
        "badnet": BadNet(BadNet.Options(count=badnet)),
        "interclass-confusion": InterclassConfusion(InterclassConfusion.Options(count=12)),
        "label-swap": LabelSwap(LabelSwap.Options(count=10)),
    }
    return [(name, made[name]) for name in names]


class Added(cutk.Manipulation):
    """Adds black samples of the first class."""

    name = "added"

    def corrupt(self, train, generator):
        x = torch.zeros(5, *train.shape, dtype=train.x.dtype)
        longer = train.extended(x, torch.zeros(5, dtype=torch.int64))
        return cutk.Corruption(longer, torch.arange(len(train), len(longer)))


class Returning(cutk.Manipulation):
    """Returns what it is told to."""

    name = "returning"

    def __init__(self, what):
        super().__init__()
        self.what = what

    def corrupt(self, train, generator):
        return self.what(train)


def test_every_purpose_has_its_own_stream():
    salts = ("", "data")
    seeds = {derive_seed(s, p, salt) for s in range(20) for p in ("order", "manipulation") for salt in salts}
    assert len(seeds) == 80
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_hold_out_splits_without_overlap(samples_of):
    samples = samples_of(count=100)
    train, validation = hold_out(samples, 0.05, torch.Generator().manual_seed(0))
    assert (len(train), len(validation)) == (95, 5)
    assert set(train.ids.tolist()) | set(validation.ids.tolist()) == set(range(100))
    assert torch.equal(train.x, samples.x[train.ids])
    assert hold_out(samples, 0.0, torch.Generator())[1] is None


def test_validation_is_held_out_before_the_manipulation_and_stays_clean(scenario, splits):
    held_out = scenario.truth.held_out
    assert len(held_out) == 10
    assert not set(held_out.ids.tolist()) & set(scenario.corruption.train.ids.tolist())
    assert torch.equal(scenario.validation.labels, splits.train.labels[held_out.ids])


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(scenario):
    def weights(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(scenario.train_original())
    torch.rand(7)  # whatever else draws from the global state in between, dropout included
    assert torch.equal(first, weights(scenario.train_original()))
    assert not torch.equal(first, weights(scenario.train_gold()))


def test_retraining_at_alpha_one_is_gold(scenario):
    original = scenario.train_original()
    task = scenario.task(original, 1.0)
    gold = scenario.train_gold()
    for mine, theirs in zip(task.retrain(task.retained).parameters(), gold.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_other_data_draw_otherwise_under_the_same_seed(scenario_of, splits):
    other = cutk.Splits(splits.train, splits.test.select(torch.arange(len(splits.test) - 1)))
    mine, theirs = scenario_of(), scenario_of(data=other)
    assert not torch.equal(mine.corruption.manipulated, theirs.corruption.manipulated)
    assert mine.unlearning_seed() != theirs.unlearning_seed()
    assert mine.fingerprint() != theirs.fingerprint()


def test_gold_needs_a_sample_that_nobody_manipulated(scenario_of):
    everything = scenario_of(BadNet(BadNet.Options(fraction=1.0)))
    with pytest.raises(cutk.UsageError, match="All 190 training samples are manipulated"):
        everything.train_gold()


# Composition.


def test_composed_manipulations_share_no_sample_and_s_m_is_their_union(scenario_of):
    scenario = scenario_of(composed("badnet", "interclass-confusion", "label-swap"))
    truth, clean = scenario.truth, scenario.truth.clean_labels
    parts = [domain.manipulated for domain in truth.domains]
    assert [domain.name for domain in truth.domains] == ["badnet", "interclass-confusion", "label-swap"]
    assert [len(part) for part in parts] == [20, 12, 10]
    assert torch.equal(torch.cat(parts).sort().values, truth.manipulated)
    assert len(truth.manipulated.unique()) == 42
    assert (truth.train.labels[parts[0]] == 0).all()
    assert torch.equal(truth.train.labels[parts[1]], 1 - clean[parts[1]])
    assert (truth.train.labels[parts[2]] != clean[parts[2]]).all()
    differing = (truth.train.labels != clean).nonzero().flatten()
    assert set(differing.tolist()) <= set(truth.manipulated.tolist())


def test_the_first_does_in_company_what_it_does_alone(scenario_of):
    alone = scenario_of(composed("badnet"))
    together = scenario_of(composed("badnet", "interclass-confusion"))
    assert torch.equal(alone.corruption.manipulated, together.truth.domains[0].manipulated)


def test_the_truth_of_a_composition(scenario_of, splits):
    scenario = scenario_of(composed("badnet", "interclass-confusion"))
    truth, test = scenario.truth, splits.test
    confused = torch.isin(test.labels, torch.tensor([0, 1]))
    assert len(truth.affected) == len(test) + int(confused.sum())
    assert torch.equal(truth.affected.labels, torch.cat([test.labels, test.labels[confused]]))
    assert torch.equal(
        truth.targets, torch.cat([torch.zeros_like(test.labels), -torch.ones(int(confused.sum()))]).long()
    )
    assert torch.equal(truth.retain.labels, test.labels[~confused])
    patched, plain = (next(truth.domains[i].affected.batches()).x for i in (0, 1))
    assert (patched[:, :, -3:, -3:] == patched.amax()).all()
    assert torch.equal(next(truth.affected.batches()).x, torch.cat([patched, plain]))


def test_a_second_one_that_changes_contents_keeps_the_first_ones(scenario_of):
    stamped = BadNet(BadNet.Options(count=8, target=1, placement="before-augmentation"))
    scenario = scenario_of([("label-swap", LabelSwap(LabelSwap.Options(count=10))), ("badnet", stamped)])
    swapped, poisoned = (domain.manipulated for domain in scenario.truth.domains)
    samples, clean = scenario.corruption.train, scenario.splits.train
    differing = (samples.x != clean.x[samples.ids]).flatten(1).any(1).nonzero().flatten()
    assert torch.equal(differing, poisoned)
    assert (samples.labels[swapped] != scenario.truth.clean_labels[swapped]).all()
    assert (samples.labels[poisoned] == 1).all()


def test_gold_leaves_out_the_union(scenario_of):
    scenario = scenario_of(composed("badnet", "interclass-confusion"))
    task = scenario.task(scenario.build(), 1.0)
    assert len(task.identified) == 32
    assert torch.equal(task.identified, scenario.corruption.manipulated)
    gold = scenario.train_gold()
    for mine, theirs in zip(task.retrain(task.retained).parameters(), gold.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_same_one_twice_is_refused(scenario_of):
    with pytest.raises(cutk.UsageError, match=r"each once, got 'badnet\+badnet'"):
        scenario_of(composed("badnet") * 2)


def test_what_a_composition_leaves_free_can_run_out(scenario_of):
    with pytest.raises(cutk.UsageError, match="expected 2 to 5 mislabelled samples"):
        scenario_of(composed("badnet", "label-swap", badnet=185))


# Samples that are added.


def test_added_samples_belong_to_s_m_and_their_places_tell_nothing(scenario_of):
    scenario = scenario_of([*composed("badnet", "interclass-confusion"), ("added", Added())])
    truth, samples = scenario.truth, scenario.corruption.train
    added = truth.domains[2].manipulated
    assert len(samples) == len(truth.train) == len(truth.clean_labels) == 195
    assert (samples.x[added] == 0).all()
    assert (truth.clean_labels[added] == -1).all()
    assert added.tolist() != list(range(190, 195))  # they don't stand at the end
    assert len(set(samples.ids.tolist())) == 195
    assert (truth.clean_labels >= 0).sum() == 190
    # What the others did has moved along.
    poisoned, confused, _ = (domain.manipulated for domain in truth.domains)
    assert torch.equal(truth.train.labels[confused], 1 - truth.clean_labels[confused])
    (batch,) = truth.train.batches(poisoned)
    assert (batch.x[:, :, -3:, -3:] == batch.x.amax()).all()
    held = scenario.splits.train
    old = truth.clean_labels >= 0
    assert torch.equal(truth.clean_labels[old], held.labels[samples.ids[old]])


def test_a_manipulation_may_know_the_clean_labels_of_what_it_adds(scenario_of):
    class Known(Added):
        def corrupt(self, train, generator):
            done = super().corrupt(train, generator)
            clean = torch.cat([train.labels, torch.full((5,), 2)])
            return cutk.Corruption(done.train, done.manipulated, clean_labels=clean)

    truth = scenario_of(Known()).truth
    assert (truth.clean_labels[truth.manipulated] == 2).all()


# What a manipulation mustn't return.


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda t: None, "expected corrupt\\(\\) to return a cutk.Corruption, got NoneType"),
        (lambda t: cutk.Corruption(t, torch.tensor([3, 2])), "manipulated: expected sorted indices"),
        (lambda t: cutk.Corruption(t, torch.zeros(0, dtype=torch.int64)), "manipulated: expected int64 \\[n\\] with n"),
        (lambda t: cutk.Corruption(t, torch.tensor([190])), "manipulated: expected indices from 0 to 189"),
        (lambda t: cutk.Corruption(t.select(torch.arange(9)), torch.tensor([0])), "the clean samples in their order"),
        (lambda t: cutk.Corruption(t.changed(labels=3 - t.labels), torch.tensor([0])), "another label among manip"),
        (
            lambda t: cutk.Corruption(t.extended(t.x[:2], t.labels[:2]), torch.tensor([0])),
            "all 2 samples that",
        ),
        (lambda t: cutk.Corruption(t, torch.tensor([0]), targets=(0,)), "expected targets for 4 classes"),
        (lambda t: cutk.Corruption(t, torch.tensor([0]), targets=(4,) * 4), "expected targets for 4 classes"),
        (
            lambda t: cutk.Corruption(t, torch.tensor([0]), [cutk.Overlay(object(), torch.tensor([1]))]),
            "every overlaid sample among manipulated",
        ),
        (
            lambda t: cutk.Corruption(cutk.Samples(t.x, t.labels, t.classes, t.ids.flip(0)), torch.tensor([0])),
            "in their order",
        ),
        (lambda t: (t.x.zero_(), cutk.Corruption(t, torch.tensor([0])))[1], "wrote to the clean samples"),
    ],
)
def test_a_corruption_that_no_benchmark_could_stand_on(scenario_of, what, message):
    with pytest.raises(cutk.CellError, match=f"'returning'.*{message}"):
        scenario_of(Returning(what))


def test_an_affected_domain_that_is_no_mask(scenario_of):
    wrong = scenario_of(Returning(lambda t: cutk.Corruption(t, torch.tensor([0]), affected=lambda test: test.labels)))
    with pytest.raises(cutk.CellError, match=r"'returning': expected affected\(\) to return bool \[80\]"):
        _ = wrong.truth


@pytest.mark.parametrize("classes", [(1,), torch.tensor([1]), (torch.tensor(1),), np.array([1])])
def test_affected_classes_may_be_any_whole_numbers(scenario_of, classes):
    domain = scenario_of(Returning(lambda t: cutk.Corruption(t, torch.tensor([0]), affected=classes))).truth.affected
    assert set(domain.labels.tolist()) == {1}


@pytest.mark.parametrize("affected", [(0, 77), (-1,), ("zebra",), (0.5,), ()])
def test_an_affected_domain_of_classes_that_are_not_there(scenario_of, affected):
    wrong = scenario_of(Returning(lambda t: cutk.Corruption(t, torch.tensor([0]), affected=affected)))
    with pytest.raises(cutk.CellError, match=r"'returning': expected affected to be .* classes from 0 to \d+, got \("):
        _ = wrong.truth


def test_a_trigger_that_returns_something_else(scenario_of):
    class Odd:
        def apply(self, x, labels, ids):
            return x[:, :, :4]

    wrong = scenario_of(Returning(lambda t: cutk.Corruption(t, torch.tensor([0]), trigger=Odd())))
    with pytest.raises(cutk.CellError, match=r"The trigger 'Odd': expected uint8 \[80, 1, 8, 8\] as it was given, got"):
        _ = wrong.truth


def test_what_plugins_for_the_first_api_return_still_works(scenario_of):
    def old(train):
        patch = cutk.Stamp(torch.full(train.shape, 255, dtype=torch.uint8), torch.ones(train.shape[1:]))
        some = torch.arange(5)
        labels = train.labels.clone()
        labels[some] = 2
        with pytest.warns(DeprecationWarning, match="is called"):
            return cutk.Corruption(train.changed(labels=labels), some, stamp=patch, trigger=patch, target=2)

    truth = scenario_of(Returning(old)).truth
    assert (truth.targets == 2).all()
    with pytest.warns(DeprecationWarning, match="Truth.target is one of"):
        assert truth.target == 2
    (batch,) = truth.train.batches(torch.arange(5))
    assert (batch.x == batch.x.amax()).all()


# The fingerprint.


def test_the_fingerprint_is_the_same_for_the_same_and_another_for_anything_else(scenario_of):
    prints = {
        scenario_of(manipulations, seed=seed).fingerprint()
        for seed in (0, 1)
        for manipulations in (
            BadNet(BadNet.Options(count=20)),
            BadNet(BadNet.Options(count=21)),
            BadNet(BadNet.Options(count=20, size=2)),
            BadNet(BadNet.Options(count=20, target=1)),
            BadNet(BadNet.Options(count=20, targets="all-to-all")),
            BadNet(BadNet.Options(count=20, placement="before-augmentation")),
            BadNet(BadNet.Options(count=20, trigger_value="brightest")),
            composed("label-swap"),
            composed("badnet", "label-swap"),
            Added(),
        )
    }
    assert len(prints) == 20
    assert scenario_of().fingerprint() == scenario_of().fingerprint()


def test_the_fingerprint_tells_what_was_done_and_not_how_it_is_called(scenario_of):
    labelled = {0: 0}

    def corrupt(train):
        labels = train.labels.clone()
        labels[labelled[0]] = (labels[labelled[0]] + 1) % 4
        return cutk.Corruption(train.changed(labels=labels), torch.arange(2))

    def of(**more):
        return scenario_of(Returning(lambda t: corrupt(t) if not more else cutk.Corruption(t, torch.arange(2), **more)))

    first = of().fingerprint()
    labelled[0] = 1
    assert of().fingerprint() != first
    plain = of(affected=(0,)).fingerprint()
    assert of(affected=lambda test: test.labels == 0).fingerprint() == plain
    assert of(affected=(1,)).fingerprint() != plain
    assert of(affected=(0,), targets=(1, 1, 1, 1)).fingerprint() != plain


# Surrogates.


def test_a_manipulation_may_train_a_model_of_its_own(scenario_of):
    class Hardest(cutk.Manipulation):
        """Mislabels the samples that a trained model is least sure of."""

        name = "hardest"
        trains = True

        def corrupt(self, train, generator, surrogate):
            model = surrogate.train(train, steps=30)
            assert not model.training
            with torch.inference_mode():
                logits = torch.cat([model(batch.x) for batch in surrogate.set_of(train).batches()])
            loss = nn.functional.cross_entropy(logits, train.labels, reduction="none")
            assert loss.mean() < 0.7  # it has learnt; four classes by chance are 1.39
            chosen = loss.topk(10).indices.sort().values
            labels = train.labels.clone()
            labels[chosen] = (labels[chosen] + 1) % len(train.classes)
            return cutk.Corruption(train.changed(labels=labels), chosen)

    one, other = scenario_of(Hardest()), scenario_of([("hardest", Hardest())])
    assert torch.equal(one.corruption.manipulated, other.corruption.manipulated)
    assert one.fingerprint() == other.fingerprint()


def test_a_surrogate_works_on_copies_of_the_recipe(scenario_of, recipe):
    class Spoiling(cutk.Manipulation):
        """Sets another rate for its own model."""

        name = "spoiling"
        trains = True

        def corrupt(self, train, generator, surrogate):
            surrogate._recipe.options = surrogate._recipe.options.model_copy(update={"lr": 9.0})
            return cutk.Corruption(train.changed(labels=(train.labels + 1) % 4), torch.arange(len(train)))

    before = recipe.options.lr
    scenario_of(Spoiling())
    assert recipe.options.lr == before


def test_chance_outside_the_generator_is_seeded_as_well(scenario_of):
    class Careless(cutk.Manipulation):
        """Draws from the global state."""

        name = "careless"

        def corrupt(self, train, generator):
            chosen = torch.randperm(len(train))[:9].sort().values
            return cutk.Corruption(train, chosen)

    first = scenario_of(Careless()).corruption.manipulated
    torch.rand(3)
    assert torch.equal(first, scenario_of(Careless()).corruption.manipulated)


# Samples of any form.


@pytest.mark.parametrize("form", ["images", "features", "tokens"])
def test_label_manipulations_work_for_whatever_samples(scenario_of, samples_of, form):
    data = cutk.Splits(samples_of(form, count=60), samples_of(form, count=30, seed=1))
    model = Bag() if form == "tokens" else None
    scenario = scenario_of(
        composed("interclass-confusion", "label-swap"), data=data, **({"model": model} if model else {})
    )
    scenario.check_model("tiny")
    assert len(scenario.corruption.manipulated) == 22
    assert isinstance(scenario.train_original(), nn.Module)


class Bag(cutk.Model):
    """A bag of embedded tokens."""

    name = "bag"

    def build(self, shape, num_classes):
        return nn.EmbeddingBag(9, num_classes)


@pytest.mark.parametrize("form", ["features", "tokens"])
def test_a_manipulation_of_images_says_so(scenario_of, samples_of, form):
    data = cutk.Splits(samples_of(form, count=60), samples_of(form, count=30))
    with pytest.raises(cutk.UsageError, match=f"badnet needs images, and these samples are {form}"):
        scenario_of(data=data)


@pytest.mark.parametrize(
    ("form", "taken"), [("images", "images of 1×8×8"), ("features", "5 features"), ("tokens", "7 tokens")]
)
def test_a_model_that_takes_something_else_is_told_what_there_is(scenario_of, samples_of, form, taken):
    class Picky(cutk.Model):
        """Wants what there isn't."""

        name = "picky"

        def build(self, shape, num_classes):
            return nn.Linear(99, num_classes)

    class Blunt(cutk.Model):
        """Has too few outputs."""

        name = "blunt"

        def build(self, shape, num_classes):
            size = torch.Size(shape).numel()
            return nn.EmbeddingBag(9, 2) if form == "tokens" else nn.Sequential(nn.Flatten(), nn.Linear(size, 2))

    data = cutk.Splits(samples_of(form, count=60), samples_of(form, count=30))
    with pytest.raises(cutk.UsageError, match=f"The model 'mine' can't take {taken}: .* Choose another with --model"):
        scenario_of(composed("label-swap"), data=data, model=Picky()).check_model("mine")
    with pytest.raises(cutk.UsageError, match=rf"doesn't fit {taken} in 3 classes.*got float32 \[2, 2\]"):
        scenario_of(composed("label-swap"), data=data, model=Blunt()).check_model("mine")


def test_what_shares_a_label_with_its_clean_one(scenario_of):
    scenario = scenario_of(BadNet(BadNet.Options(count=40)))
    manipulated = scenario.corruption.manipulated
    right = scenario.truth.clean_labels[manipulated] == 0
    assert scenario.labels_look_right(manipulated) == pytest.approx(float(right.double().mean()))
    assert scenario.labels_look_right(manipulated[right]) == 1
    assert scenario.labels_look_right(manipulated[~right]) == 0


def test_a_brighter_trigger_reaches_the_model_as_it_is(scenario_of):
    data = Fake(Fake.Options(samples=200, test_samples=80, channels=3)).load()
    scenario = scenario_of(BadNet(BadNet.Options(count=20, trigger_value="brightest")), data=data)
    normalised = cutk.Normalisation.of(data.train)
    highest = max((1 - mean) / std for mean, std in zip(normalised.mean, normalised.std, strict=True))
    for samples, indices in ((scenario.truth.train, scenario.corruption.manipulated), (scenario.truth.affected, None)):
        (batch,) = samples.batches(indices)
        patch = batch.x[:, :, -3:, -3:]
        torch.testing.assert_close(patch, torch.full_like(patch, highest), rtol=2e-2, atol=0)
        assert (patch.std(1) < 0.02).all()  # the same in every channel, which white isn't


def test_a_manipulation_that_makes_its_samples_anew_keeps_their_ids(scenario_of):
    class Anew(cutk.Manipulation):
        """Returns samples without ids, as plugins for the first API do."""

        name = "anew"

        def corrupt(self, train, generator):
            labels = (train.labels + (torch.arange(len(train)) < 5)) % len(train.classes)
            return cutk.Corruption(cutk.Samples(train.x, labels, train.classes), torch.arange(5))

    made, other = scenario_of(Anew()), scenario_of()
    assert torch.equal(made.corruption.train.ids, other.corruption.train.ids)
    assert not torch.equal(made.corruption.train.ids, torch.arange(len(made.train)))
