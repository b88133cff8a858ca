"""What an unlearner must not know cannot be reached from what it is given; and the walk that says so finds leaks."""

from __future__ import annotations

import copy
import functools
import gc
import sys
import types
import weakref

import pytest
import torch

import cutk
from cutk.chance import derive_seed
from cutk.data import sealed
from cutk.data.batches import ResidentTrainSet
from cutk.data.sealed import Sealed, unseal
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log
from cutk_builtin.datasets.fake import Fake
from cutk_builtin.manipulations.badnet import BadNet
from cutk_builtin.manipulations.interclass_confusion import InterclassConfusion


def reachable(root):
    """Return every object that can be reached from ``root`` by references: attributes, items, closures, defaults.

    Weak references are followed, their callbacks too, and so are a tensor's base, gradient and storage and the seed of
    a generator. A module, or the module globals that every function refers to, is where an import could lead as well
    and where the whole process lies; the walk ends there.
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
        # The collector knows nothing of weak references and their callbacks.
        if isinstance(thing, weakref.ref):
            todo.append(thing())
        todo.extend(ref.__callback__ for ref in weakref.getweakrefs(thing) if ref.__callback__ is not None)
        if isinstance(thing, torch.Tensor):  # nor of what a tensor holds
            todo.extend([*vars(thing).values(), thing.grad if thing.is_leaf else None, thing._base])
            found.append(_Storage(torch.empty(0, dtype=thing.dtype).set_(thing.untyped_storage())))
        if isinstance(thing, torch.Generator):
            todo.append(thing.initial_seed())
    return found


class _Storage:
    """All that lies in a tensor's memory, whatever part of it the tensor shows."""

    def __init__(self, values):
        self.values = values


def tensors_in(things):
    return [t for t in things if isinstance(t, torch.Tensor)] + [t.values for t in things if isinstance(t, _Storage)]


def numbers_in(things):
    return {thing for thing in things if type(thing) is int}


def knows(tensors, secret):
    """Whether one of ``tensors`` holds what ``secret`` does, in whatever dtype or shape, alone or among others."""

    def plain(tensor):
        return tensor.detach().cpu().flatten().double().add(0.0).numpy().tobytes()

    wanted = plain(secret)
    return any(wanted in plain(t) for t in tensors if not t.is_complex() and t.numel() >= secret.numel())


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
        "test samples": scenario.splits.test.x,
        "triggered test samples": truth.affected._x,
    }


FORBIDDEN = (
    *(cutk.Truth, cutk.Domain, cutk.Corruption, cutk.Stamp, cutk.Overlay, cutk.Splits, cutk.Samples),
    *(cutk.Manipulation, cutk.Identification, cutk.Evaluation, Scenario),
)


@pytest.fixture
def secrets(scenario):
    return secrets_of(scenario)


@pytest.fixture
def task(scenario):
    return scenario.task(scenario.train_original(), 0.5, Log(lambda done, total: scenario))


def leaks_of(things, secrets):
    tensors = tensors_in(things)
    return [name for name, secret in secrets.items() if knows(tensors, secret)]


def test_what_an_unlearner_must_not_know_cannot_be_reached_from_a_task(task, secrets):
    things = reachable([task, task.knowing(task.identified), task.private(3), copy.deepcopy(task)])
    tensors = tensors_in(things)
    assert knows(tensors, task.train._x)  # the walk does find what is there
    assert knows(tensors, task.identified)
    assert knows(tensors, task.validation.labels)
    assert leaks_of(things, secrets) == []
    assert not [thing for thing in things if isinstance(thing, FORBIDDEN)]
    assert not [thing for thing in things if isinstance(thing, str) and "badnet" in thing]


def test_nor_from_what_its_calls_return(task, secrets):
    batches = list(task.train.batches(None, 64, shuffle=True, augment=True, steps=9))
    trained = task.retrain(task.retained)
    things = reachable([task, batches, trained, task.fresh(), task.retained])
    assert leaks_of(things, secrets) == []
    assert not [thing for thing in things if isinstance(thing, FORBIDDEN)]


class Holder:
    """Something to hang a leak on."""


def as_attribute(task, secret):
    task.extra = {"deep": [secret]}


def as_closure(task, secret):
    task.recipe.hook = lambda: secret


def as_default(task, secret):
    task.recipe.hook = lambda value=secret: value


def as_bound_argument(task, secret):
    task.log.watcher = functools.partial(print, secret)


def as_callback_of_a_weak_reference(task, secret):
    task.holder = Holder()
    task.kept = weakref.ref(task.holder, lambda _: secret)


def as_weak_reference(task, secret, alive=[]):  # noqa: B006  # keeps the holder alive
    holder = Holder()
    holder.secret = secret
    alive.append(holder)
    task.kept = weakref.ref(holder)


def as_part_of_a_larger_tensor(task, secret):
    task.identified = torch.cat([torch.zeros(3, dtype=secret.dtype), secret.flatten()])[:2]


def as_attribute_of_a_tensor(task, secret):
    task.identified.origin = secret


def as_gradient(task, secret):
    weight = torch.zeros(secret.shape, requires_grad=True)
    weight.grad = secret.float()
    task.weight = weight


def as_hook(task, secret):
    task.original.register_forward_hook(lambda *_: secret)


LEAKS = [
    *(as_attribute, as_closure, as_default, as_bound_argument, as_callback_of_a_weak_reference, as_weak_reference),
    *(as_part_of_a_larger_tensor, as_attribute_of_a_tensor, as_gradient, as_hook),
]


