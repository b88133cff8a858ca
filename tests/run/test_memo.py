"""What is noted of finished runs: it saves making their data anew, and is never believed where it could be wrong."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cutk
from cutk.problem.scenario import Scenario
from cutk.run import memo
from cutk.run.files import write_record
from cutk.run.memo import Memo
from cutk.run.plan import Plan, layer, over_default
from cutk.run.setup import choose, resolve
from cutk.run.store import Store
from cutk.run.study import Study

CHANGED = memo._changed
SEEDS = 3
CELLS = 3 * SEEDS


PLAN = {
    "dataset": "fake",
    "precision": "fp32",
    "device": "cpu",
    "alphas": [0.5],
    "seeds": SEEDS,
    "recipe": {"steps": 2, "batch_size": 32},
    "unlearners": ["cf"],
    "options": {"cf": {"steps": 1}, "convnet-small": {"width": 4}},
}


class Noisy(cutk.Manipulation):
    """Gives other labels to as many samples as a file says."""

    name = "noisy"

    def corrupt(self, train, generator, surrogate=None):
        count = int(Path("count.txt").read_text())
        labels = train.labels.clone()
        labels[:count] = (labels[:count] + 1) % len(train.classes)
        return cutk.Corruption(train.changed(labels=labels), torch.arange(count))


@pytest.fixture(autouse=True)
def at_rest(monkeypatch):
    """Sources that don't change while tests run, whoever works on them."""
    monkeypatch.setattr(memo, "_changed", lambda components: False)


@pytest.fixture
def made(monkeypatch):
    """The seeds whose data are made."""
    seeds, init = [], Scenario.__init__

    def noting(self, splits, manipulations, model, recipe, seed, *args, **kwargs):
        seeds.append(seed)
        init(self, splits, manipulations, model, recipe, seed, *args, **kwargs)

    monkeypatch.setattr(Scenario, "__init__", noting)
    return seeds


@pytest.fixture
def setup_of(registry):
    """The plan with changes."""
    return lambda **over: resolve(Plan.parse(layer(over_default(PLAN, registry), over)), registry)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, registry):
    """A folder of finished runs, read once since; and what came of it."""
    folder = tmp_path_factory.mktemp("finished") / "runs"
    setup = resolve(Plan.parse(over_default(PLAN, registry)), registry)
    before, memo._changed = memo._changed, lambda components: False
    try:
        results = Study(setup, Store(folder)).run()
    finally:
        memo._changed = before
    return folder, results


@pytest.fixture
def again(finished, bench, setup_of, tmp_path, made):
    """The plan again, over a copy of the finished runs."""
    shutil.copytree(finished[0], tmp_path / "runs")

    def go(**over):
        made.clear()
        return bench(setup_of(**over))

    return go


def notes(folder):
    return sorted((folder / "memo").glob("*.json")) if (folder / "memo").is_dir() else []


def keys_in(path):
    return json.loads(path.read_text())["keys"]


def rewrite(path, keys):
    write_record(path, memo._Keys(keys=keys))


def test_finished_runs_are_read_without_their_data(again, finished, made):
    results, watcher = again()
    assert made == [0]
    assert len(watcher.read) == CELLS
    assert (results.records, results.summaries, results.runs) == (
        *(finished[1].records, finished[1].summaries),
        finished[1].runs,
    )


def test_a_key_is_noted_for_each_run(finished):
    folder, results = finished
    noted = [key for path in notes(folder) for key in keys_in(path).values()]
    assert sorted(noted) == sorted(run.key for run in results.runs)
    assert len(notes(folder)) == 2  # of trainings, and of the unlearner


def test_further_seeds_and_unlearners_use_what_is_there(again, made):
    _, watcher = again(seeds=[7, 2, 1], unlearners=["cf", "none"])
    # Data of a seed that is noted are made to compare them, and those of what is computed.
    assert set(made) == {7, 2, 1}
    assert len(watcher.read) == 6
    _, watcher = again(seeds=[7, 2, 1], unlearners=["cf", "none"])
    assert made == [7]
    assert len(watcher.read) == 12


CHANGES = {
    "cutk itself": lambda patch: patch.setattr(memo, "_sources", lambda: "another"),
    "numpy": lambda patch: patch.setattr(np, "__version__", "99"),
    "torch": lambda patch: patch.setattr("torch.__version__", "99"),
    "the processor": lambda patch: patch.setattr("cutk.machine._capability", lambda device: "another"),
    "a variable": lambda patch: patch.setattr(memo, "_told", lambda: [("MKL_CBWR", "COMPATIBLE")]),
}


