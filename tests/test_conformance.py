"""What every component has to keep to, whoever wrote it."""

from __future__ import annotations

import json
import math
from importlib.metadata import entry_points

import pytest
import torch

from cutk.components import KINDS, Summary, problem_with
from cutk.options import describe_options
from cutk.plan import Plan, layer, read_preset, resolve
from cutk.plugins import load_registry
from cutk.search import expand_grid
from cutk.task import Log

REGISTRY = load_registry({"CUTK_PLUGINS": ""})


def every(kind=None):
    return [
        pytest.param(entry.component, id=f"{entry.kind}-{entry.name}")
        for entry in REGISTRY.entries
        if kind in (None, entry.kind)
    ]


def test_nothing_built_in_is_broken():
    assert REGISTRY.failures == []
    assert {entry.kind for entry in REGISTRY.entries} == set(KINDS)


@pytest.mark.parametrize("component", every())
def test_a_component_is_sound_and_documented(component):
    assert problem_with(component, component.kind) is None
    assert component.summary().endswith(".")
    assert 10 < len(component.summary()) < 120
    for info in describe_options(component.Options):
        assert info.help, info.name
        assert info.expected != "a value", info.name


@pytest.mark.parametrize("component", every())
def test_options_survive_json(component):
    options = component.Options()
    dumped = json.loads(json.dumps(options.model_dump(mode="json")))
    assert component.Options(**dumped) == options


@pytest.mark.parametrize("entry", REGISTRY.entries, ids=lambda entry: entry.name)
def test_a_component_is_found_where_its_name_says(entry):
    assert entry.provider.entry_point == entry.component.name
    # An entry point leads to a file of the component's name, or into one that a family of components shares.
    points = entry_points(group="cutk", name=entry.component.name)
    (point,) = (point for point in points if point.module == entry.component.__module__)
    leads_to = point.attr or point.module.rpartition(".")[2]
    assert leads_to == entry.component.name.replace("-", "_")


@pytest.mark.parametrize("component", every("unlearner"))
def test_every_grid_point_is_valid(component):
    for point in expand_grid(component.grid):
        component.Options(**point)
    assert set(component.prepared_by) <= set(component.Options.model_fields)


@pytest.mark.parametrize("component", every("unlearner"))
@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_an_unlearner_is_reproducible_and_leaves_things_as_they_were(component, alpha, tiny_scenario):
    original = tiny_scenario.train_original(Log()).eval()
    before = {name: value.clone() for name, value in original.state_dict().items()}

    def unlearned():
        method = component()
        task = tiny_scenario.task(original, alpha)
        assert alpha == 1.0 or len(task.identified) == 1
        return method.unlearn(task, method.prepare(tiny_scenario.task(original, alpha)))

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = unlearned()
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    second = unlearned()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
        assert value.dtype == before[name].dtype
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


@pytest.mark.parametrize("component", every("metric"))
def test_a_metric_has_a_range(component):
    low, high = component.bounds
    assert low < high
    assert not math.isnan(low)
    assert isinstance(component.higher_is_better, bool)
    if issubclass(component, Summary):
        assert all(REGISTRY.get("metric", name) for name in component.of)


@pytest.mark.parametrize("component", every("manipulation"))
def test_a_manipulation_is_seeded_and_changes_only_what_it_says(component, images_of):
    images = images_of(count=300, channels=3, size=16, classes=10)
    copies = images.pixels.clone(), images.labels.clone()
    first, second = (component().corrupt(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(images.pixels, copies[0])
    assert torch.equal(images.labels, copies[1])
    assert torch.equal(first.manipulated, second.manipulated)
    assert torch.equal(first.manipulated, first.manipulated.unique())
    touched = (first.train.pixels != images.pixels).flatten(1).any(1) | (first.train.labels != images.labels)
    assert set(touched.nonzero().flatten().tolist()) <= set(first.manipulated.tolist())


@pytest.mark.parametrize("name", sorted(REGISTRY.presets))
def test_a_preset_is_a_plan_that_resolves(name):
    content = layer(read_preset("default", REGISTRY), read_preset(name, REGISTRY))
    setup = resolve(Plan.parse(layer(content, {"unlearners": ["ssd"]})), REGISTRY)
    assert setup.plan.summary
