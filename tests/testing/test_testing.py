"""The test kit: sound components pass it, and each of its checks fails for a component that is broken in its way."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

import cutk
import cutk.testing
from cutk.kinds import KINDS, Kind
from cutk.testing import CheckFailed, check_component, check_metric, check_unlearner, examine
from cutk.testing.components import Subject
from cutk.testing.findings import check, run


def kit(kind):
    return import_module(f"cutk.testing.{KINDS[kind].plural}")


def found(component, name, **kwargs):
    """Return what one check says of a component."""
    (finding,) = [finding for finding in examine(component, **kwargs) if finding.check == name]
    return finding


def test_a_sound_component_passes(sound):
    for finding in check_component(sound):
        assert finding.passed is not False
        assert finding.statement.endswith(".")
        assert not finding.hint


def test_each_check_can_fail(broken):
    kind, name, component = broken
    (check,) = [check for check in kit(kind).CHECKS if check.name == name]
    (finding,) = run([check], kit(kind).SUBJECT(component))
    assert finding.passed is False, finding
    assert finding.reason
    assert "\n" not in finding.reason
    assert finding.hint == check.hint
    assert len(finding.hint) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_no_check_goes_untried(kind, made):
    names = [check.name for check in kit(kind).CHECKS]
    assert len(set(names)) == len(names)
    of_every_kind = set(made["unlearner"].ANY_KIND)
    only_remarks = {"test_samples_are_unseen"}
    assert set(names) - of_every_kind - only_remarks == set(made[kind].BROKEN) - of_every_kind


def test_what_breaks_one_check_is_listed_with_the_hint_and_nothing_else(made):
    writes = next(broken for broken in made["unlearner"].BROKEN["task_is_untouched"] if broken.__name__ == "Doing")
    with pytest.raises(CheckFailed) as error:
        check_unlearner(writes)
    assert isinstance(error.value, AssertionError)
    assert isinstance(error.value, cutk.CutkError)
    count = len(kit("unlearner").CHECKS)
    lines = str(error.value).splitlines()
    assert lines[0] == f"The unlearner 'ascent' fails 1 of {count} checks:"
    assert lines[1].endswith("(task_is_untouched)")
    assert lines[2] == "    came: it writes to task.train.labels"
    assert lines[3].startswith("    mend: Write to copies")
    assert len(error.value.findings) == count


def test_what_rests_on_a_failed_check_is_not_judged(made):
    returns_weights = made["unlearner"].BROKEN["unlearn_returns_a_model"][0]
    assert "returned OrderedDict" in found(returns_weights, "unlearn_returns_a_model").reason
    after = found(returns_weights, "same_seed_gives_the_same")
    assert after.passed is None
    assert after.reason == "it needs what 'unlearn_returns_a_model' says"


def test_an_authors_error_is_shown_with_the_authors_own_line(made):
    misspelt = made["unlearner"].BROKEN["unlearn_returns_a_model"][-1]
    reason = found(misspelt, "unlearn_returns_a_model").reason
    assert reason.startswith("AttributeError: 'Sequential' object has no attribute 'fc9' (unlearners.py:")
    assert "lambda model: model.fc9" in reason


def test_an_option_without_a_default_has_to_be_given(made):
    ascent = made["unlearner"].Ascent

    class Demanding(ascent):
        """Wants to be told."""

        class Options(ascent.Options):
            """How far."""

            steps: int = cutk.option(ge=1, help="steps")

    findings = {finding.check: finding for finding in check_unlearner(Demanding)}
    assert findings["defaults_are_valid"].passed is None
    assert "give options={'steps': …}" in findings["defaults_are_valid"].reason
    assert findings["same_seed_gives_the_same"].passed is None
    assert all(finding.passed for finding in check_unlearner(Demanding, options={"steps": 2}))


def test_data_that_are_not_here_are_not_judged(made):
    findings = {finding.check: finding for finding in check_component(made["dataset"].Missing)}
    assert findings["load_returns_splits"].passed is None
    assert "--data-root" in findings["load_returns_splits"].reason
    assert findings["same_seed_gives_the_same"].passed is None


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [
        ("manipulation", "RefusesAll", "samples_are_manipulated"),
        ("identification", "RefusesAll", "samples_are_identified"),
    ],
)
def test_what_refuses_the_tiny_samples_is_not_judged(kind, name, check, made):
    finding = found(getattr(made[kind], name), check)
    assert finding.passed is None
    assert "I take no" in finding.reason


def test_an_observer_that_lacks_something_is_not_judged(made):
    finding = found(made["observer"].Lacking, "a_study_is_told")
    assert finding.passed is None
    assert finding.reason == "it lacks a library"


def test_test_samples_that_are_training_samples_are_remarked(made):
    noise = made["dataset"].noise
    component = made["dataset"].splits(train=noise(20), test=noise(10))
    finding = found(component, "test_samples_are_unseen")
    assert finding.passed
    assert finding.reason == "10 of 10 test samples are training samples as well"


def test_samples_found_anew_at_every_alpha_are_remarked(made):
    assert found(made["identification"].Some, "more_are_found_at_larger_alpha").reason == ""
    assert "curves against α vary more" in found(made["identification"].Anew, "more_are_found_at_larger_alpha").reason


def test_a_direction_that_cannot_be_judged_is_said_to_be_so(made):
    judging, compute = made["metric"].judging, made["metric"].Retained.compute
    assert found(judging(lambda _self, _evaluation: 0.5), "direction_is_honest").passed is None
    assert "bounds aren't 0 to 1" in found(judging(compute, bounds=(0.0, 2.0)), "direction_is_honest").reason
    inverted = judging(lambda _self, e: float((e.affected_predictions != e.truth.affected.labels).double().mean()))
    assert found(inverted, "direction_is_honest").passed is False
    inverted.higher_is_better = False
    assert found(inverted, "direction_is_honest").passed
    wrong = judging(compute, higher_is_better=False)
    with pytest.raises(CheckFailed, match="higher_is_better = False, and it says 1 for a perfect model, 0"):
        check_metric(wrong)


def test_a_model_may_refuse_some_samples(made):
    remark = found(made["model"].Colourful, "samples_become_logits").reason
    assert "needs images of 3 channels, got 1" in remark


def test_what_is_no_component_is_refused(made):
    for wrong in (int, "ascent", made["unlearner"].Ascent(), cutk.Options):
        with pytest.raises(cutk.UsageError, match="Expected a subclass of cutk"):
            examine(wrong)
    with pytest.raises(cutk.UsageError, match=r"Expected a subclass of cutk\.Unlearner, got .*Shift"):
        check_unlearner(made["manipulation"].Shift)


def test_each_kind_has_a_function_of_its_own(made):
    for name, one in made.items():
        assert f"check_{name}" in dir(cutk.testing)
        assert getattr(cutk.testing, f"check_{name}").__name__ == f"check_{name}"
        assert {component.kind for component in one.SOUND} == {name}
    assert check_metric(made["summary"].Best)  # which was a metric once
    with pytest.raises(AttributeError, match="has no attribute 'check_nothing'"):
        _ = cutk.testing.check_nothing


def test_a_new_kind_costs_its_file_alone(monkeypatch):
    class Gadget(cutk.components.Component):
        """Does nothing at all, in a sentence."""

        kind, name, required = "gadget", "mine", ()

    @check("Be useful.")
    def it_is_useful(subject):
        """It is useful."""
        assert subject.component is Gadget

    module, home = ModuleType("cutk.testing.gadgets"), ModuleType("gadgetry")
    module.CHECKS, module.SUBJECT, home.Gadget = (it_is_useful,), Subject, Gadget
    for each in (module, home):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    monkeypatch.setitem(KINDS, "gadget", Kind("gadget", "gadgets", home="gadgetry"))
    assert [finding.passed for finding in cutk.testing.check_gadget(Gadget)] == [True]
