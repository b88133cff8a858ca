"""The test kit: sound components pass it, and each of its checks fails for a component that is broken in its way."""

from __future__ import annotations

import os
import random
import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.components import KINDS
from cutk.testing import CheckFailed, check_component, check_metric, check_unlearner, examine
from cutk.testing import datasets as for_datasets
from cutk.testing import manipulations as for_manipulations
from cutk.testing import metrics as for_metrics
from cutk.testing import models as for_models
from cutk.testing import unlearners as for_unlearners
from cutk.testing.findings import run
from cutk.testing.states import difference
from cutk.testing.surroundings import _THINGS, watched
from cutk.testing.verdicts import NotJudged

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("broken_components.py"))))
KIT = {
    "unlearner": (for_unlearners.CHECKS, for_unlearners.Trials),
    "manipulation": (for_manipulations.CHECKS, for_manipulations.Doings),
    "model": (for_models.CHECKS, for_models.Builds),
    "metric": (for_metrics.CHECKS, for_metrics.Judgements),
    "summary": (for_metrics.SUMMARY_CHECKS, for_metrics.Curves),
    "dataset": (for_datasets.CHECKS, for_datasets.Loads),
}


@pytest.fixture(autouse=True)
def _unhooked():
    yield
    while MADE.HOOKS:
        MADE.HOOKS.pop().remove()


@pytest.mark.parametrize("component", MADE.SOUND, ids=lambda component: component.name)
def test_a_sound_component_passes(component):
    for finding in check_component(component):
        assert finding.passed is not False
        assert finding.statement.endswith(".")
        assert not finding.hint


@pytest.mark.parametrize(
    ("kind", "name", "component"),
    [
        pytest.param(kind, name, component, id=f"{kind}-{name}-{position}")
        for kind, checks in MADE.BROKEN.items()
        for name, components in checks.items()
        for position, component in enumerate(components)
    ],
)
def test_each_check_can_fail(kind, name, component):
    checks, subject = KIT[kind]
    (check,) = [check for check in checks if check.name == name]
    (finding,) = run([check], subject(component))
    assert finding.passed is False, finding
    assert finding.reason
    assert "\n" not in finding.reason
    assert finding.hint == check.hint
    assert len(finding.hint) > 10


def test_no_check_goes_untried():
    only_remarks = {"test_images_are_unseen"}
    for kind, (checks, _) in KIT.items():
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)
        assert set(names) - set(MADE.ANY_KIND) - only_remarks == set(MADE.BROKEN[kind]) - set(MADE.ANY_KIND), kind


def test_a_failure_lists_what_failed_and_how_to_mend_it():
    with pytest.raises(CheckFailed) as error:
        check_unlearner(MADE.WritesLabels)
    assert isinstance(error.value, AssertionError)
    assert isinstance(error.value, cutk.CutkError)
    lines = str(error.value).splitlines()
    assert lines[0] == "The unlearner 'ascent' fails 1 of 19 checks:"
    assert lines[1].endswith("(task_is_untouched)")
    assert lines[2] == "    came: it writes to task.train.labels"
    assert lines[3].startswith("    mend: Write to copies")
    assert len(error.value.findings) == 19


def test_what_rests_on_a_failed_check_is_not_judged():
    findings = {finding.check: finding for finding in examine(MADE.ReturnsWeights)}
    assert findings["unlearn_returns_a_network"].reason == "unlearn() returned OrderedDict"
    after = findings["same_seed_gives_the_same_model"]
    assert after.passed is None
    assert after.reason == "it needs what 'unlearn_returns_a_network' says"


def test_an_option_without_a_default_has_to_be_given():
    class Demanding(MADE.Ascent):
        """Wants to be told."""

        class Options(MADE.Ascent.Options):
            """How far."""

            steps: int = cutk.option(ge=1, help="steps")

    findings = {finding.check: finding for finding in check_unlearner(Demanding)}
    assert findings["defaults_are_valid"].passed is None
    assert "give options={'steps': …}" in findings["defaults_are_valid"].reason
    assert findings["same_seed_gives_the_same_model"].passed is None
    assert all(finding.passed for finding in check_unlearner(Demanding, options={"steps": 2}))


def test_data_that_are_not_here_are_not_judged():
    findings = {finding.check: finding for finding in check_component(MADE.Missing)}
    assert findings["load_returns_splits"].passed is None
    assert "--data-root" in findings["load_returns_splits"].reason
    assert findings["loads_are_equal"].passed is None


