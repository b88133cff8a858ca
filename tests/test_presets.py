"""Every preset: that it is a plan, what it says of the paper, and that it runs."""

from __future__ import annotations

import pytest

import cutk
from cutk.plugins.registry import load_registry
from cutk.report.estimate import cell_costs
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk.run.study import Study
from cutk_builtin.unlearners.scrub import SLOWER

REGISTRY = load_registry({"CUTK_PLUGINS": ""})
PRESETS = sorted(set(REGISTRY.presets) - {"default", "unlearn"})
CLASSES = {"cifar10": 10, "cifar100": 100, "pcam": 2}
# Five methods, one of them with both ways in which its two kinds of steps may alternate.
METHODS = ["rewod", "cf", "ssd", "badt", "scrub", "scrub:step"]


def content_of(name):
    return layer(read_preset("default", REGISTRY), read_preset(name, REGISTRY))


def on_fake_data(name, samples, *, few=False):
    """The preset's plan on noise of the shape of its data, with a network as deep as is bearable."""
    content = content_of(name)
    classes = CLASSES.get(content["dataset"], 10)
    fake = {"samples": samples, "test_samples": max(100, classes), "classes": classes, "channels": 3, "size": 32}
    # The data's own suggestions would go with them.
    given = content.get("options", {})
    options = {method: {**given.get(method, {}), "steps": 2} for method in ("cf", "badt", "scrub")}
    options["fake"] = fake
    if "interclass-confusion" in content["manipulations"]:
        options["interclass-confusion"] = {"classes": ["0", "1"], "count": 4 if few else 10}
    if few and "badnet" in content["manipulations"]:
        options["badnet"] = {"count": 20}
    if content.get("model") == "wide-resnet":
        options["wide-resnet"] = {"depth": 10, "width": 1}
    elif content.get("model") == "resnet9":
        options["resnet9"] = {"width": 0.1}
    elif few:
        options["convnet-small"] = {"width": 4}
    return layer(content, {"dataset": "fake", "options": options})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_resolves_for_its_own_data(name):
    setup = resolve(Plan.parse(content_of(name)), REGISTRY)
    assert 10 < len(setup.plan.summary) < 120
    assert [chosen.name for chosen in setup.unlearners] == METHODS
    assert len(setup.unlearners[2].points) == 50


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", [*METHODS, "seal:retrain", "scrub:step+seeded-probe"])
def test_any_method_can_be_asked_for_alone(name, method):
    (chosen,) = resolve(Plan.parse(layer(content_of(name), {"unlearners": [method]})), REGISTRY).unlearners
    assert chosen.name == method


@pytest.mark.parametrize("name", PRESETS)
def test_later_methods_get_as_many_steps_as_the_papers(name):
    asked = ["cf", "neggrad-plus", "relabel"]
    chosen = resolve(Plan.parse(layer(content_of(name), {"unlearners": asked})), REGISTRY).unlearners
    assert [each.name for each in chosen] == asked
    assert len({each.points[0].steps for each in chosen}) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_dry_run(name, tmp_path):
    # As many images as it takes for a tenth of the smallest manipulation to be one.
    plan = Plan.parse(layer(on_fake_data(name, samples=8000), {"seeds": 1}))
    costs = cell_costs(Study(resolve(plan, REGISTRY), Store(tmp_path / "runs")))
    assert len(costs) == len(plan.manipulations) * len(plan.seed_list) * (2 + len(METHODS) * len(plan.alphas))
    assert all(cost.work is not None and cost.evaluation > 0 for cost in costs)
    assert not (tmp_path / "runs").exists()


