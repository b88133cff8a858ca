"""What the commands for one's own models share, and ``--calibrate``."""

from __future__ import annotations

import json

import pytest

from cutk.cli.own import as_noted, dataset_options, preparation
from cutk.errors import UsageError

from .test_unlearn import case, given  # noqa: F401  # a fixture


def test_calibrating_stands_in_the_report(run, case):  # noqa: F811
    quick = ("--calibrate", "--calibrate-alpha", "0.4", "--recipe", "steps=2", "batch_size=8")
    ran = run(*given(*quick))
    assert ran.code == 0, ran.err
    assert "Calibration plants asymmetric-noise, badnet, interclass-confusion, label-swap, sig, wanet: 12" in ran.err
    found = json.loads((case / "repaired" / "report.json").read_text())["calibration"]
    assert {one["manipulation"] for one in found["trials"]} >= {"badnet", "interclass-confusion"}
    assert (found["manipulated"], found["runs"]) == (10, "repaired-calibration")
    assert (case / "repaired-calibration" / "train").is_dir()
    page = (case / "repaired" / "report.html").read_text()
    for text in ("On data like yours", "about 10 samples each; methods were told 40 % of them"):
        assert text in " ".join(ran.out.split())
        assert text in page
    assert run("report", "repaired-calibration").code == 0
    ran = run(*given("--calibrate-alpha", "0.4", "--force"))
    assert ran.code == 2
    assert "--calibrate-alpha says nothing without --calibrate" in ran.err


def test_a_recipe_is_taken_or_not_offered(run, case):  # noqa: F811
    common = ("--model", "net.py:build", "--weights", "model.safetensors", "--data", "folder:photos", "--device", "cpu")
    ran = run("predict", *common, "--recipe", "steps=3")
    assert ran.code == 2
    assert "No such option" in ran.err
    ran = run("detect", *common, "--bad", "bad.txt", "--detector", "seeded-knn", "--recipe", "steps=3", "lr=0.2")
    assert ran.code == 0, ran.err
    ran = run("detect", *common, "--bad", "bad.txt", "--detector", "seeded-knn", "--recipe", "steps=3", "speed=0.2")
    assert ran.code == 2
    assert "speed" in ran.err


def test_what_is_noted_is_told_to_datasets_that_have_an_option_for_it(registry):
    said = {"data_root": None, "download": False, "size": None, "channels": None}
    note = {"size": 32, "channels": "grey"}
    options = dict(said)
    as_noted(options, note)
    folder, arrays = (registry.get("dataset", name) for name in ("folder:here", "arrays:here.npz"))
    assert dataset_options(folder, options, {}) == {"size": 32, "grey": True}
    assert dataset_options(arrays, options, {}) == {}
    assert preparation(folder, options, {}, note) == preparation(arrays, options, {}, note) == note
    # What was said counts, however.
    assert preparation(folder, options, {"folder": {"size": "64"}}, note) == {"size": 64, "channels": "grey"}
    options = {**said, "channels": "rgb"}
    as_noted(options, {"size": 32, "channels": "bgr"})
    assert preparation(folder, options, {}, note) == {"size": 32, "channels": None}
    as_noted(turned := dict(said), {"channels": "bgr"})
    assert preparation(arrays, turned, {}, {}) == {"size": None, "channels": "bgr"}
    # And what a dataset has no use for is told where it was said.
    with pytest.raises(UsageError, match="has no use for --size"):
        dataset_options(arrays, {**said, "size": 9, "channels": "rgb"}, {})
    # One that says where it lies doesn't lie elsewhere.
    with pytest.raises(UsageError, match="--data-root: 'folder:here' says it already"):
        dataset_options(folder, {**said, "data_root": "there"}, {})