def test_variables_that_libraries_heed_are_told_as_they_were_first(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("EDITOR", "ed")
    told = memo._told.__wrapped__()
    assert ("OMP_WAIT_POLICY", "passive") in told
    assert "EDITOR" not in dict(told)
    memo._told()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    assert "elsewhere" not in dict(memo._told()).values()


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_noted_elsewhere_is_not_believed(again, made, what, monkeypatch):
    CHANGES[what](monkeypatch)
    _, watcher = again()
    assert set(made) == {0, 1, 2}
    assert len(watcher.read) == CELLS
    again()
    assert made == [0]  # it is noted anew


@pytest.mark.parametrize(
    "over",
    [
        {"options": {**PLAN["options"], "badnet": {"size": 2}}},
        {"options": {**PLAN["options"], "fake": {"noise": 0.2}}},
        {"validation_fraction": 0.1},
        {"identification": "false-positives"},
        {"precision": "bf16"},
    ],
    ids=["manipulation", "dataset", "validation", "identification", "precision"],
)
def test_other_options_are_other_keys(again, made, over):
    _, watcher = again(**over)
    assert set(made) == {0, 1, 2}
    assert len(watcher.computed) >= SEEDS


def test_a_components_source_is_part_of_it(again, made, monkeypatch):
    source = cutk.run.chosen.source_of
    changed = {"badnet", "uniform"}
    monkeypatch.setattr(
        "cutk.run.chosen.source_of", lambda entry: "another" if entry.name in changed else source(entry)
    )
    _, watcher = again()
    assert set(made) == {0, 1, 2}
    assert len(watcher.computed) == CELLS


def test_of_components_that_may_follow_from_anything_nothing_is_noted(bench, setup_of, having, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = having(setup_of(), manipulations=[(Noisy,)])
    for count in (8, 12):
        Path("count.txt").write_text(str(count))
        _, watcher = bench(setup)
        assert len(watcher.computed) == CELLS
    assert not (tmp_path / "runs" / "memo").exists()


def test_of_files_of_the_users_nothing_is_noted(bench, setup_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**PLAN["options"], "file": {"file": "bad.txt"}}
    for listed in ("0\n1\n2\n3\n", "0\n1\n2\n4\n"):
        Path("bad.txt").write_text(listed)
        setup = setup_of(identification="file", options=options, alphas=[1.0])
        _, watcher = bench(setup)
        assert sum(", seed" in cell and "cf" in cell for cell in watcher.computed) == SEEDS
    assert not (tmp_path / "runs" / "memo").exists()


def test_of_manipulations_and_identifications_those_that_read_no_file_and_train_nothing_are_noted(registry, setup_of):
    """Built in is no promise: who adds one that follows from something else has to say so here."""
    setup = setup_of()
    told = set()
    for kind in ("manipulation", "identification"):
        for entry in registry.of_kind(kind):
            chosen = choose(entry, setup.plan, setup.dataset.entry.component)
            told |= {entry.name} if memo._is_told(chosen) else set()
    of_files = {"label-file", "file"}
    every = {entry.name for kind in ("manipulation", "identification") for entry in registry.of_kind(kind)}
    trains = {entry.name for entry in registry.of_kind("manipulation") if entry.component.trains}
    assert told == every - of_files - trains
    for name in told:
        kind = "manipulation" if name in {e.name for e in registry.of_kind("manipulation")} else "identification"
        source = Path(inspect.getfile(registry.get(kind, name).component)).read_text()
        for word in ("open(", "environ", "Path", "import time", "import random", "socket", "subprocess"):
            assert word not in source, (name, word)


def test_one_wrong_key_and_none_is_believed(again, finished, made, tmp_path):
    for path in notes(tmp_path / "runs"):
        keys = keys_in(path)
        # As if another processor had made other data of each seed.
        rewrite(path, {name: key[::-1] for name, key in keys.items()})
    results, watcher = again()
    assert set(made) == {0, 1, 2}
    assert len(watcher.read) == CELLS
    assert results.runs == finished[1].runs
    again()
    assert made == [0]


def test_keys_of_other_seeds_runs_are_noticed(again, finished, made, tmp_path):
    for path in notes(tmp_path / "runs"):
        keys = keys_in(path)
        rewrite(path, dict(zip(keys, [*list(keys.values())[1:], next(iter(keys.values()))], strict=True)))
    results, _ = again()
    assert set(made) == {0, 1, 2}
    assert results.runs == finished[1].runs


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "folder", "fifo", "later", "unreadable"])
def test_what_is_damaged_is_written_anew(again, finished, made, tmp_path, damage, monkeypatch):
    for path in notes(tmp_path / "runs"):
        content = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "bit":
            path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        elif damage == "empty":
            path.touch()
        elif damage == "folder":
            path.mkdir()
        elif damage == "fifo":
            os.mkfifo(path)
        elif damage == "later":
            path.write_bytes(content.replace(b'"schema": 2', b'"schema": 9'))
        else:
            path.symlink_to(path)  # a circle, which root can't read either
    results, watcher = again()
    assert set(made) == {0, 1, 2}
    assert (len(watcher.read), watcher.warnings) == (CELLS, [])
    assert results.runs == finished[1].runs
    again()
    assert set(made) == ({0, 1, 2} if damage == "folder" else {0})  # which nothing takes the place of


