from __future__ import annotations

import copy
import gc
import io
import pickle
import sys
import types
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import cutk
from cutk import sealed
from cutk.chance import derive_seed, stream
from cutk.cli.progress import PlainObserver
from cutk.data.batches import ResidentTrainSet
from cutk.data.sealed import Sealed, unseal
from cutk.learning.recipe import RecipeOptions
from cutk.plugins.registry import Entry, Provider
from cutk.problem.scenario import Scenario, hold_out, identify
from cutk.problem.task import Log
from cutk.run.benchmark import Benchmark
from cutk.run.cells import Observer
from cutk.run.store import Store


def test_identification_by_hand():
    manipulated = torch.tensor([3, 8, 11, 20])
    order = torch.randperm(4, generator=torch.Generator().manual_seed(5))
    by_hand = sorted(manipulated[order[:2]].tolist())
    assert identify(manipulated, 0.5, torch.Generator().manual_seed(5)).tolist() == by_hand
    assert identify(manipulated, 1.0, torch.Generator().manual_seed(5)).tolist() == [3, 8, 11, 20]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(10, 60), seed=st.integers(0, 1000))
def test_identified_sets_are_nested_and_of_the_right_size(count, seed):
    manipulated = torch.arange(0, 3 * count, 3)
    smaller: set[int] = set()
    for tenth in range(1, 11):
        identified = identify(manipulated, tenth / 10, torch.Generator().manual_seed(seed))
        assert len(identified) == round(tenth / 10 * count)
        assert smaller <= set(identified.tolist()) <= set(manipulated.tolist())
        smaller = set(identified.tolist())


