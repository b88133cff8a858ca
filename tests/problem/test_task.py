"""What a method holds, and that nothing of it is another's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk.problem.task import Log


@pytest.fixture
def original(scenario):
    return scenario.train_original()


@pytest.fixture
def task(scenario, original):
    return scenario.task(original, 0.5)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_task_is_a_partition_and_its_original_a_copy(task, original):
    both = torch.cat([task.identified, task.retained]).sort().values
    assert torch.equal(both, torch.arange(len(task.train)))
    assert task.original is not original
    next(task.original.parameters()).data.zero_()
    assert next(original.parameters()).any()


def test_retained_follows_identified(task):
    task.identified = torch.tensor([0, 1])
    assert torch.equal(task.retained, torch.arange(2, len(task.train)))


def test_knowing_more_is_the_same_problem_with_another_s_f(task):
    more = torch.cat([task.identified, task.retained[:7]]).sort().values
    wider = task.knowing(more)
    assert torch.equal(wider.identified, more)
    assert len(set(wider.identified.tolist()) & set(wider.retained.tolist())) == 0
    assert len(wider.identified) + len(wider.retained) == len(task.train)
    assert (wider.original, wider.train, wider.log, wider.recipe) == (task.original, task.train, task.log, task.recipe)
    assert torch.equal(weights(wider.fresh()), weights(task.fresh()))
    for wrong in (more.flip(0), more[:0], torch.tensor([len(task.train)]), more.tolist()):
        with pytest.raises(cutk.CellError, match="knowing\\(\\): expected"):
            task.knowing(wrong)


def test_a_task_can_be_made_in_a_notebook(samples_of, recipe):
    samples = samples_of(count=30)
    train = ResidentTrainSet(samples, cutk.Normalisation.of(samples))

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    task = cutk.Task(build(), train, torch.tensor([1, 5]), recipe, build=build)
    assert (len(task.retained), task.num_classes, task.device, task.validation) == (28, 3, torch.device("cpu"), None)
    assert torch.equal(weights(task.retrain(task.retained)), weights(task.retrain(task.retained)))
    other = cutk.Task(build(), train, torch.tensor([1, 5]), recipe, build=build, initialisation_seed=1)
    assert not torch.equal(weights(task.fresh()), weights(other.fresh()))
    without = cutk.Task(build(), train, torch.tensor([1, 5]), recipe)
    with pytest.raises(cutk.CellError, match="made without its architecture: give Task"):
        without.fresh()
    for wrong in (torch.tensor([5, 1]), torch.tensor([30]), [1, 5]):
        with pytest.raises(cutk.CellError, match="identified: expected"):
            cutk.Task(build(), train, wrong, recipe)


def test_fresh_is_as_the_original_began_or_anew(task):
    assert torch.equal(weights(task.fresh()), weights(task.fresh()))
    assert not torch.equal(weights(task.fresh()), weights(task.fresh(anew=True)))


def test_retraining_leaves_the_global_chance_as_it_was(task):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    task.retrain(task.retained)
    assert torch.equal(torch.rand(4), expected)


def spoil_the_recipe(task):
    task.recipe.options = task.recipe.options.model_copy(update={"lr": 0.5})


def spoil_the_options(task):
    task.recipe.options.__dict__["lr"] = 0.5


def spoil_the_precision(task):
    task.recipe.precision = "bf16"


def spoil_the_loop(task):
    task.recipe.fit = lambda model, *args, **kwargs: model


def spoil_the_architecture(task):
    task._build.func.__self__.dropout = 0.9


def spoil_the_labels(task):
    task.train.labels.zero_()


def spoil_the_validation(task):
    task.validation.labels.zero_()


def spoil_the_identified(task):
    task.identified.zero_()


def spoil_the_model(task):
    for parameter in task.original.parameters():
        parameter.data.zero_()


def spoil_the_log(task):
    task.log.scalar("loss", 1.0)


def spoil_the_chance(task):
    torch.rand(99, generator=task.generator)


SPOILING = [
    *(spoil_the_recipe, spoil_the_options, spoil_the_precision, spoil_the_loop, spoil_the_architecture),
    *(spoil_the_labels, spoil_the_validation, spoil_the_identified, spoil_the_model, spoil_the_log, spoil_the_chance),
]


def outcome_of(task):
    """Everything that another call could be told by, as numbers."""
    with cutk.isolated_rng(0):
        trained = task.recipe.train(task.original, task.train, task.identified, steps=5)
    right = task.recipe.predict(trained, task.validation) == task.validation.labels
    return [weights(trained), weights(task.retrain(task.retained)), right, task.train.labels, task.log.scalars]


@pytest.mark.parametrize("spoil", SPOILING, ids=lambda spoil: spoil.__name__)
def test_what_a_method_changes_changes_no_other_call(scenario, original, spoil):
    expected = outcome_of(scenario.task(original, 0.5))
    spoil(scenario.task(original, 0.5))
    mother = scenario.task(original, 0.5)
    spoil(mother.private(1))
    for after in (scenario.task(original, 0.5), mother.private(scenario.unlearning_seed())):
        for mine, theirs in zip(outcome_of(after), expected, strict=True):
            assert mine == theirs if isinstance(mine, dict) else torch.equal(mine, theirs)


@pytest.mark.parametrize("which", ["train", "validation"])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.zero_(),
        lambda x: x.data.zero_(),
        lambda x: x.numpy().fill(0),
        lambda x: x.untyped_storage().fill_(0),
        lambda x: x.data.view(-1)[7:8].add_(1),
    ],
    ids=["in place", "by .data", "by .numpy()", "by its storage", "one pixel"],
)
def test_writing_to_the_samples_is_noticed_by_whatever_way(scenario, original, which, write):
    task = scenario.task(original, 0.5)
    other = scenario.task(original, 0.5)
    assert task.intact
    write(getattr(task, which)._x)
    assert not other.intact
    assert not getattr(scenario, which).intact


def test_each_private_task_draws_for_itself(task):
    one, other = task.private(5), task.private(5)
    assert one.train.generator is one.generator
    assert one.validation.generator is one.generator
    assert torch.equal(torch.rand(3, generator=one.generator), torch.rand(3, generator=other.generator))
    list(one.train.batches())
    assert (one.train.drawn, other.train.drawn, task.train.drawn) == (len(task.train), 0, 0)


def test_a_copy_of_a_training_set_works_and_one_in_another_process_is_refused(task):
    (batch,) = copy.deepcopy(task.train).batches(batch_size=len(task.train), augment=True)
    assert len(batch.x) == len(task.train)
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(task.train)


def test_a_log_tells_its_watcher_and_keeps_curves():
    told = []
    heard = []
    log = Log(lambda done, total: told.append((done, total)), lambda *value: heard.append(value))
    log.progress(1, 3)
    log.anew().progress(2, 3)
    log.anew(silent=True).progress(3, 3)
    log.scalar("loss", 0.5)
    log.scalar("loss", torch.tensor([0.25]))
    log.curve("counts", torch.tensor([1, 2]))
    assert told == [(1, 3), (2, 3)]
    assert log.scalars == {"loss": [0.5, 0.25], "counts": [1.0, 2.0]}
    log.anew().scalar("loss", 0.125)
    log.anew(silent=True).scalar("loss", 0.0)
    assert heard == [("loss", 0, 0.5), ("loss", 1, 0.25), ("loss", 0, 0.125)]
    assert log.anew().scalars == {}
