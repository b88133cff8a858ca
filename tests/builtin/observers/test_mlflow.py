"""What MLflow's own client finds."""

from __future__ import annotations

import builtins
import importlib.util
import math
import socket
import uuid

import pytest

from cutk.run.cells import Training, Unlearning
from cutk.run.records import Attempt, Measured
from cutk.testing.observers import run_of

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")
ORIGINAL = Training("badnet", 0, "original")
LOW, HIGH = Unlearning("badnet", 0, "ssd", 0.1), Unlearning("badnet", 0, "ssd", 1.0)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests, since making one takes seconds; each test has an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def experiment():
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def make(registry, uri, experiment):
    component = registry.get("observer", "mlflow").component
    return lambda **options: component(component.Options(**{"uri": uri, "experiment": experiment, **options}))


@pytest.fixture
def observer(make):
    observer = make()
    observer.ready()
    return observer


@pytest.fixture
def runs(uri, experiment):
    """Read all runs of the experiment, by their names; the study's own is named by the time, here by nothing."""

    def read():
        client = mlflow.MlflowClient(tracking_uri=uri)
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        parents = [run.info.run_id for run in found if "mlflow.parentRunId" not in run.data.tags]
        nested = [run for run in found if run.info.run_id not in parents]
        assert {run.data.tags["mlflow.parentRunId"] for run in nested} <= set(parents)
        return {"" if run.info.run_id in parents else run.info.run_name: run for run in found}

    return read


@pytest.fixture
def curve(uri):
    def read(run, name):
        history = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
        return [(each.step, each.value) for each in sorted(history, key=lambda each: each.step)]

    return read


def searched(cell, **over):
    """Return a run of two grid points, of which the second one was chosen."""
    measured = [("id-of-retain", "retain_accuracy"), ("id-of-classes", "retain_class_accuracy")]
    chosen = {
        "options": {"dampening": 10.0, "layers": None},
        "metrics": {"id-of-retain": 0.5, "id-of-classes": {"cat & dog": 0.25}, "of-another-plan": 1.0},
        "scalars": {"loss": [3.0, None, 1.0]},
        **over,
    }
    attempts = [Attempt(options={"dampening": 1.0}, metrics={}, scalars={"loss": [9.0]}), Attempt(**chosen)]
    named = {identity: Measured(name=name) for identity, name in measured}
    return run_of(cell).model_copy(update={"attempts": attempts, "selected": 1, "measured": named})


