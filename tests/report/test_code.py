from __future__ import annotations

import pytest

from cutk.errors import UsageError
from cutk.report.code import of_any_code, several
from cutk.report.experiments import experiments_of
from cutk.report.origins import facts_of


def of_code(run, source):
    """Return a run whose unlearner has other code, and so another key."""
    how = run.decided_by
    unlearner = how.unlearner.model_copy(update={"source": source})
    return run.model_copy(update={"decided_by": how.model_copy(update={"unlearner": unlearner}), "key": source * 64})


def changed(made):
    """Two seeds of two methods, of which ``cf`` was computed with other code at the larger α."""
    return [
        of_code(run, "t") if (run.labels.unlearner, run.labels.alpha) == ("cf", 1.0) else run
        for run in made.everything()
    ]


def test_methods_of_several_versions_are_told_apart_if_nothing_is_said(made):
    (experiment,) = experiments_of(changed(made))
    assert experiment.methods == ["cf [source=ssssss]", "cf [source=t]", "ssd"]
    assert several(experiment.runs) == {}


def test_methods_of_several_versions_are_one_of_any_code(made):
    (experiment,) = experiments_of(changed(made), any_code=True)
    (plain,) = experiments_of(made.everything())
    assert experiment.methods == ["cf", "ssd"]
    ((setting,), (expected,)) = (experiment.settings, plain.settings)
    for method, alpha in setting.models:
        ours, theirs = (each.measured("retain_accuracy", method, alpha) for each in (setting, expected))
        assert ours == theirs
    assert several(experiment.runs) == {"cf": ["s" * 64, "t"]}
    assert facts_of(experiment)[-1] == ("Code of several versions", [f"cf: {'s' * 64}, t"])
    assert {run.key for run in experiment.runs} == {run.key for run in changed(made)}  # each keeps its own


def test_versions_are_told_where_they_are_and_of_another_release_as_well(made):
    """Of two experiments the one that was computed by a single version says nothing."""

    def by(run, provider):
        unlearner = run.decided_by.unlearner.model_copy(update={"provider": provider, "source": ""})
        return run.model_copy(update={"decided_by": run.decided_by.model_copy(update={"unlearner": unlearner})})

    released = [
        by(run, "cutk==0.3.0") if run.labels.unlearner == "cf" and run.labels.seed else run for run in made.everything()
    ]
    runs = [*released, *made.everything(precision="bf16")]
    found = {e.training.precision: several(e.runs) for e in experiments_of(runs, any_code=True)}
    assert found == {"fp32": {"cf": ["s" * 64, "unknown"]}, "bf16": {}}
    (experiment,) = experiments_of(released, any_code=True)
    assert experiment.methods == ["cf", "ssd"]


def test_options_still_tell_methods_apart(made):
    other = made.run("cf", 0.5, 0, [made.attempt(0.1, 0.1, options={"steps": 3})])
    (experiment,) = experiments_of([*changed(made), other], any_code=True)
    assert len(experiment.methods) == 3


def test_trainings_of_several_versions_are_one_experiment(made):
    def retrained(run):
        recipe = run.trained.recipe.model_copy(update={"source": "t"})
        trained = run.trained.model_copy(update={"recipe": recipe})
        how = trained if run.unlearner is None else run.decided_by.model_copy(update={"original": trained})
        return run.model_copy(update={"decided_by": how})

    runs = [retrained(run) if run.labels.seed else run for run in made.everything()]
    assert len(experiments_of(runs)) == 2
    (experiment,) = experiments_of(runs, any_code=True)
    assert experiment.settings[0].seeds == [0, 1]


def test_one_cell_by_two_versions_is_refused_since_one_would_count_as_a_seed(made):
    runs = made.everything()
    again = of_code(runs[-1], "t")
    with pytest.raises(
        UsageError, match=r"computed one cell: toy, tiny, badnet, cf, α = 1, seed 1 \(runs .*\)\. Expected one"
    ):
        of_any_code([*runs, again])
    # Of what isn't shown it is no matter.
    (experiment,) = experiments_of([*runs, again], unlearners=["ssd"], any_code=True)
    assert experiment.methods == ["ssd"]