def test_test_images_that_are_training_images_are_remarked():
    component = MADE.loading(lambda _self: cutk.Splits(train=MADE.noise(20), test=MADE.noise(10)))
    findings = {finding.check: finding for finding in check_component(component)}
    finding = findings["test_images_are_unseen"]
    assert finding.passed
    assert finding.reason == "10 of 10 test images are training images as well"


def test_a_direction_that_cannot_be_judged_is_said_to_be_so():
    def direction(component):
        (finding,) = [f for f in examine(component) if f.check == "direction_is_honest"]
        return finding

    assert direction(MADE.judging(lambda _self, _evaluation: 0.5)).passed is None
    assert "bounds aren't 0 to 1" in direction(MADE.judging(MADE.Retained.compute, bounds=(0.0, 2.0))).reason
    inverted = MADE.judging(lambda _self, e: float((e.affected_predictions != e.truth.affected.labels).double().mean()))
    assert direction(inverted).passed is False
    inverted.higher_is_better = False
    assert direction(inverted).passed
    wrong = MADE.judging(MADE.Retained.compute, higher_is_better=False)
    with pytest.raises(CheckFailed, match="higher_is_better = False, and it says 1 for a perfect model, 0"):
        check_metric(wrong)


def test_a_model_may_refuse_some_images():
    class Colourful(MADE.Linear):
        """Takes coloured images alone."""

        def build(self, shape, num_classes):
            if shape[0] != 3:
                raise cutk.UsageError(f"linear needs images of 3 channels, got {shape[0]}.")
            return super().build(shape, num_classes)

    findings = {finding.check: finding for finding in check_component(Colourful)}
    assert "needs images of 3 channels, got 1" in findings["images_become_logits"].reason


def test_what_is_no_component_is_refused():
    for wrong in (int, "ascent", MADE.Ascent()):
        with pytest.raises(cutk.UsageError, match="Expected a subclass of cutk"):
            examine(wrong)
    with pytest.raises(cutk.UsageError, match=r"Expected a subclass of cutk\.Unlearner, got .*Shift"):
        check_unlearner(MADE.Shift)
    assert {component.kind for component in MADE.SOUND} == set(KINDS)


DISTURBANCES = {
    "torch's random state": lambda: torch.rand(1),
    "NumPy's random state": lambda: np.random.rand(),
    "Python's random state": lambda: random.random(),  # noqa: S311
    "the grad mode": lambda: torch.set_grad_enabled(False),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "cuDNN's settings": lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "the precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the default device": lambda: torch.set_default_device("meta"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "the filters of warnings": lambda: warnings.simplefilter("ignore"),
    "the working folder": lambda: os.chdir("/"),
    "the environment variables": lambda: os.environ.update(CUTK_TEST="1"),
}


def test_every_piece_of_global_state_is_tried():
    assert set(DISTURBANCES) == {thing.name for thing in _THINGS}


@pytest.mark.parametrize("name", DISTURBANCES)
def test_what_is_global_is_watched_and_put_back(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with watched() as outer:
        with watched() as changed:
            DISTURBANCES[name]()
        assert changed == [name]
    assert outer == []


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.0]}, ""),
        ({"a": [1, 2.0]}, {"a": [1, 3.0]}, "it['a'][1]"),
        ({"a": 1}, {"b": 1}, "it"),
        ([1], [1, 2], "it"),
        (1, 1.0, "it"),
        (float("nan"), float("nan"), ""),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), ""),
        (torch.zeros(2), torch.zeros(2).double(), "it"),
        (np.zeros(2), np.ones(2), "it"),
        (cutk.Cost(1.0), cutk.Cost(2.0), "it[0]"),
        (cutk.Normalisation((0.0,), (1.0,)), cutk.Normalisation((0.0,), (2.0,)), "it.std[0]"),
        (nn.Linear(1, 1, bias=False).requires_grad_(False), nn.Linear(1, 1), "it"),
        (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1), "it"),
    ],
)
def test_differences_are_found_where_they_are(first, second, where):
    assert difference(first, second, "it") == where


def test_what_cannot_be_compared_is_not_judged():
    with pytest.raises(NotJudged, match="of type generator, which can't be compared"):
        difference(iter_of(1), iter_of(1))
    loop: list[object] = []
    loop.append(loop)
    other: list[object] = []
    other.append(other)
    assert difference(loop, other) == ""


def iter_of(*values):
    yield from values