def test_identification_is_uniform():
    manipulated = torch.arange(10)
    drawn = [int(identify(manipulated, 0.1, stream(seed, "identification"))) for seed in range(2000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(cutk.UsageError, match="above 0 and at most 1"):
        identify(torch.arange(5), alpha, torch.Generator())


def test_an_alpha_that_identifies_nothing_is_refused():
    with pytest.raises(
        cutk.UsageError, match=r"Alpha 0\.05 identifies none of the 5 manipulated samples; use at least"
    ):
        identify(torch.arange(5), 0.05, torch.Generator())


def test_every_purpose_has_its_own_stream():
    seeds = {derive_seed(seed, purpose) for seed in range(20) for purpose in ("order", "manipulation")}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_hold_out_splits_without_overlap(images_of):
    images = images_of(count=100)
    train, validation = hold_out(images, 0.05, torch.Generator().manual_seed(0))
    assert (len(train), len(validation)) == (95, 5)
    rows = {tuple(pixels.flatten().tolist()) for pixels in torch.cat([train.pixels, validation.pixels])}
    assert rows == {tuple(pixels.flatten().tolist()) for pixels in images.pixels}
    assert hold_out(images, 0.0, torch.Generator())[1] is None


def test_validation_is_held_out_before_the_manipulation_and_stays_clean(tiny_scenario):
    # The fake dataset goes round its classes, so a clean sample's label follows from its pattern.
    validation = tiny_scenario.validation
    assert validation is not None
    clean = tiny_scenario.splits.train
    position = {tuple(p.flatten().tolist()): i for i, p in enumerate(clean.pixels)}
    for pixels, label in zip(tiny_scenario._held_out.pixels, validation.labels, strict=True):
        assert int(clean.labels[position[tuple(pixels.flatten().tolist())]]) == int(label)
    assert not next(validation.batches()).x.isnan().any()


def test_the_truth_of_a_backdoor(tiny_scenario):
    truth, corruption = tiny_scenario.truth, tiny_scenario.corruption
    test = tiny_scenario.splits.test
    assert len(truth.affected) == len(truth.retain) == len(test)
    assert torch.equal(truth.affected.labels, test.labels)
    assert torch.equal(truth.retain._pixels, test.pixels)
    assert torch.equal(truth.affected._pixels, corruption.trigger.apply(test.pixels))
    assert (truth.train.labels[truth.manipulated] == truth.target).all()
    assert (truth.clean_labels[truth.manipulated] != truth.target).any()


class Swap(cutk.Manipulation):
    """Two classes, mixed up."""

    name = "swap"

    def corrupt(self, train, generator):
        some = torch.isin(train.labels, torch.tensor([0, 1])).nonzero().flatten()[:10]
        labels = train.labels.clone()
        labels[some] = 1 - labels[some]
        return cutk.Corruption(cutk.Images(train.pixels, labels, train.classes), some, affected_classes=(0, 1))


def test_the_truth_of_a_label_manipulation(registry, tiny_recipe):
    dataset, model = (registry.get(k, n).component for k, n in (("dataset", "fake"), ("model", "convnet-small")))
    scenario = Scenario(dataset().load(), Swap(), model(), tiny_recipe, 0)
    truth = scenario.truth
    assert set(truth.affected.labels.tolist()) == {0, 1}
    assert set(truth.retain.labels.tolist()) == {2, 3}
    assert len(truth.affected) + len(truth.retain) == len(scenario.splits.test)
    assert truth.target is None


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tiny_scenario):
    def weights(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(tiny_scenario.train_original(Log()))
    torch.rand(7)  # whatever else draws from the global state in between
    assert torch.equal(first, weights(tiny_scenario.train_original(Log())))
    assert not torch.equal(first, weights(tiny_scenario.train_gold(Log())))


def test_retraining_at_alpha_one_is_gold(tiny_scenario, registry):
    original = tiny_scenario.train_original(Log())
    rewod = registry.get("unlearner", "rewod").component()
    retrained = rewod.unlearn(tiny_scenario.task(original, 1.0))
    gold = tiny_scenario.train_gold(Log())
    for mine, theirs in zip(retrained.state_dict().values(), gold.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_task_is_a_partition_and_its_original_a_copy(tiny_scenario):
    original = tiny_scenario.build()
    task = tiny_scenario.task(original, 0.5)
    both = torch.cat([task.identified, task.retained]).sort().values
    assert torch.equal(both, torch.arange(len(task.train)))
    assert task.original is not original
    next(task.original.parameters()).data.zero_()
    assert next(original.parameters()).any()


# The barrier.


def reachable(root):
    """Return every object that can be reached from ``root`` by references: attributes, items, closures, defaults.

    A module, or the module globals that every function refers to, is where an import could lead as well and where
    the whole process lies; the walk ends there.
    """
    namespaces = {id(vars(module)) for module in list(sys.modules.values()) if hasattr(module, "__dict__")}
    seen, found, todo = set(), [], [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, types.ModuleType) or id(thing) in namespaces:
            continue
        seen.add(id(thing))
        found.append(thing)
        todo.extend(gc.get_referents(thing))
        # The collector knows no callbacks of weak references.
        todo.extend(ref.__callback__ for ref in weakref.getweakrefs(thing) if ref.__callback__ is not None)
        if isinstance(thing, torch.Tensor):  # a tensor's storage and attributes are not known to the collector
            todo.extend(vars(thing).values())
    return found


def tensors_in(things):
    return [thing for thing in things if isinstance(thing, torch.Tensor)]


def knows(tensors, secret):
    """Whether one of ``tensors`` holds what ``secret`` does, in whatever dtype or shape."""
    flat = secret.flatten().double()
    return any(t.numel() == flat.numel() and torch.equal(t.detach().flatten().double(), flat) for t in tensors)


def secrets_of(scenario):
    """What an unlearner must not know, by name."""
    truth, corruption = scenario.truth, scenario.corruption
    marked = torch.zeros(len(truth.train), dtype=torch.bool)
    marked[truth.manipulated] = True
    return {
        "manipulated indices": truth.manipulated,
        "manipulated indices as a mask": marked,
        "clean samples' mask": ~marked,
        "clean labels": truth.clean_labels,
        "clean labels of S_m": truth.clean_labels[truth.manipulated],
        "trigger pattern": corruption.trigger.pattern,
        "trigger position": corruption.trigger.opacity,
        "test pixels": scenario.splits.test.pixels,
        "triggered test pixels": truth.affected._pixels,
    }


@pytest.fixture
def secrets(tiny_scenario):
    return secrets_of(tiny_scenario)


FORBIDDEN = (cutk.Truth, cutk.Corruption, cutk.Stamp, cutk.Splits, cutk.Manipulation, cutk.Evaluation)


@pytest.fixture
def task(tiny_scenario):
    return tiny_scenario.task(tiny_scenario.build(), 0.5, Log())


def test_what_an_unlearner_must_not_know_cannot_be_reached_from_a_task(task, secrets):
    things = reachable(task)
    tensors = tensors_in(things)
    assert knows(tensors, task.train._pixels)  # the walk does find what is there
    assert knows(tensors, task.identified)
    for name, secret in secrets.items():
        assert not knows(tensors, secret), name
    assert not [thing for thing in things if isinstance(thing, FORBIDDEN)]


def test_a_leak_would_be_found(tiny_scenario, task, secrets):
    # The same walk over a task into which each secret was let slip in another way.
    leaks = [
        lambda secret: setattr(task, "extra", {"deep": [secret]}),
        lambda secret: setattr(task.recipe, "hook", lambda: secret),
        lambda secret: setattr(task.log, "watcher", (lambda s: lambda *_: s)(secret)),
    ]
    for (name, secret), leak in zip(secrets.items(), leaks * 3, strict=True):
        leak(secret)
        assert knows(tensors_in(reachable(task)), secret), name
    task.extra = tiny_scenario
    assert any(isinstance(thing, cutk.Corruption) for thing in reachable(task))


class Spy(cutk.Unlearner):
    """Keeps what it is given."""

    name = "spy"
    given = ()

    def prepare(self, task):
        Spy.given = (task, self)

    def unlearn(self, task, state=None):
        Spy.given = (*Spy.given, task, state)
        return task.original


def test_the_barrier_holds_in_a_running_benchmark(registry, setup_of, tmp_path):
    entry = Entry("unlearner", "spy", Spy, Provider("spy", "1", "spy"))
    setup = setup_of(unlearners=["none"], alphas=[0.5], options={})
    spying = replace(setup, unlearners=(replace(setup.unlearners[0], entry=entry),))
    benchmark = Benchmark(spying, Store(tmp_path), PlainObserver(Console(file=io.StringIO())))
    assert not benchmark.run().failures
    scenario = benchmark._scenario(setup.manipulations[0], 0)
    assert len(Spy.given) == 4
    things = reachable(Spy.given)
    Spy.given = ()
    tensors = tensors_in(things)
    assert knows(tensors, scenario.identified(0.5))
    for name, secret in secrets_of(scenario).items():
        assert not knows(tensors, secret), name
    assert not [thing for thing in things if isinstance(thing, FORBIDDEN)]
    # Nor is there a word of the attack, or anyone who watches.
    assert not [thing for thing in things if isinstance(thing, str) and "badnet" in thing]
    assert not [thing for thing in things if isinstance(thing, Observer | Benchmark | Scenario | Store)]


def test_a_batch_carries_the_trigger_all_the_same(task, tiny_scenario):
    (batch,) = task.train.batches(tiny_scenario.truth.manipulated)
    assert (batch.x[:, :, -3:, -3:] == batch.x.amax()).all()


def test_the_master_seed_cannot_be_reached(registry, tiny_recipe):
    seed = 987654321
    dataset, manipulation, model = (
        registry.get(k, n).component
        for k, n in (("dataset", "fake"), ("manipulation", "badnet"), ("model", "convnet-small"))
    )
    scenario = Scenario(dataset().load(), manipulation(), model(), tiny_recipe, seed)
    numbers = {thing for thing in reachable(scenario.task(scenario.build(), 1.0)) if isinstance(thing, int)}
    assert seed not in numbers
    assert derive_seed(seed, "initialisation") in numbers
    assert not {derive_seed(seed, p) for p in ("manipulation", "identification", "validation")} & numbers


def test_samples_that_can_be_reached_look_as_they_are_read(task):
    # Were they kept without the trigger, a comparison would tell who carries one.
    (batch,) = task.train.batches(batch_size=len(task.train))
    held = task.train._pixels.float() / task.train._scale - task.train._offset
    torch.testing.assert_close(batch.x, held)


def test_augmentation_moves_the_sample_and_not_its_trigger(images_of):
    images = images_of(count=40)
    patch = cutk.Stamp(torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(8, 8))
    patch.opacity[-2:, -2:] = 1
    augmentation = cutk.Augmentation(padding=2, flip=True)
    plain, stamped = (
        ResidentTrainSet(images, cutk.Normalisation((0.0,), (1.0,)), augmentation, stamp=stamp, stamped=marked)
        for stamp, marked in ((None, None), (patch, torch.tensor([1, 5, 30])))
    )

    def read(samples):
        (batch,) = samples.batches(None, 40, augment=True, generator=torch.Generator().manual_seed(3))
        return (batch.x * 255).round().to(torch.uint8)

    expected = read(plain)
    expected[[1, 5, 30], :, -2:, -2:] = 255
    assert torch.equal(read(stamped), expected)


def test_a_copy_of_a_training_set_works_and_one_in_another_process_is_refused(task):
    (batch,) = copy.deepcopy(task.train).batches(batch_size=len(task.train), augment=True)
    assert len(batch.x) == len(task.train)
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(task.train)


def test_what_is_sealed_is_dropped_with_its_last_ticket():
    before = len(sealed._CONTENTS)
    ticket = Sealed("secret")
    other = copy.copy(ticket)
    assert (unseal(ticket), unseal(other)) == ("secret", "secret")
    with pytest.raises(TypeError, match="weak reference"):
        weakref.ref(ticket)
    del ticket
    assert len(sealed._CONTENTS) == before + 1
    del other
    gc.collect()
    assert len(sealed._CONTENTS) == before


def test_recipe_options_are_the_papers_by_default():
    o = RecipeOptions()
    assert (o.steps, o.batch_size, o.lr, o.momentum, o.weight_decay) == (4000, 512, 0.025, 0.9, 5e-4)
    assert (o.t_mult, o.warmup, o.crop_padding, o.flip) == (1.25, 0.01, 4, True)
