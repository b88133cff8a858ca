"""What every component has to keep to, built in or an example: the checks that cutk ships for everyone's plugins."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from cutk.kinds import KINDS
from cutk.plugins.registry import load_registry
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve
from cutk.testing import check_component

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry({"CUTK_PLUGINS": ""})
EXAMPLES = [
    load_registry({"CUTK_PLUGINS": "", "CUTK_DISABLE": "cutk"}, inline=[file])
    for file in sorted((ROOT / "examples").glob("*/*/__init__.py"))
]
ENTRIES = [entry for registry in (REGISTRY, *EXAMPLES) for entry in registry.entries]
# Smaller than their defaults where these are for real data: what is checked doesn't depend on the size.
SMALL = {
    "cf": {"steps": 60},
    "badt": {"steps": 60},
    "neggrad-plus": {"steps": 60},
    "relabel": {"steps": 60},
    "scrub": {"steps": 60, "forget_steps": 12},
    "wide-resnet": {"depth": 10, "width": 1},
    # Files that the test below writes.
    "file": {"file": "found.txt"},
    "label-file": {"file": "labels.txt"},
}
# What needs files that don't come with cutk: how it says so is checked, and the rest in its own tests.
WITH_FILES = {"arrays", "cifar10", "cifar100", "csv", "fashion-mnist", "folder", "mnist", "pcam", "svhn"}
# What needs a library that not everybody has.
LIBRARIES = {"confident-learning": "cleanlab", "mlflow": "mlflow", "tensorboard": "tensorboard", "timm": "timm"}
MAY_BE_UNJUDGED = {"direction_is_honest", "triggers_fit_the_samples"}


def test_nothing_is_broken():
    assert [failure for registry in (REGISTRY, *EXAMPLES) for failure in registry.failures] == []
    assert {entry.kind for entry in REGISTRY.entries} == set(KINDS)
    assert {"blended", "healing", "negative-gradient"} <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_a_component_keeps_to_what_cutk_expects(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if entry.name in LIBRARIES:
        pytest.importorskip(LIBRARIES[entry.name])
    # One database for all checks: making one takes seconds.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    Path("found.txt").write_text("".join(f"{i}\n" for i in range(0, 72, 2)), encoding="utf-8")
    # The kit's samples are of ten classes, one after the other.
    Path("labels.txt").write_text("".join(f"{(i + (i % 7 == 0)) % 10}\n" for i in range(300)), encoding="utf-8")
    findings = check_component(entry.component, options=SMALL.get(entry.name))
    not_judged = {finding.check for finding in findings if finding.passed is None}
    if entry.name in WITH_FILES:
        assert "load_returns_splits" in not_judged
    else:
        assert not_judged <= MAY_BE_UNJUDGED
    if entry.kind == "metric" and entry.component.bounds == (0, 1):
        assert "direction_is_honest" not in not_judged


@pytest.mark.parametrize("entry", REGISTRY.entries, ids=lambda entry: entry.name)
def test_a_component_is_found_where_its_name_says(entry):
    assert entry.provider.entry_point == entry.component.name
    # An entry point leads to a file of the component's name, or into one that a family of components shares.
    points = entry_points(group="cutk", name=entry.component.name)
    (point,) = (point for point in points if point.module == entry.component.__module__)
    leads_to = point.attr or point.module.rpartition(".")[2]
    assert leads_to == entry.component.name.replace("-", "_")
    folder = KINDS[entry.kind].plural
    assert point.module.split(".")[1] == folder


@pytest.mark.parametrize("entry", REGISTRY.of_kind("summary"), ids=lambda entry: entry.name)
def test_a_summary_is_computed_from_metrics_that_there_are(entry):
    assert all(REGISTRY.get("metric", name) for name in entry.component.of)


@pytest.mark.parametrize("name", sorted(REGISTRY.presets))
def test_a_preset_is_a_plan_that_resolves(name):
    content = layer(read_preset("default", REGISTRY), read_preset(name, REGISTRY))
    setup = resolve(Plan.parse(layer(content, {"unlearners": ["ssd"]})), REGISTRY)
    assert setup.plan.summary