def test_each_cell_is_a_run_with_what_came_of_it(observer, runs, curve):
    observer.started(2)
    for cell in (ORIGINAL, LOW):
        observer.cell_started(cell)
    for step in range(2):  # two workers, and two points of a grid
        observer.scalar(LOW, "loss", step, 4.0 - step)
        observer.scalar(ORIGINAL, "loss", step, 0.5)
    observer.cell_finished(ORIGINAL, run_of(ORIGINAL), False)
    for step in range(2):
        observer.scalar(LOW, "loss", step, 2.0 - step)
    assert runs()["badnet, seed 0: ssd at α = 0.1"].info.status == "RUNNING"
    observer.cell_finished(LOW, searched(LOW), False)
    observer.finished()
    found = runs()
    assert set(found) == {"", "badnet, seed 0: original", "badnet, seed 0: ssd at α = 0.1"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert curve(found["badnet, seed 0: original"], "live/loss") == [(0, 0.5), (1, 0.5)]
    unlearned = found["badnet, seed 0: ssd at α = 0.1"]
    assert curve(unlearned, "live/loss") == [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert curve(unlearned, "curves/loss") == [(0, 3.0), (2, 1.0)]
    assert unlearned.data.metrics["retain_accuracy"] == 0.5
    assert unlearned.data.metrics["retain_class_accuracy/cat _ dog"] == 0.25
    assert "of-another-plan" not in unlearned.data.metrics
    params = unlearned.data.params
    assert (params["ssd.dampening"], params["ssd.layers"], params["alpha"], params["seed"]) == (
        "10.0",
        "None",
        "0.1",
        "0",
    )
    assert unlearned.data.tags["cutk.key"] == run_of(LOW).key


def test_a_cell_that_was_there_has_the_same_without_having_been_started(observer, runs, curve):
    observer.started(1)
    observer.cell_finished(LOW, searched(LOW), True)
    observer.finished()
    read = runs()["badnet, seed 0: ssd at α = 0.1"]
    assert curve(read, "curves/loss") == [(0, 3.0), (2, 1.0)]
    assert (read.data.metrics["retain_accuracy"], read.info.status) == (0.5, "FINISHED")


def test_a_cell_that_failed_says_why_and_is_marked_as_is_the_study(observer, runs, curve):
    observer.started(2)
    observer.cell_started(HIGH)
    observer.scalar(HIGH, "loss", 0, float("nan"))
    observer.cell_failed(HIGH, "it <broke> \ud800")
    observer.cell_failed(LOW, "there is no original")
    observer.finished()
    found = runs()
    broken = found["badnet, seed 0: ssd at α = 1"]
    assert {run.info.status for run in found.values()} == {"FAILED"}
    assert broken.data.tags["mlflow.note.content"] == "    it <broke> ?\n"
    assert broken.data.params["unlearner"] == "ssd"
    ((step, value),) = curve(broken, "live/loss")
    assert step == 0
    assert math.isnan(value)


def test_a_study_that_was_given_up_leaves_no_run_open(observer, runs, curve):
    observer.started(2)
    observer.cell_started(HIGH)
    observer.scalar(HIGH, "loss", 0, 1.0)
    observer.finished()
    found = runs()
    assert {run.info.status for run in found.values()} == {"KILLED"}
    assert curve(found["badnet, seed 0: ssd at α = 1"], "live/loss") == [(0, 1.0)]


def test_a_study_that_was_interrupted_between_two_cells_is_not_finished(observer, runs):
    observer.started(2)
    observer.cell_finished(LOW, searched(LOW), True)
    observer.finished()
    assert {name: run.info.status for name, run in runs().items()} == {
        "": "KILLED",
        "badnet, seed 0: ssd at α = 0.1": "FINISHED",
    }


def test_warnings_are_the_studys_description_whenever_they_come(observer, runs):
    observer.warning("before")
    observer.started(0)
    observer.warning("meanwhile")
    observer.finished()
    observer.warning("of the results")
    assert runs()[""].data.tags["mlflow.note.content"] == "    before\n    meanwhile\n    of the results\n"


def test_long_curves_and_long_values_are_taken(observer, runs, curve):
    observer.started(1)
    options = {f"option{i}": "x" * 7000 for i in range(120)}
    observer.cell_started(LOW)
    for step in range(1100):
        observer.scalar(LOW, "../a//b?" + "c" * 300, step, step)
    long = {"loss": [float(i) for i in range(1100)]}
    observer.cell_finished(LOW, searched(LOW, options=options, scalars=long), False)
    observer.finished()
    run = runs()["badnet, seed 0: ssd at α = 0.1"]
    assert len(curve(run, "curves/loss")) == 1100
    (live,) = (name for name in run.data.metrics if name.startswith("live"))
    assert live.startswith("live/a/b_ccc")
    assert len(curve(run, live)) == 1100
    assert len([name for name in run.data.params if name.startswith("ssd.option")]) == 120


def test_values_are_sent_while_a_cell_is_computed_and_not_one_by_one(observer, runs, monkeypatch):
    from cutk_builtin.observers import mlflow as ours

    observer.started(1)
    observer.cell_started(LOW)
    name = "badnet, seed 0: ssd at α = 0.1"
    monkeypatch.setattr(ours, "LONG", math.inf)
    observer.scalar(LOW, "loss", 0, 1.0)
    assert runs()[name].data.metrics == {}
    monkeypatch.setattr(ours, "LONG", -1.0)
    observer.scalar(LOW, "loss", 1, 2.0)
    assert runs()[name].data.metrics == {"live/loss": 2.0}


def test_nothing_is_written_before_a_study_begins(make, tmp_path):
    observer = make(uri=f"sqlite:///{tmp_path}/new.db")
    observer.ready()
    observer.warning("a dry run")
    assert list(tmp_path.iterdir()) == []


def test_the_database_stays_where_it_is_when_the_working_folder_changes(make, uri, monkeypatch, tmp_path):
    monkeypatch.chdir(uri.removeprefix("sqlite:///").removesuffix("mlflow.db"))
    assert make(uri="sqlite:///mlflow.db")._uri() == uri


LEAST = ("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "1", "--recipe", "steps=3")


def test_the_command_writes_every_cell_with_its_real_metrics(run, uri, experiment, runs):
    told = ("--observer", "mlflow", "-o", f"mlflow.uri={uri}", "-o", f"mlflow.experiment={experiment}")
    ran = run(*LEAST, *told, "--json")
    assert ran.code == 0, ran.err
    assert "Warning" not in ran.err
    (record,) = (record for record in ran.json["records"] if record["role"] == "unlearned")
    found = runs()
    read = found["badnet, seed 0: none at α = 1"]
    assert record["metrics"]
    assert record["metrics"].items() <= read.data.metrics.items()
    assert read.data.params["sgd.steps"] == "3"
    assert len(found) == 4


@pytest.fixture
def refused(run, tmp_path):
    """Return what the command says of a place where nothing can be kept; nothing is written."""

    def go(*options):
        ran = run(*LEAST, "--observer", "mlflow", *options)
        assert (ran.code, ran.out) == (2, "")
        assert list(tmp_path.iterdir()) == []
        (line,) = ran.err.splitlines()
        return line

    return go


MISSING = "Error: The observer 'mlflow' needs MLflow. Install it: pip install 'cutk[mlflow]'"


def test_without_the_library_nothing_begins(refused, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "mlflow":
            raise ModuleNotFoundError("No module named 'mlflow'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    assert refused() == MISSING


def test_without_what_a_database_needs_nothing_begins(refused, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "alembic" else real(name, *more)
    )
    assert refused("-o", "mlflow.uri=sqlite:///new.db") == MISSING


def test_a_server_that_does_not_answer_is_said_at_once(refused):
    with socket.socket() as taken:  # bound and not listening: nobody else answers there
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        line = refused("-o", f"mlflow.uri={address}")
    assert line.startswith(f"Error: MLflow's server '{address}' doesn't answer (ConnectionError).")
    assert "-o mlflow.uri=URI" in line


def test_a_place_that_mlflow_does_not_know_is_said_at_once(refused):
    assert refused("-o", "mlflow.uri=gopher://x").startswith("Error: MLflow can't keep runs in 'gopher://x': ")
