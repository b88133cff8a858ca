"""CF, RewoD, NegGrad+, BadT and SCRUB on tiny problems, each against a computation of its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

import cutk
from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.learning.network import layers
from cutk_builtin.recipes.sgd import Sgd
from cutk_builtin.unlearners.badt import BadT, Teachers, teach
from cutk_builtin.unlearners.cf import CF
from cutk_builtin.unlearners.neggrad_plus import NegGradPlus
from cutk_builtin.unlearners.relabel import Relabel
from cutk_builtin.unlearners.rewod import RewoD
from cutk_builtin.unlearners.scrub import Scrub, schedule

FORGET = [1, 4]


@pytest.fixture
def linear_task(images_of):
    """Six images of four pixels, a linear classifier without bias, whole-batch steps: all in closed form."""
    images = images_of(count=6, size=2)
    recipe = Sgd(Sgd.Options(steps=3, batch_size=6, lr=0.5, weight_decay=0, crop_padding=0, flip=False)).on("cpu")
    train = ResidentTrainSet(images, cutk.Normalisation((0.0,), (1.0,)))

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))

    torch.manual_seed(5)
    return cutk.Task(build(), train, torch.tensor(FORGET), recipe, build=build, initialisation_seed=1, order_seed=2)


def with_options(task, **options):
    """The same task, its recipe with other options."""
    other = task.private(seed=0)
    other.recipe = Sgd(task.recipe.options.model_copy(update=options)).on("cpu")
    return other


def numbers(task):
    (batch,) = task.train.batches()
    x = batch.x.double().numpy().reshape(6, 4)
    return x, task.train.labels.numpy(), task.original[1].weight.detach().double().numpy().copy()


def descend(weight, gradient_of, steps, lr):
    """SGD with momentum 0.9 at a rate that falls by 1 / (1.25 · steps) of its peak a step; too short for a warm-up."""
    velocity = np.zeros_like(weight)
    for step in range(steps):
        velocity = 0.9 * velocity + gradient_of(step, weight)
        weight = weight - lr * (1 - step / (1.25 * steps)) * velocity
    return weight


def task_gradient(weight, x, y):
    """Gradient of the mean cross-entropy of a linear classifier."""
    error = softmax(x @ weight.T, axis=1) - np.eye(3)[y]
    return error.T @ x / len(x)


def distillation_gradient(weight, x, teacher, temperature):
    """Gradient of T² · KL(softmax(teacher / T) ‖ softmax(x Wᵀ / T)), the mean over samples."""
    error = softmax(x @ weight.T / temperature, axis=1) - softmax(teacher / temperature, axis=1)
    return temperature * error.T @ x / len(x)


def test_cf_is_gradient_descent_on_the_retained_samples(linear_task):
    x, y, weight = numbers(linear_task)
    kept = linear_task.retained.numpy()
    expected = descend(weight, lambda _, w: task_gradient(w, x[kept], y[kept]), steps=4, lr=0.5)
    model = CF(CF.Options(steps=4)).unlearn(linear_task)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_relabel_is_gradient_descent_with_the_best_other_class(linear_task):
    x, y, weight = numbers(linear_task)
    given, wanted = y.copy(), relabelled(x, y, weight)
    expected = descend(weight, lambda _, w: task_gradient(w, x, wanted), steps=4, lr=0.5)
    model = Relabel(Relabel.Options(steps=4)).unlearn(linear_task)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)
    assert linear_task.train.labels.tolist() == given.tolist()


def relabelled(x, y, weight, known=FORGET):
    """Return the labels with those of ``known`` replaced by the best other class."""
    scores = x[known] @ weight.T
    scores[np.arange(len(known)), y[known]] = -np.inf
    wanted = y.copy()
    wanted[known] = scores.argmax(1)
    return wanted


def test_relabel_learns_the_same_labels_where_batches_are_mixed(linear_task):
    x, y, weight = numbers(linear_task)
    wanted = relabelled(x, y, weight)
    # Half of six are more than S_f has, so that a batch is S_f and all others once.
    expected = descend(weight, lambda _, w: task_gradient(w, x, wanted), steps=4, lr=0.5)
    model = Relabel(Relabel.Options(steps=4, share=0.5)).unlearn(linear_task)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_relabel_needs_no_rest(linear_task):
    x, y, weight = numbers(linear_task)
    everything, wanted = linear_task.knowing(torch.arange(6)), relabelled(x, y, weight, range(6))
    expected = descend(weight, lambda _, w: task_gradient(w, x, wanted), steps=2, lr=0.5)
    model = Relabel(Relabel.Options(steps=2, share=0.5)).unlearn(everything)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("floor", [None, 0.0, 0.5])
def test_neggrad_plus_weighs_descent_against_ascent(linear_task, floor):
    x, y, weight = numbers(linear_task)
    kept, beta, climbed = linear_task.retained.numpy(), 0.6, []

    def gradient(_, w):
        right = np.mean((x[FORGET] @ w.T).argmax(1) == y[FORGET])
        climbed.append(floor is None or right > floor)
        ascent = (1 - beta) * task_gradient(w, x[FORGET], y[FORGET]) if climbed[-1] else 0.0
        return beta * task_gradient(w, x[kept], y[kept]) - ascent

    # Of S_f the model predicts one sample as labelled before it has climbed.
    y[FORGET] = linear_task.train.labels[FORGET] = torch.tensor([(x[1] @ weight.T).argmax(), 0])
    y[4] = linear_task.train.labels[4] = (x[4] @ weight.T).argmin()
    expected = descend(weight, gradient, steps=8, lr=0.5)
    assert climbed[0] == (floor != 0.5)
    assert floor is None or not all(climbed)
    options = NegGradPlus.Options(steps=8, retain_weight=beta, forget_accuracy=floor)
    model = NegGradPlus(options).unlearn(linear_task)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "method", [NegGradPlus(NegGradPlus.Options(steps=1)), Relabel(Relabel.Options(share=0.5, steps=1))]
)
def test_s_f_is_half_of_a_batch_and_no_more(linear_task, method):
    seen = []

    class Watching(Sgd):
        def fit(self, model, batches, *args, **kwargs):
            seen.extend([batch.index.tolist() for batch in batches])
            return model

    for size in (2, 4, 6):
        task = with_options(linear_task, batch_size=size)
        task.recipe = Watching(task.recipe.options).on("cpu")
        method.unlearn(task)
    assert [len(set(batch)) for batch in seen] == [2, 4, 6]
    assert [len(set(batch) & set(FORGET)) for batch in seen] == [1, 2, 2]


def test_neggrad_plus_needs_a_rest(linear_task):
    with pytest.raises(cutk.CellError, match="there is no rest"):
        NegGradPlus().unlearn(linear_task.knowing(torch.arange(6)))


def test_badt_descends_the_divergence_from_the_teachers(linear_task):
    x, _, weight = numbers(linear_task)
    method = BadT(BadT.Options(steps=3, temperature=2.0, reduction="batchmean"))
    state = method.prepare(linear_task)
    bad = state.bad._model[1].weight.detach().double().numpy()
    assert not np.allclose(bad, weight)
    assert not torch.equal(state.bad._model[1].weight, linear_task.fresh()[1].weight)
    teacher = x @ weight.T
    teacher[FORGET] = x[FORGET] @ bad.T
    expected = descend(weight, lambda _, w: distillation_gradient(w, x, teacher, 2.0), steps=3, lr=0.5)
    model = method.unlearn(linear_task, state)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("options", "divisor"), [({}, 3), ({"reduction": "mean"}, 3), ({"reduction": "batchmean"}, 1)])
def test_badts_reduction_divides_by_the_classes_unless_told_otherwise(linear_task, options, divisor):
    x, _, weight = numbers(linear_task)
    method = BadT(BadT.Options(steps=1, **options))
    state = method.prepare(linear_task)
    teacher = x @ weight.T
    teacher[FORGET] = x[FORGET] @ state.bad._model[1].weight.detach().double().numpy().T
    expected = weight - 0.5 * distillation_gradient(weight, x, teacher, 1.0) / divisor
    model = method.unlearn(linear_task, state)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_bad_teacher_is_asked_about_identified_samples_alone(linear_task):
    class Teacher:
        def __init__(self, value):
            self.value, self.seen = value, []

        def __call__(self, batch):
            self.seen.append(batch.index.tolist())
            return torch.full((len(batch.x), 3), self.value)

    teachers = Teachers(bad=Teacher(1.0), original=Teacher(2.0))
    batch = next(linear_task.train.batches(None, 6))
    forget = torch.isin(batch.index, linear_task.identified)
    target = teach(batch, forget, teachers, sparing=True)
    assert target[:, 0].tolist() == [2, 1, 2, 2, 1, 2]
    assert teachers.bad.seen == [FORGET]
    teach(batch, torch.zeros(6, dtype=torch.bool), teachers, sparing=True)
    assert teachers.bad.seen == [FORGET]
    assert torch.equal(teach(batch, forget, teachers, sparing=False), target)
    assert teachers.bad.seen[1:] == [list(range(6))]


def preserving(x, y, part, teacher, alpha, temperature):
    """The gradient of CE + α · KL on the samples of ``part``, as a function of the weights."""

    def gradient(weight):
        distillation = distillation_gradient(weight, x[part], teacher[part], temperature)
        return task_gradient(weight, x[part], y[part]) + alpha * distillation

    return gradient


@pytest.mark.parametrize("forget_loss", ["task", "task-and-distillation", "distillation"])
def test_scrub_climbs_on_the_identified_and_descends_on_the_rest(linear_task, forget_loss):
    x, y, weight = numbers(linear_task)
    teacher, alpha, temperature = x @ weight.T, 0.3, 4.0
    keep = preserving(x, y, linear_task.retained.numpy(), teacher, alpha, temperature)
    climb = {
        "task": lambda w: task_gradient(w, x[FORGET], y[FORGET]),
        "task-and-distillation": preserving(x, y, FORGET, teacher, alpha, temperature),
        # Without the weight of the preserve step's distillation.
        "distillation": lambda w: distillation_gradient(w, x[FORGET], teacher[FORGET], temperature),
    }[forget_loss]

    def gradient(step, w):  # forget steps alternate with preserve steps among the first three
        return -climb(w) if step in (0, 2) else keep(w)

    expected = descend(weight, gradient, steps=5, lr=0.2)
    options = {"distillation_weight": alpha, "steps": 5, "forget_steps": 3, "lr": 0.2, "forget_loss": forget_loss}
    method = Scrub(Scrub.Options(alternate="step", **options))
    model = method.unlearn(linear_task, method.prepare(linear_task))
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_scrub_climbs_what_the_published_code_climbs_if_nothing_is_said(linear_task):
    x, y, weight = numbers(linear_task)
    teacher = x @ weight.T
    climb = preserving(x, y, FORGET, teacher, 0.5, 4.0)
    keep = preserving(x, y, linear_task.retained.numpy(), teacher, 0.5, 4.0)
    expected = descend(weight, lambda step, w: -climb(w) if step in (0, 2) else keep(w), steps=4, lr=0.05)
    assert linear_task.recipe.options.lr == 0.5  # ten times as fast, as the paper's training is
    model = Scrub(Scrub.Options(steps=4, forget_steps=3)).unlearn(linear_task)
    np.testing.assert_allclose(model[1].weight.detach(), expected, rtol=1e-5, atol=1e-7)


def test_scrubs_teacher_may_come_along_or_be_made(linear_task):
    method = Scrub(Scrub.Options(steps=4, forget_steps=2))
    own = method.unlearn(linear_task.private(seed=0))
    shared = method.unlearn(linear_task.private(seed=0), method.prepare(linear_task))
    assert torch.equal(own[1].weight, shared[1].weight)


def test_schedule_by_hand():
    def shown(*args, **kwargs):
        return "".join("f" if forget else "p" for forget in schedule(*args, **kwargs))

    assert shown(8, 4) == "fpfppppp"
    assert shown(3, 0) == "ppp"
    assert shown(4, 9) == "fpfp"
    # Whole passes: two batches of S_f, three of the rest; after five steps nothing is forgotten any more.
    assert shown(12, 5, forget_run=2, preserve_run=3) == "ffpppppppppp"
    assert shown(12, 6, forget_run=2, preserve_run=3) == "ffpppffppppp"
    assert shown(4, 2, forget_run=1, preserve_run=0) == "fppp"  # it ends


@pytest.mark.parametrize("alternate", ["pass", "step"])
def test_scrub_needs_a_rest(linear_task, alternate):
    with pytest.raises(cutk.CellError, match="there is no rest"):
        Scrub(Scrub.Options(alternate=alternate)).unlearn(linear_task.knowing(torch.arange(6)))


@pytest.mark.parametrize(
    ("identified", "rest", "expected"),
    # 50,000 images in batches of 512, forget steps within the first 100: whole passes over S_f come at the steps that
    # a round (both passes) begins with, 0 and 98 or 99.
    [
        (50, 49_950, 2 * 1),  # 500 poisoned images, a tenth of them known
        (500, 49_500, 2 * 1),  # all of them known; or of 5,000 confused images a tenth
        (2_500, 47_500, 2 * 5),
        (5_000, 45_000, 2 * 10),
    ],
)
def test_whole_passes_make_the_published_codes_few_forget_steps(identified, rest, expected):
    runs = [-(-count // 512) for count in (identified, rest)]
    assert sum(schedule(1000, 100, *runs)) == expected
    assert sum(schedule(1000, 100)) == 50


@pytest.mark.parametrize(
    ("alternate", "expected"),
    # Batches of one: a pass over S_f has two, one over the rest has four. Forget steps begin before the eighth step.
    [("pass", "ffppppffp"), ("step", "fpfpfpfpp")],
)
def test_scrub_alternates_as_it_is_told(linear_task, alternate, expected):
    small = with_options(linear_task, batch_size=1)
    seen = []
    original_batches = ResidentTrainSet.batches

    class Watched(ResidentTrainSet):
        def batches(self, *args, **kwargs):
            for batch in original_batches(self, *args, **kwargs):
                seen.append(int(batch.index[0]))
                yield batch

    small.train.__class__ = Watched
    teacher = cutk.Teacher(linear_task.original, linear_task.recipe, plain(linear_task.train))
    Scrub(Scrub.Options(steps=9, forget_steps=7, alternate=alternate, lr=1e-3)).unlearn(small, teacher)
    assert "".join("f" if index in FORGET else "p" for index in seen) == expected
    if alternate == "pass":  # each sample once in every pass
        assert sorted(seen[:2]) == sorted(seen[6:8]) == FORGET
        assert sorted(seen[2:6]) == linear_task.retained.tolist()


def test_a_plan_holds_both_alternations(setup_of):
    options = {"scrub": {"distillation_weight": 1.0, "steps": 3}, "scrub:step": {"lr": 0.1}}
    setup = setup_of(unlearners=["scrub", "scrub:step"], options=options)
    points = {chosen.name: chosen.points for chosen in setup.unlearners}
    assert [(p.alternate, p.steps, p.lr) for p in points["scrub"]] == [("pass", 3, None)]
    assert [(p.alternate, p.steps, p.lr) for p in points["scrub:step"]] == [("step", 3, 0.1)]


def plain(train):
    """The same samples, not counted and not watched."""
    return ResidentTrainSet(cutk.Samples(train._x, train.labels, ("a", "b", "c")), cutk.Normalisation((0.0,), (1.0,)))


@pytest.fixture
def deep_task(images_of):
    """Two convolutions with normalisation and a linear layer, augmented."""
    images = images_of(count=24)
    recipe = Sgd(Sgd.Options(steps=6, batch_size=8, lr=0.1)).on("cpu")
    train = ResidentTrainSet(images, cutk.Normalisation((0.5,), (0.25,)), Augmentation(1, True))

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
        )

    torch.manual_seed(3)
    return cutk.Task(build(), train, torch.arange(4), recipe, build=build, initialisation_seed=1, order_seed=2)


def touched(before, after):
    """The layers of which a weight or a buffer differs, counted from the end."""
    pairs = list(zip(layers(before), layers(after), strict=True))[::-1]
    return [
        depth
        for depth, (old, new) in enumerate(pairs, start=1)
        if any(
            not torch.equal(a, b)
            for old_module, new_module in zip(old, new, strict=True)
            for a, b in zip(old_module.state_dict().values(), new_module.state_dict().values(), strict=True)
        )
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("component", [CF, RewoD], ids=lambda component: component.name)
def test_exactly_the_last_layers_are_touched(deep_task, component, count):
    before = copy.deepcopy(deep_task.original)
    model = component(component.Options(last_layers=count)).unlearn(deep_task)
    assert touched(before, model) == list(range(1, count + 1))
    assert not model.training


def test_eu_k_starts_from_the_original_initialisation(deep_task):
    # With a rate of nearly nothing, the last layer is what it once was and the others are the original's.
    slow = with_options(deep_task, lr=1e-12)
    model = RewoD(RewoD.Options(last_layers=1)).unlearn(slow)
    torch.testing.assert_close(model[5].weight, deep_task.fresh()[5].weight)
    assert touched(deep_task.fresh(), model)[:1] == [2]


def test_rewod_is_the_original_training_without_the_identified(deep_task):
    expected = deep_task.recipe.train(
        deep_task.fresh(), deep_task.train, deep_task.retained, generator=torch.Generator().manual_seed(2)
    )
    model = RewoD().unlearn(deep_task)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_more_layers_than_there_are(deep_task):
    for component in (CF, RewoD):
        with pytest.raises(cutk.CellError, match="has 3 layers"):
            component(component.Options(last_layers=4)).unlearn(deep_task)


@pytest.mark.parametrize(
    ("component", "values", "by_hand"),
    [
        (CF, {"steps": 10}, 10 * 8 / 24),
        (RewoD, {}, 6 * 8 / 24),
        (BadT, {"steps": 10}, 10 * 8 / 24),
        (NegGradPlus, {"steps": 10}, 10 * 8 / 24),
        # Of ten steps two are forget steps, on batches of the four samples that there are.
        (Scrub, {"steps": 10, "forget_steps": 4, "alternate": "step"}, (2 * 4 + 8 * 8) / 24),
        # A pass over the rest has three batches, so the second pass over S_f begins with the fifth step.
        (Scrub, {"steps": 10, "forget_steps": 5, "alternate": "pass"}, (2 * 4 + 8 * 8) / 24),
    ],
)
def test_passes_are_what_is_drawn(deep_task, component, values, by_hand):
    method = component(component.Options(**values))
    method.unlearn(deep_task, method.prepare(deep_task))
    assert deep_task.train.drawn / 24 == pytest.approx(by_hand)