@pytest.mark.parametrize(("number", "leak"), list(enumerate(LEAKS)), ids=[leak.__name__ for leak in LEAKS])
def test_a_leak_would_be_found(task, secrets, number, leak):
    # Each secret in another way: a walk over all that there is takes its time.
    name = list(secrets)[number % len(secrets)]
    leak(task, secrets[name])
    assert name in leaks_of(reachable(task), secrets)


def test_a_leak_of_the_whole_scenario_would_be_found(scenario, task):
    task.extra = scenario
    assert any(isinstance(thing, cutk.Corruption) for thing in reachable(task))


def test_parts_of_one_array_lead_to_no_other(scenario_of):
    # Training, validation and test set as views of one tensor: their storage holds all three.
    x = torch.randint(0, 256, (90, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(90) % 3
    parts = [
        cutk.Samples(x[a:b], labels[a:b], ("a", "b", "c"), torch.arange(a, b)) for a, b in ((0, 40), (40, 60), (60, 90))
    ]
    data = cutk.Splits(parts[0], parts[2], validation=parts[1])
    scenario = scenario_of(InterclassConfusion(InterclassConfusion.Options(count=8)), data=data)
    tensors = tensors_in(reachable(scenario.task(scenario.build(), 0.5)))
    assert knows(tensors, parts[0].x)
    assert not knows(tensors, parts[2].x)
    assert not knows(tensors, scenario.truth.clean_labels)


# Seeds.

PURPOSES = (
    *("hold-out", "manipulation", "manipulation/1", "manipulation/surrogate", "identification", "initialisation"),
    *("order", "unlearning", "arrangement"),
)


def attack(told, salts):
    """Try small seeds until one derives a number that was told: with it come all streams (0.1 fell to this)."""
    return [
        (seed, purpose, salt)
        for salt in salts
        for seed in range(10_000)
        for purpose in ("order", "initialisation", "unlearning")
        if derive_seed(seed, purpose, salt) in told
    ]


def test_no_seed_can_be_found_by_trying_small_ones(scenario, task):
    seeds = []

    class Listening(Log):
        def progress(self, done, total):
            seeds.append(torch.initial_seed())

    task.log = Listening()
    build = task._build
    task._build = lambda: seeds.append(torch.initial_seed()) or build()
    task.retrain(task.retained)
    assert len(seeds) == 1 + task.recipe.options.steps
    told = numbers_in(reachable(task)) | set(seeds) | {task.generator.initial_seed()}
    mine = cutk.Samples(task.train._x, task.train.labels, tuple("abcd"))
    words = {thing for thing in reachable(task) if isinstance(thing, str) and len(thing) == 64}
    guesses = ["", mine.digest().hex(), cutk.Splits(mine, mine).fingerprint(), *words]
    assert attack(told, guesses) == []
    # Who has the test samples has the salt: with it the attack does find the seed.
    assert (0, "order", scenario.splits.fingerprint()) in attack(told, [scenario.splits.fingerprint()])


def test_the_salt_hangs_on_every_test_sample(scenario_of):
    data = Fake(Fake.Options(samples=200, test_samples=80)).load()
    before = scenario_of(data=data).unlearning_seed()
    for change in ("x", "labels"):
        changed = getattr(data.test, change).clone()
        changed[-1] = (changed[-1] + 1) % 4
        other = cutk.Splits(data.train, data.test.changed(**{change: changed}))
        assert scenario_of(data=other).unlearning_seed() != before


def test_neither_the_master_seed_nor_a_derived_one_can_be_reached(scenario_of):
    seed = 987654321
    scenario = scenario_of(seed=seed)
    salt = scenario.splits.fingerprint()
    things = reachable(scenario.task(scenario.build(), 1.0))
    numbers = numbers_in(things)
    assert seed not in numbers
    assert salt not in [thing for thing in things if isinstance(thing, str)]
    reached = {purpose for purpose in PURPOSES if derive_seed(seed, purpose, salt) in numbers}
    assert reached == {"unlearning"}  # the method's own


# What is sealed, and what is read.


def test_a_batch_carries_the_trigger_all_the_same(task, scenario):
    (batch,) = task.train.batches(scenario.truth.manipulated)
    assert (batch.x[:, :, -3:, -3:] == batch.x.amax()).all()


@pytest.mark.parametrize("value", ["white", "brightest"])
def test_samples_that_can_be_reached_look_as_they_are_read(scenario_of, value):
    # Were they kept without the trigger, a comparison would tell who carries one.
    scenario = scenario_of(BadNet(BadNet.Options(count=20, trigger_value=value)))
    train = scenario.task(scenario.build(), 0.5).train
    (batch,) = train.batches(batch_size=len(train))
    torch.testing.assert_close(batch.x, train._scaling(train._x))


def test_augmentation_moves_the_sample_and_not_its_trigger(samples_of):
    images = samples_of(count=40)
    patch = cutk.Stamp(torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(8, 8))
    patch.opacity[-2:, -2:] = 1
    augmentation = cutk.Augmentation(padding=2, flip=True)
    overlays = [cutk.Overlay(patch, torch.tensor([1, 5, 30]))]
    plain, stamped = (
        ResidentTrainSet(images, cutk.Normalisation((0.0,), (1.0,)), augmentation, overlays=laid)
        for laid in ((), overlays)
    )

    def read(samples):
        (batch,) = samples.batches(None, 40, augment=True, generator=torch.Generator().manual_seed(3))
        return (batch.x * 255).round().to(torch.uint8)

    expected = read(plain)
    expected[[1, 5, 30], :, -2:, -2:] = 255
    assert torch.equal(read(stamped), expected)


def test_what_is_sealed_is_dropped_with_its_last_ticket():
    gc.collect()
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