# The other sizes of an experiment differ from it in one count, which is checked below; each is dry-run above.
SIZES = ("-smallest", "-smaller", "-medium", "-bigger")
EXPERIMENTS = [name for name in PRESETS if name.startswith(("paper/", "authors-code/")) and not name.endswith(SIZES)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_of_the_paper_runs_two_steps(name, tmp_path):
    quick = {"alphas": [1.0], "seeds": 1, "search": "default", "recipe": {"steps": 2, "batch_size": 16}}
    results = Study(
        resolve(Plan.parse(layer(on_fake_data(name, 300, few=True), quick)), REGISTRY), Store(tmp_path)
    ).run()
    assert results.failures == []
    assert [r.unlearner or r.role for r in results.records] == ["original", "gold", *METHODS]


def setup_of(name):
    return resolve(Plan.parse(content_of(name)), REGISTRY)


def manipulation_of(setup):
    return setup.manipulations[0].parts[0].points[0]


@pytest.mark.parametrize(
    ("name", "steps", "count"),
    [
        ("paper/cifar10-poisoning", 4000, 500),
        ("paper/cifar10-poisoning-smaller", 4000, 100),
        ("paper/cifar10-poisoning-bigger", 4000, 1000),
        ("paper/cifar100-poisoning", 6000, 500),
        ("paper/cifar100-poisoning-smaller", 6000, 100),
        ("paper/cifar100-poisoning-bigger", 6000, 1000),
    ],
)
def test_the_papers_poisonings_are_what_appendix_a_and_table_2_say(name, steps, count):
    setup = setup_of(name)
    assert setup.recipe.name == "sgd"
    recipe = setup.recipe.points[0]
    assert (recipe.steps, recipe.batch_size, recipe.lr) == (steps, 512, 0.025)
    assert (recipe.momentum, recipe.weight_decay, recipe.t_mult) == (0.9, 5e-4, 1.25)
    assert (recipe.warmup, recipe.crop_padding, recipe.flip) == (0.01, 4, True)
    badnet = manipulation_of(setup)
    assert (badnet.count, badnet.size, badnet.target, badnet.trigger_value) == (count, 3, 0, "white")
    assert setup.plan.alphas == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert setup.plan.seeds == 3
    points = {chosen.name: chosen.points for chosen in setup.unlearners}
    assert (points["cf"][0].steps, points["badt"][0].steps) == (1000, 1000)
    for scrub in (points["scrub"], points["scrub:step"]):
        assert [p.distillation_weight for p in scrub] == [0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
        assert {(p.steps, p.forget_steps, p.lr, p.temperature) for p in scrub} == {(1000, 200, None, 4.0)}
        assert recipe.lr / SLOWER == 0.0025


@pytest.mark.parametrize("name", PRESETS)
def test_where_the_papers_text_is_silent_its_published_code_speaks(name):
    setup = setup_of(name)
    points = {chosen.name: chosen.points for chosen in setup.unlearners}
    assert {(p.alternate, p.forget_loss) for p in points["scrub"]} == {("pass", "task-and-distillation")}
    assert {(p.alternate, p.forget_loss) for p in points["scrub:step"]} == {("step", "task-and-distillation")}
    assert points["badt"][0].reduction == "mean"
    assert {(p.fisher, p.reference_set, p.batch_size) for p in points["ssd"]} == {("batch", "retained", 512)}
    # All fine-tune for as long, and both kinds of SCRUB forget in the same part of it.
    assert len({point.steps for method in ("cf", "badt", "scrub", "scrub:step") for point in points[method]}) == 1
    assert len({point.forget_steps for method in ("scrub", "scrub:step") for point in points[method]}) == 1
    wide = setup.model.points[0]
    assert setup.model.name != "wide-resnet" or (wide.depth, wide.width, wide.variant) == (28, 10, "authors")


@pytest.mark.parametrize(
    ("name", "steps", "unlearning_steps", "classes"),
    [
        ("authors-code/cifar10-ic", 4000, 1000, ("cat", "dog")),
        ("authors-code/cifar10-poisoning", 4000, 1000, None),
        ("authors-code/cifar100-ic", 6000, 1500, ("47", "53")),
        ("authors-code/cifar100-poisoning", 6000, 1500, None),
    ],
)
def test_the_authors_code_is_what_its_scripts_say(name, steps, unlearning_steps, classes):
    setup = setup_of(name)
    assert (setup.plan.seeds, setup.plan.validation_fraction, setup.plan.search) == (1, 0, "grid")
    recipe = setup.recipe.points[0]
    assert (recipe.steps, recipe.batch_size, recipe.lr) == (steps, 512, 0.025)
    points = {chosen.name: chosen.points for chosen in setup.unlearners}
    assert {p.steps for method in ("cf", "badt", "scrub") for p in points[method]} == {unlearning_steps}
    assert {(p.forget_steps, p.alternate, p.forget_loss) for p in points["scrub"]} == {
        (100, "pass", "task-and-distillation")
    }
    manipulation = manipulation_of(setup)
    if classes is None:
        assert (manipulation.count, manipulation.trigger_value) == (500, "brightest")
    else:
        assert (manipulation.classes, manipulation.selection) == (classes, "first")


@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [
        ("paper/cifar10-ic", 5000, ("cat", "dog")),
        ("paper/cifar10-ic-medium", 2500, ("cat", "dog")),
        ("paper/cifar10-ic-smallest", 500, ("cat", "dog")),
        ("paper/cifar100-ic", 500, ("maple_tree", "oak_tree")),
        ("paper/cifar100-ic-medium", 250, ("maple_tree", "oak_tree")),
        ("paper/cifar100-ic-smallest", 100, ("maple_tree", "oak_tree")),
    ],
)
def test_the_papers_confusions_are_what_table_2_says(name, count, classes):
    confusion = manipulation_of(setup_of(name))
    assert (confusion.count, confusion.classes, confusion.selection) == (count, classes, "random")


def test_cutk_has_no_preset_for_components_that_it_lacks():
    with pytest.raises(cutk.UsageError, match="Unknown preset 'nothing'"):
        read_preset("nothing", REGISTRY)
