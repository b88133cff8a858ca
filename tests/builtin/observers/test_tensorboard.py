"""What TensorBoard's own reader finds."""

from __future__ import annotations

import builtins
import sys
import threading
from pathlib import Path

import pytest

from cutk.run.cells import Training, Unlearning
from cutk.run.records import Attempt, Measured
from cutk.testing.observers import run_of

pytest.importorskip("tensorboard")
ORIGINAL = Training("badnet", 0, "original")
LOW, HIGH = Unlearning("badnet", 0, "ssd", 0.1), Unlearning("badnet", 0, "ssd", 1.0)


def tensorboard_of(registry, folder):
    component = registry.get("observer", "tensorboard").component
    return component(component.Options(folder=str(folder)))


@pytest.fixture
def observer(registry, tmp_path):
    observer = tensorboard_of(registry, tmp_path / "logs")
    observer.ready()
    return observer


class Read:
    """A run, as TensorBoard reads it."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import metadata

        self._events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        self._events.Reload()
        self._metadata = metadata

    @property
    def scalars(self):
        tags = self._events.Tags()["scalars"]
        return {tag: [(each.step, each.value) for each in self._events.Scalars(tag)] for tag in tags}

    def texts(self, name):
        texts = sorted(self._events.Tensors(f"{name}/text_summary"), key=lambda each: each.step)
        return [each.tensor_proto.string_val[0].decode() for each in texts]

    def _hparams(self, tag):
        return self._events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content

    @property
    def hparams(self):
        found = self._metadata.parse_session_start_info_plugin_data(self._hparams("session_start_info")).hparams
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}

    @property
    def status(self):
        from tensorboard.plugins.hparams import api_pb2

        end = self._metadata.parse_session_end_info_plugin_data(self._hparams("session_end_info"))
        return api_pb2.Status.Name(end.status)


@pytest.fixture
def runs(tmp_path):
    """Read all runs of the only study, by their names."""

    def read():
        (study,) = (tmp_path / "logs").iterdir()
        return {"": Read(study)} | {folder.name: Read(folder) for folder in study.iterdir() if folder.is_dir()}

    return read


def searched(cell):
    """Return a run of two grid points, of which the second one was chosen."""
    measured = [("id-of-retain", "retain_accuracy"), ("id-of-classes", "retain_class_accuracy")]
    attempts = [
        Attempt(options={"dampening": 1.0, "layers": None}, metrics={}, scalars={"loss": [9.0]}),
        Attempt(
            options={"dampening": 10.0, "layers": None},
            metrics={"id-of-retain": 0.5, "id-of-classes": {"cat": 0.25, "dog": 1.0}, "of-another-plan": 1.0},
            scalars={"loss": [3.0, None, 1.0], "x_edges": [0.0, 1.0], "x_counts": [4.0]},
            state="s",
        ),
    ]
    prepared = {"s": {"importance": [7.0]}, "t": {"importance": [8.0]}}
    named = {identity: Measured(name=name) for identity, name in measured}
    return run_of(cell).model_copy(
        update={"attempts": attempts, "selected": 1, "prepared": prepared, "measured": named}
    )


def test_each_cell_is_a_run_with_what_came_of_it(observer, runs):
    observer.started(2)
    for cell in (ORIGINAL, LOW):
        observer.cell_started(cell)
    for step in range(2):  # two workers, and two points of a grid
        observer.scalar(LOW, "loss", step, 4.0 - step)
        observer.scalar(ORIGINAL, "loss", step, 0.5)
    observer.cell_finished(ORIGINAL, run_of(ORIGINAL), False)
    for step in range(2):
        observer.scalar(LOW, "loss", step, 2.0 - step)
    observer.cell_finished(LOW, searched(LOW), False)
    observer.finished()
    found = runs()
    assert set(found) == {"", "badnet_seed0_original", "badnet_seed0_ssd_alpha0.1"}
    assert found["badnet_seed0_original"].scalars["live/loss"] == [(0, 0.5), (1, 0.5)]
    unlearned = found["badnet_seed0_ssd_alpha0.1"]
    assert unlearned.scalars == {
        "live/loss": [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)],
        "curves/loss": [(0, 3.0), (2, 1.0)],
        "curves/importance": [(0, 7.0)],
        "metrics/retain_accuracy": [(0, 0.5)],
        "retain_class_accuracy/cat": [(0, 0.25)],
        "retain_class_accuracy/dog": [(0, 1.0)],
    }
    assert unlearned.status == "STATUS_SUCCESS"
    hparams = unlearned.hparams
    assert (hparams["ssd.dampening"], hparams["ssd.layers"], hparams["alpha"], hparams["seed"]) == (
        10.0,
        "null",
        0.1,
        0,
    )
    assert hparams["manipulation"] == "badnet"


def test_a_cell_that_was_there_has_the_same_without_having_been_started(observer, runs):
    observer.started(1)
    observer.cell_finished(LOW, searched(LOW), True)
    observer.finished()
    (read,) = (run for name, run in runs().items() if name)
    assert read.scalars["curves/loss"] == [(0, 3.0), (2, 1.0)]
    assert read.scalars["metrics/retain_accuracy"] == [(0, 0.5)]


def test_a_cell_that_failed_says_why_and_is_marked(observer, runs):
    observer.started(2)
    observer.cell_started(HIGH)
    observer.scalar(HIGH, "loss", 0, float("nan"))
    observer.cell_failed(HIGH, "it <broke> \ud800")
    observer.cell_failed(LOW, "there is no original")
    observer.finished()
    found = runs()
    broken = found["badnet_seed0_ssd_alpha1.0"]
    assert broken.texts("failed") == ["    it <broke> ?\n"]
    assert broken.status == found["badnet_seed0_ssd_alpha0.1"].status == "STATUS_FAILURE"
    assert broken.hparams["unlearner"] == "ssd"
    assert list(broken.scalars) == ["live/loss"]


def test_warnings_are_texts_of_the_study_whenever_they_come(observer, runs):
    observer.warning("before")
    observer.started(0)
    observer.warning("meanwhile")
    observer.finished()
    observer.warning("of the results")
    observer.warning("and once more")
    said = ["    before\n", "    meanwhile\n", "    of the results\n", "    and once more\n"]
    assert runs()[""].texts("warnings") == said


def test_nothing_is_written_before_a_study_begins(observer, tmp_path):
    observer.warning("a dry run")
    assert list(tmp_path.iterdir()) == []


def test_what_was_logged_can_be_read_when_a_cell_is_done_and_the_study_goes_on(observer, runs):
    observer.started(2)
    observer.cell_started(HIGH)
    observer.cell_finished(LOW, searched(LOW), False)
    assert {"curves/loss", "metrics/retain_accuracy"} <= runs()["badnet_seed0_ssd_alpha0.1"].scalars.keys()


def test_a_cells_writer_is_closed_when_the_cell_is_done(observer):
    def writing():
        return [thread for thread in threading.enumerate() if type(thread).__name__ == "_AsyncWriterThread"]

    before = len(writing())
    observer.started(3)
    for cell in (ORIGINAL, LOW, HIGH):
        observer.cell_started(cell)
    assert len(writing()) == before + 3
    observer.cell_finished(LOW, searched(LOW), False)
    observer.cell_failed(HIGH, "it broke")
    assert len(writing()) == before + 1
    observer.finished()
    assert len(writing()) == before


def test_names_that_no_folder_can_have_stay_apart(observer, runs):
    first, second = Unlearning("a:b", 0, "x/../y", 0.5), Unlearning("a-b", 0, "x/../y", 0.5)
    observer.started(2)
    for cell in (first, second):
        observer.cell_finished(cell, searched(cell), False)
    observer.finished()
    assert set(runs()) == {"", "a-b_seed0_x-..-y_alpha0.5", "a-b_seed0_x-..-y_alpha0.5_"}


def test_two_studies_have_two_folders(registry, tmp_path):
    for _ in range(3):
        observer = tensorboard_of(registry, tmp_path)
        observer.started(0)
        observer.finished()
    assert len(list(tmp_path.iterdir())) == 3


LEAST = ("bench", "-d", "fake", "-u", "none", "--alpha", "1", "--seeds", "1", "--recipe", "steps=3")


def test_the_command_writes_every_cell_with_its_real_metrics(run, tmp_path):
    ran = run(*LEAST, "--observer", "tensorboard", "-o", "tensorboard.folder=logs", "--json")
    assert ran.code == 0, ran.err
    assert "Warning" not in ran.err
    (study,) = (tmp_path / "logs").iterdir()
    read = Read(study / "badnet_seed0_none_alpha1.0")
    (record,) = (record for record in ran.json["records"] if record["role"] == "unlearned")
    assert record["metrics"]
    for name, value in record["metrics"].items():
        assert read.scalars[f"metrics/{name}"] == [(0, pytest.approx(value))]
    assert read.hparams["recipe"] == "sgd"
    assert read.hparams["sgd.steps"] == 3


def test_without_the_library_nothing_begins(run, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *arguments)

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    ran = run(*LEAST, "--observer", "tensorboard")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "Error: The observer 'tensorboard' needs TensorBoard. Install it: pip install 'cutk[tensorboard]'\n"
    )
    assert list(tmp_path.iterdir()) == []