def test_a_run_that_is_gone_or_damaged_is_computed_again(again, finished, made, tmp_path):
    runs = {run.labels.seed: run for run in finished[1].runs if run.unlearner}
    shutil.rmtree(tmp_path / "runs" / "unlearn" / runs[1].key)
    (tmp_path / "runs" / "unlearn" / runs[2].key / "record.json").write_text("{")
    results, watcher = again()
    assert sorted(watcher.computed) == [f"badnet, seed {seed}: cf at α = 0.5" for seed in (1, 2)]
    assert [text.startswith("Damaged run") for text in watcher.warnings] == [True]
    assert [run.key for run in results.runs] == [run.key for run in finished[1].runs]


def test_another_metric_is_measured_nevertheless(again, finished, setup_of):
    results, watcher = again(metrics=[*setup_of().plan.metrics, "affected_class_accuracy"])
    assert len(watcher.read) == CELLS
    assert all("affected_class_accuracy" in record.breakdowns for record in results.records)


def test_points_that_were_not_measured_are(again):
    over = {"options": {**PLAN["options"], "cf": {"steps": [1, 2]}}}
    again(**over)
    results, _ = again(**over, evaluate="all")
    assert len([record for record in results.records if record.unlearner]) == 2 * SEEDS


def test_a_dry_run_counts_by_it_and_writes_nothing(finished, setup_of, tmp_path, made):
    shutil.copytree(finished[0], tmp_path / "runs")
    before = sorted(tmp_path.rglob("*"))
    study = Study(setup_of(), Store(tmp_path / "runs"))
    assert len(study.stored()) == CELLS
    assert made == [0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_takes_no_notes_is_no_failure(bench, setup_of, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "memo").write_text("not a folder")
    _, watcher = bench(setup_of())
    assert (len(watcher.computed), watcher.failed, watcher.warnings) == (CELLS, [], [])


def test_a_single_seed_is_not_noted(bench, setup_of, tmp_path):
    bench(setup_of(seeds=1))
    assert not (tmp_path / "runs" / "memo").exists()


def test_sources_that_changed_while_it_ran_are_noticed(tmp_path, monkeypatch, setup_of):
    package = shutil.copytree(Path(cutk.__file__).parent / "data", tmp_path / "home")
    monkeypatch.setattr(memo, "_HOME", package)
    memo._sources.cache_clear()
    first = memo._sources()
    (package / "samples.py").write_text((package / "samples.py").read_text() + "\n")
    memo._sources.cache_clear()
    assert memo._sources() != first
    memo._sources.cache_clear()
    monkeypatch.setattr(cutk, "_BEGAN", package.stat().st_ctime - 3600)
    assert CHANGED([])
    monkeypatch.setattr(cutk, "_BEGAN", max(path.stat().st_ctime for path in package.rglob("*.py")) + 10)
    assert not CHANGED([])
    # Nothing is written then.
    monkeypatch.setattr(memo, "_changed", lambda components: True)
    study = Study(setup_of(), Store(tmp_path / "runs"))
    study.store.open()
    study.worker.memo.note(study.cells[0], "0" * 64)
    study.worker.memo.keep()
    assert not (tmp_path / "runs" / "memo").exists()


def test_a_worker_that_sees_no_runs_folder_notes_nothing(setup_of, tmp_path):
    study = Study(setup_of(), Store(tmp_path))
    apart = Memo(None, study.setup, study.worker.splits, study.worker.environment)
    apart.note(study.cells[0], "0" * 64)
    assert apart.key(study.cells[0]) is None
    apart.keep()
    assert not (tmp_path / "memo").exists()
