from __future__ import annotations

from typing import ClassVar

import pytest

import cutk
from cutk.plugins.checks import problem_with, require_libraries


def test_what_is_no_component_is_described():
    assert problem_with(3, "metric") == "expected a subclass of cutk.Metric, got the int 3"

    class Gold(cutk.Unlearner):
        name = "gold"

    assert problem_with(Gold, "unlearner") == "'Gold' has the name 'gold', which is reserved"

    class BadOptions(cutk.Unlearner):
        name = "bad-options"
        Options = dict

    assert problem_with(BadOptions, "unlearner") == "'BadOptions.Options' is no subclass of cutk.Options"

    class HalfSummary(cutk.Summary):
        name = "half"

        def compute(self, evaluation):
            return 1.0

    assert problem_with(HalfSummary, "summary") == "'HalfSummary' does not override summarise()"


def test_a_variant_has_to_be_an_option():
    class Family(cutk.Model):
        """Varies."""

        name = "family"
        variant = "architecture"

        def build(self, shape, num_classes):
            return None

    assert "names the option 'architecture', which it doesn't have" in problem_with(Family, "model")


def test_a_selector_measures_what_there_is():
    class Odd(cutk.Selector):
        """Odd."""

        name = "odd"
        measures = ("test_accuracy",)

        def value(self, score):
            return 0.0

    assert problem_with(Odd, "selector") == "'Odd' measures 'test_accuracy'; expected fields of cutk.Score"


@pytest.mark.parametrize(
    ("kind", "base", "method", "attribute", "what"),
    [
        ("unlearner", cutk.Unlearner, "unlearn", "prepared_by", "options"),
        ("unlearner", cutk.Unlearner, "unlearn", "surveyed_by", "options"),
        ("selector", cutk.Selector, "value", "measures", "fields of cutk.Score"),
        ("summary", cutk.Summary, "summarise", "of", "metrics"),
    ],
)
@pytest.mark.parametrize("names", ["steps", ("steps", 3), {"steps"}, None])
def test_names_are_listed_and_no_text_is_taken_for_its_letters(kind, base, method, attribute, what, names):
    careless = type("Careless", (base,), {"name": "careless", attribute: names, method: lambda *_: 0.0})
    said = f"'Careless' has {attribute} = {names!r}; expected the names of {what}, as in {attribute} = ('name',)"
    assert problem_with(careless, kind) == said


class Demanding(cutk.Detector):
    """Needs what there is."""

    name = "demanding"
    libraries: ClassVar = {"torch": "torch", "torch.nn": "torch"}

    def detect(self, task):
        return None


def test_a_library_is_a_module_and_what_to_install():
    assert problem_with(Demanding, "detector") is None

    class Vague(Demanding):
        libraries = ("torch",)

    said = "'Vague' has libraries = ('torch',); expected a mapping from modules to what to install"
    assert problem_with(Vague, "detector") == said


@pytest.mark.parametrize("module", ["surely_not_there", "surely_not_there.inner", "cutk.surely_not_there"])
def test_a_library_that_is_missing_is_named_with_what_to_install(module):
    require_libraries(Demanding)

    class Lacking(Demanding):
        libraries: ClassVar = {**Demanding.libraries, module: "mine[more]"}

    with pytest.raises(cutk.UsageError) as error:
        require_libraries(Lacking)
    assert str(error.value) == f"The detector 'demanding' needs {module}. Install it: pip install 'mine[more]'"
