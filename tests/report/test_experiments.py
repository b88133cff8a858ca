from __future__ import annotations

import json

import pytest

from cutk.errors import UsageError
from cutk.report.experiments import experiments_of
from cutk.run.records import Attempts


def methods(experiments):
    return {method for experiment in experiments for method in experiment.methods}


def test_one_method_with_two_grids_is_named_apart(made):
    more = made.run("ssd", 0.5, 0, [made.attempt(0.1, 0.1, options={"weight": 100.0, "batch": 8})])
    (experiment,) = experiments_of([*made.everything(), more])
    assert experiment.methods == ["cf", "ssd [weight=1|10]", "ssd [weight=100]"]


@pytest.mark.parametrize(("what", "shown"), [("identification", "identification"), ("selector", "select")])
def test_one_method_told_or_chosen_otherwise_is_named_apart(made, what, shown):
    more = made.run("cf", 0.5, 0, [made.attempt(0.1, 0.1)], how={what: "other"})
    usual = {"identification": "uniform", "selector": "paper"}[what]
    assert methods(experiments_of([*made.everything(), more])) == {
        "ssd",
        f"cf [{shown}={usual}]",
        f"cf [{shown}=other]",
    }


def test_sizes_are_settings_of_one_experiment(made):
    (experiment,) = experiments_of([*made.everything(), made.original(0, 0.1, 0.9, manipulated=20, mangling={"n": 20})])
    assert [(setting.name, setting.size) for setting in experiment.settings] == [("badnet", "10"), ("badnet", "20")]


def test_settings_of_one_size_are_named_apart_by_their_options(made):
    (experiment,) = experiments_of([*made.everything(), made.original(0, 0.1, 0.9, mangling={"size": 3})])
    assert [setting.name for setting in experiment.settings] == ["badnet [size=2]", "badnet [size=3]"]


def test_composed_manipulations_are_one_setting(made):
    runs = [
        made.original(seed, 0.1, 0.9, manipulation="badnet+swap", mangling={"n": n}) for seed, n in ((0, 1), (1, 2))
    ]
    (experiment,) = experiments_of(runs)
    assert [setting.name for setting in experiment.settings] == [
        "badnet+swap [badnet.n=1, swap.n=1]",
        "badnet+swap [badnet.n=2, swap.n=2]",
    ]
    assert experiment.settings[0].options == {"badnet.n": 1, "swap.n": 1}


@pytest.mark.parametrize(
    ("over", "difference"),
    [
        ({"precision": "bf16"}, "precision=bf16"),
        ({"threads": 2}, "threads=2"),
        ({"recipe": {"name": "sgd", "provider": "cutk==0.2.0", "options": [{"steps": 30, "lr": 0.1}]}}, "steps=30"),
        (
            {"recipe": {"name": "adamw", "provider": "cutk==0.2.0", "options": [{"steps": 20, "lr": 0.1}]}},
            "recipe=adamw",
        ),
    ],
)
def test_other_trainings_are_other_experiments(made, over, difference):
    names = [experiment.name for experiment in experiments_of([*made.everything(), made.original(0, 0.1, 0.9, **over)])]
    assert len(names) == 2
    assert f"toy, tiny [{difference}]" in names


def test_an_unlearner_called_as_a_reference_is_none(made):
    (experiment,) = experiments_of([*made.everything(), made.run("original", 0.5, 0, [made.attempt(0.9, 0.9)])])
    (setting,) = experiment.settings
    assert "original" in experiment.methods
    assert setting.measured("corrected_accuracy", "original").mean == pytest.approx(0.3)
    assert setting.measured("corrected_accuracy", "original", 0.5).mean == pytest.approx(0.9)


def test_a_metric_of_two_versions_is_named_apart(made):
    runs = made.everything()
    changed = runs[-1].model_dump(by_alias=True)
    changed["measured"]["u2"] = changed["measured"].pop("u")
    changed["attempts"][0]["metrics"]["u2"] = changed["attempts"][0]["metrics"].pop("u")
    (experiment,) = experiments_of([*runs[:-1], type(runs[-1]).model_validate(changed)])
    assert {"corrected_accuracy [identity=u]", "corrected_accuracy [identity=u2]"} <= set(experiment.metrics)


def test_what_is_several_numbers_stands_apart(made):
    (experiment,) = experiments_of(made.everything())
    assert list(experiment.metrics) == ["corrected_accuracy", "retain_accuracy", "unlearn_seconds"]
    assert list(experiment.breakdowns) == ["class_accuracy", "ratio"]
    (setting,) = experiment.settings
    assert setting.broken_down("class_accuracy", "cf", 0.5)["cat"].mean == pytest.approx(0.3)


def test_records_carry_roles_and_no_names_of_references(made):
    (experiment,) = experiments_of([*made.everything(), made.run("none", 0.5, 0, [made.attempt(0.2, 0.9)])])
    records = experiment.records()
    assert {(record.role, record.unlearner) for record in records} == {
        *(("original", None), ("gold", None)),
        *(("unlearned", name) for name in ("cf", "none", "ssd")),
    }


def test_the_oracle_is_the_best_on_the_test_set(made):
    runs = [*made.everything(), made.run("ssd", 0.1, 0, made.grid((0.1, 0.9), (0.8, 0.9)))]
    (experiment,) = experiments_of(runs, oracle=True)
    best = {(p.alpha, p.seed): p.position for p in experiment.settings[0].points if p.oracle}
    assert best[0.1, 0] == 1
    assert best[1.0, 0] == 0
    assert not any(p.oracle for p in experiments_of(runs)[0].settings[0].points)


def test_tables_parse_the_selected_points_alone(made):
    run = made.run("ssd", 0.5, 0, made.grid((0.5, 0.9), (0.8, 0.9)))
    read = Attempts(json.dumps(attempt.model_dump()).encode() for attempt in run.attempts)  # as a folder gives them
    run = run.model_copy(update={"attempts": read})
    (experiment,) = experiments_of([*(one for one in made.everything() if one.unlearner is None), run])
    assert experiment.records()
    assert [isinstance(one, bytes) for one in read._items] == [False, True]
    assert [p.position for p in experiment.settings[0].points if p.run is run] == [0, 1]


def test_filters(made):
    runs = [*made.everything(), *made.everything(manipulation="label-swap")]
    (experiment,) = experiments_of(runs, manipulations=["label-swap"])
    assert [setting.name for setting in experiment.settings] == ["label-swap"]
    assert len(experiments_of(runs, datasets=["toy"])[0].settings) == 2
    with pytest.raises(UsageError, match=r"No run is of the dataset 'toys'. Did you mean 'toy'\? The runs are of: toy"):
        experiments_of(runs, datasets=["toys"])


def test_the_order_of_runs_changes_nothing(made):
    runs = [*made.everything(), *made.everything(manipulation="a"), *made.everything(precision="bf16")]

    def shape(experiments):
        return [(e.name, [(s.name, [p.anchor for p in s.points]) for s in e.settings]) for e in experiments]

    assert shape(experiments_of(runs)) == shape(experiments_of(runs[::-1]))
