"""An unlearner that a detector works for."""

from __future__ import annotations

import pytest
import torch

import cutk
from cutk.errors import CellError
from cutk.plugins.registry import load_registry
from cutk.plugins.sources import source_of
from cutk.problem.expansion import expanding, grown, require_suspicion
from cutk.run.plan import Plan, over_default
from cutk.run.setup import resolve
from cutk.testing.tiny import tiny_models, tiny_scenario


class Eye(cutk.Detector):
    """Suspects the first samples."""

    name = "eye"

    class Options(cutk.Options):
        """How many."""

        count: int = cutk.option(3, ge=0, help="how many")

    def detect(self, task):
        with torch.no_grad():
            next(task.original.parameters()).zero_()
        found = torch.zeros(len(task.train))
        found[: self.options.count] = 0.75
        return found

    @classmethod
    def passes(cls, options, sizes):
        return options.count / 2


class Noting(cutk.Unlearner):
    """Notes what it is told."""

    name = "noting"
    prepared_by = ("extra",)

    class Options(cutk.Options):
        """Anything."""

        extra: int = cutk.option(1, ge=0, help="anything")

    def prepare(self, task):
        return task.identified.tolist(), next(task.original.parameters()).abs().sum().item()

    def unlearn(self, task, state=None):
        task.log.scalar("known", len(task.identified))
        self.seen = state
        return task.original

    @classmethod
    def passes(cls, options, sizes):
        return 1.0, 2.0


@pytest.fixture
def task():
    return tiny_scenario().task(tiny_models()[0], 0.5)


def test_what_is_suspected_is_known_to_the_unlearner(task):
    both = expanding(Noting, Eye)
    assert both.name == "noting+eye"
    method = both(both.Options(detector_count=5, extra=4))
    identified, (told, weights) = method.prepare(task)
    assert identified.tolist() == sorted({*task.identified.tolist(), *range(5)}) == told
    assert task.log.suspected.values[:6].tolist() == [0.75] * 5 + [0]
    assert task.log.suspected.probabilistic
    assert weights > 0  # what the detector does to the model is done to a copy
    assert task.log.scalars["suspects"] == [len(told) - len(task.identified)]
    method.unlearn(task, (identified, (told, weights)))
    assert task.log.scalars["known"] == [len(told)]
    assert method.unlearn(task) is task.original


def test_its_options_and_passes_are_those_of_both():
    both = expanding(Noting, Eye)
    assert set(both.Options.model_fields) == {"extra", "detector_count"}
    assert both.prepared_by == ("extra", "detector_count")
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        both.Options(detector_count=-1)
    sizes = cutk.Sizes(train=10, identified=1, batch_size=5, steps=3)
    assert both.passes(both.Options(detector_count=4), sizes) == (3.0, 2.0)


class Surveying(Noting):
    """Surveys, as well."""

    name = "surveying"
    surveyed_by = ("extra",)

    def survey(self, task):
        assert not len(task.identified)
        return self.options.extra

    def prepare(self, task):
        return task.surveyed


def test_what_all_s_f_share_is_surveyed_as_without_a_detector(task):
    both = expanding(Surveying, Eye)
    assert both.surveyed_by == ("extra",)
    method = both(both.Options(extra=7))
    task.surveyed = method.survey(task.knowing_nothing())
    assert method.prepare(task)[1] == 7
    # Of one that has none, nothing is asked.
    assert expanding(Noting, Eye).survey is cutk.Unlearner.survey


class Order(Eye):
    """Suspects the same, and means no probabilities."""

    name = "order"
    probabilistic = False


class Telling(Noting):
    """Says itself whom it suspects."""

    name = "telling"

    def unlearn(self, task, state=None):
        task.log.suspicion(torch.zeros(len(task.train)))
        return task.original


def test_who_said_last_whom_to_suspect_says_whether_by_probabilities(task):
    expanding(Noting, Order)().prepare(task)
    assert not task.log.suspected.probabilistic
    expanding(Telling, Order)().unlearn(task)
    assert task.log.suspected.probabilistic
    assert not task.log.suspected.values.any()


def test_s_f_only_grows():
    assert grown(torch.tensor([0, 2]), torch.tensor([0.0, 0.6, 0.1, 0.5])).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("found", "came"),
    [
        ([0.5], "got list"),
        (torch.zeros(2), r"got torch.float32 \[2\]"),
        (torch.zeros(3, dtype=torch.float64), "got torch.float64"),
        (torch.tensor([0.0, 2.0, 0.0]), "from 0 to 2"),
        (torch.full((3,), float("nan")), "from nan to nan"),
    ],
)
def test_what_is_no_probability_is_refused(found, came):
    with pytest.raises(CellError, match=f"eye: expected float32 \\[3\\].*{came}"):
        require_suspicion(found, 3, "eye")


def test_a_detector_that_suspects_everybody_is_named(task):
    method = expanding(Noting, Eye)
    with pytest.raises(CellError, match=r"The detector 'eye' suspects all \d+ samples"):
        method(method.Options(detector_count=len(task.train))).prepare(task)
    everybody = task.knowing(torch.arange(len(task.train)))
    known, _ = method(method.Options()).prepare(everybody)[1]
    assert len(known) == len(task.train)  # which nobody suspected


def test_suspicion_carries_no_gradient():
    assert not require_suspicion(torch.zeros(3, requires_grad=True), 3, "eye").requires_grad


def chosen(**plan):
    registry = load_registry({"CUTK_PLUGINS": ""})
    content = over_default({"dataset": "digits", "manipulations": ["badnet"], **plan}, registry)
    return {each.name: each for each in resolve(Plan.parse(content), registry).unlearners}


def test_a_plan_composes_them_by_name_or_all_at_once():
    found = chosen(
        unlearners=["ssd", "cf+seeded-knn", "scrub:step"],
        detector="seeded-probe",
        options={
            "seeded-probe": {"refinements": 1},
            "scrub": {"steps": 30},
            "cf+seeded-knn": {"lr": 0.5},
        },
    )
    assert list(found) == ["ssd+seeded-probe", "cf+seeded-knn", "scrub:step+seeded-probe"]
    assert len(found["ssd+seeded-probe"].points) == 50
    step = found["scrub:step+seeded-probe"].points[0].model_dump()
    assert (step["alternate"], step["steps"], step["detector_refinements"]) == ("step", 30, 1)
    # What suits the dataset, and what the user says, reaches either part.
    assert found["cf+seeded-knn"].points[0].model_dump() == {
        "steps": 75,
        "lr": 0.5,
        "last_layers": None,
        "detector_k": 5,
    }


def test_a_composed_unlearners_source_is_that_of_both():
    registry = load_registry({"CUTK_PLUGINS": ""})
    names = ["ssd", "ssd+seeded-knn", "ssd+seeded-probe", "cf+seeded-probe"]
    assert len({source_of(registry.get("unlearner", name)) for name in names}) == 4
    with pytest.raises(cutk.UsageError, match="Unknown detector 'sedeed-knn'"):
        registry.get("unlearner", "ssd+sedeed-knn")
    with pytest.raises(cutk.UsageError, match="a name is missing before or after '\\+'"):
        registry.get("unlearner", "ssd+")
