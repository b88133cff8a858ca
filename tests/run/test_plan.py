from __future__ import annotations

from importlib.metadata import version

import pytest

import cutk
from cutk.plugins.registry import load_registry
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve

INLINE = """
import cutk


class NAME(cutk.Unlearner):
    name = "NAME"
    libraries = {"numpy": "numpy"}

    def unlearn(self, task, state=None):
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [NAME]
"""


def test_options_of_what_the_plan_drops_go_with_it():
    base = {"model": "a", "options": {"a": {"x": 1}, "b": {"y": 1}}, "recipe": {"steps": 1, "lr": 2}}
    over = {"model": "b", "options": {"b": {"z": 2}}, "recipe": {"steps": 3}}
    assert layer(base, over) == {
        "model": "b",
        "options": {"b": {"y": 1, "z": 2}},
        "recipe": {"steps": 3, "lr": 2},
    }


def test_a_dataset_suggests_and_the_plan_decides(registry, setup_of):
    plan = setup_of(dataset="digits", options={"badnet": {"size": 1}}, recipe={"steps": 7}).plan
    setup = resolve(Plan.parse(plan.model_dump()), registry)
    badnet, digits = setup.manipulations[0].parts[0].points[0], registry.get("dataset", "digits").component
    assert badnet.size == 1
    assert badnet.fraction == digits.suggests["badnet"]["fraction"]
    assert (setup.recipe.points[0].steps, setup.recipe.points[0].flip) == (7, False)


def test_a_plan_suggests_and_its_options_decide(registry, setup_of):
    steps = {"relabel": {"steps": 30}, "neggrad-plus": {"steps": 40}, "cf": {"steps": 50}}
    asked = {"unlearners": ["relabel", "cf", "badt+seeded-knn"]}
    plan = layer(setup_of(dataset="digits").plan.model_dump(), asked)
    content = layer(layer(plan, {"suggests": steps}), {"suggests": {"cf": {"lr": 0.5}, "seeded-knn": {"k": 2}}})
    content = layer(content, {"options": {"cf": {"steps": 60}}})
    relabel, cf, badt = (chosen.points[0] for chosen in resolve(Plan.parse(content), registry).unlearners)
    # Over the dataset's, under the plan's own, and no matter where it isn't used.
    assert (relabel.steps, cf.steps, cf.lr, badt.steps, badt.detector_k) == (30, 60, 0.5, 75, 2)


def test_what_a_plan_suggests_for_nobody_is_refused(registry, setup_of):
    plan = {**setup_of().plan.model_dump(), "suggests": {"relable": {"steps": 30}}}
    with pytest.raises(cutk.UsageError, match=r"relable.*Did you mean 'relabel'"):
        resolve(Plan.parse(plan), registry)


def test_another_recipe_keeps_what_suits_any():
    base = {"recipe": {"name": "a", "steps": 5, "lr": 0.1, "momentum": 0.9}}
    assert layer(base, {"recipe": {"name": "b"}})["recipe"] == {"name": "b", "steps": 5}
    assert layer(base, {"recipe": {"lr": 1}})["recipe"] == {"name": "a", "steps": 5, "lr": 1, "momentum": 0.9}


def test_options_of_a_composed_part_belong_to_the_plan():
    base = {"manipulations": ["a+b"], "options": {"a": {"x": 1}, "b": {"y": 1}}}
    assert layer(base, {"manipulations": ["b"]})["options"] == {"b": {"y": 1}}


@pytest.mark.parametrize(
    "content", ["a = " + "[" * 3000, "seeds = " + "9" * 5000, "summary = '\\ud800'", "seeds = [[1]]"]
)
def test_a_plan_that_is_none_is_refused_in_one_line(tmp_path, registry, content):
    (tmp_path / "plan.toml").write_text(content)
    with pytest.raises(cutk.UsageError) as error:
        Plan.parse(layer(read_preset("default", registry), read_preset(str(tmp_path / "plan.toml"), registry)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"seeds": 0}, "seeds"),
        ({"seeds": 10**9}, "seeds"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [-1]}, "seeds"),
        ({"alphas": [0.0]}, "Alpha"),
        ({"alphas": [float("nan")]}, "Alpha"),
        ({"recipe": {"name": 3}}, "Recipe"),
        ({"recipe": {"name": "no-such"}}, "no-such"),
        ({"select": "no-such"}, "no-such"),
        ({"identification": "no-such"}, "no-such"),
        ({"manipulations": ["badnet+badnet"]}, "each part once"),
        ({"manipulations": ["badnet+"]}, "Manipulation: a name is missing"),
        ({"options": {"label-swap": {"count": 2}}}, "does not use it"),
    ],
)
def test_what_cannot_be_so_is_said(setup_of, over, told):
    with pytest.raises(cutk.UsageError, match=told):
        setup_of(**over)


def test_a_summary_may_be_asked_for_as_a_metric(setup_of):
    setup = setup_of(metrics=["corrected_accuracy", "alpha_star"], summaries=[])
    assert [metric.name for metric in setup.metrics] == ["corrected_accuracy"]
    assert [summary.name for summary in setup.summaries] == ["alpha_star"]


def test_what_a_dataset_suggests_goes_to_the_recipe_that_has_it(setup_of):
    options = setup_of(dataset="digits", recipe={"name": "adamw"}).recipe.points[0]
    assert (options.batch_size, options.flip) == (32, False)
    assert options.lr == type(options)().lr


def test_two_spellings_of_a_manipulation_are_one(setup_of):
    composed = setup_of(
        manipulations=["badnet", "cutk:badnet", "badnet+label-swap", "cutk:badnet+label-swap"]
    ).manipulations
    assert [each.name for each in composed] == ["badnet", "badnet+label-swap"]


def test_who_takes_part_is_told_with_all_files_and_libraries(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(INLINE.replace("NAME", name))
    found = load_registry(inline=[tmp_path / "a.py", tmp_path / "b.py"])
    plan = {"dataset": "fake", "unlearners": ["a", "b"]}
    setup = resolve(Plan.parse(layer(read_preset("default", found), plan)), found)
    versions = sorted(each.entry.provider.version for each in setup.unlearners)
    assert versions[0] != versions[1]
    assert setup.providers() == {"cutk": version("cutk"), "inline": "+".join(versions), "numpy": version("numpy")}


def test_options_of_a_family_stay_with_its_variants():
    base = {"unlearners": ["scrub", "scrub:step"], "options": {"scrub": {"steps": 3}}}
    assert layer(base, {"unlearners": ["scrub:step"]})["options"] == {"scrub": {"steps": 3}}
    base = {"unlearners": ["scrub:step"], "options": {"scrub": {"steps": 3}}}
    assert layer(base, {"unlearners": ["cf"]})["options"] == {}


def test_a_plan_as_it_was_carried_out_can_be_carried_out_again():
    registry = load_registry({"CUTK_PLUGINS": ""})
    asked = {"dataset": "digits", "manipulations": ["badnet"], "unlearners": ["seal:tune", "none"]}
    setup = resolve(Plan.parse(layer(read_preset("default", registry), {**asked, "executor": "processes:2"})), registry)
    again = resolve(Plan.parse(setup.as_run()), registry)
    assert again.as_run() == setup.as_run()
    other = setup.as_run()
    other["options"]["seal:tune"]["final"] = "retrain"
    with pytest.raises(cutk.UsageError, match=r"Option 'seal:tune.final': 'seal:tune' says it already"):
        resolve(Plan.parse(other), registry)
