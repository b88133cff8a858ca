"""Discovery and isolation, on checked-in distributions that are broken each in its own way."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

import cutk
from cutk.plugins.registry import load_registry

BROKEN = Path(__file__).parents[1] / "broken_plugins"


@pytest.fixture
def with_distributions(monkeypatch):
    """Put the named folders of ``broken_plugins`` on the path, as if they were installed."""

    def put(*names):
        for name in names:
            assert (BROKEN / name).is_dir(), name
            monkeypatch.syspath_prepend(str(BROKEN / name))
        for module in [m for m in sys.modules if m.startswith("cutk_test_")]:
            del sys.modules[module]

    return put


def names(registry, kind="unlearner"):
    return [entry.name for entry in registry.of_kind(kind)]


BUILT_IN = ["badt", "cf", "neggrad-plus", "none", "potion", "relabel", "rewod", "scrub", "seal", "ssd"]

REASONS = {
    "import_error": "ModuleNotFoundError: No module named 'surely_not_there'",
    "system_exit": "it calls sys.exit(3) when imported",
    "wrong_signature": "can not be found in the hookspec",
    "misspelt_hook": "unknown hook 'cutk_unlearner'",
    "raising_hook": "cutk_unlearners() raised RuntimeError: no licence found",
    "wrong_type": "'NotAnUnlearner' is no subclass of cutk.Unlearner",
    "bad_name": "'BadName' has the name 'Bad Name!'; expected lower-case letters, digits, - and _",
    "not_a_list": "cutk_unlearners() raised TypeError: expected a list, got type",
    "no_method": "'Lazy' does not override unlearn()",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_broken_plugin_fails_alone_and_says_why(with_distributions, name):
    with_distributions(name, "healthy")
    registry = load_registry({})
    assert set(BUILT_IN) | {"healthy"} <= set(names(registry))
    (failure,) = [f for f in registry.failures if f.provider.distribution == f"cutk-test-{name.replace('_', '-')}"]
    assert REASONS[name] in failure.reason
    assert "\n" not in failure.reason
    assert failure.provider.version == "1.0"


def test_all_broken_plugins_together_still_leave_the_rest(with_distributions):
    with_distributions(*REASONS, "healthy")
    registry = load_registry({})
    assert len([f for f in registry.failures if f.provider.distribution.startswith("cutk-test-")]) == len(REASONS)
    assert set(BUILT_IN) | {"healthy"} <= set(names(registry))


def test_an_error_at_import_keeps_its_traceback(with_distributions):
    with_distributions("import_error")
    (failure,) = [f for f in load_registry({}).failures if "import-error" in f.provider.distribution]
    assert "surely_not_there" in failure.traceback
    assert "Traceback" in failure.traceback


def test_strict_raises_the_first_failure(with_distributions):
    with_distributions("import_error")
    with pytest.raises(ModuleNotFoundError):
        load_registry({"CUTK_STRICT": "1"})
    assert load_registry({"CUTK_STRICT": "0"}).failures


def test_strict_turns_an_exit_into_an_error(with_distributions):
    with_distributions("system_exit")
    with pytest.raises(RuntimeError, match=r"calls sys.exit"):
        load_registry({"CUTK_STRICT": "1"})


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Write a distribution with one plugin, as if it were installed."""

    def put(source, name="cutk_test_odd", metadata=True, entry_points=None):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        if metadata:
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points or f"[cutk]\nodd = {name}\n")
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))

    return put


METRIC = """
    import cutk

    class Odd(cutk.Metric):
        "Odd."
        name = "odd"
        {line}

        def compute(self, evaluation):
            return 1.0

    @cutk.hookimpl
    def cutk_metrics():
        return [Odd]
"""
UNLEARNER = """
    import cutk

    class Odd(cutk.Unlearner):
        "Odd."
        name = "odd"
        {line}

        def unlearn(self, task, state=None):
            return task.original

    @cutk.hookimpl
    def cutk_unlearners():
        return [Odd]
"""
PRESETS = """
    import cutk

    @cutk.hookimpl
    def cutk_presets():
        return [None]
"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PRESETS, "cutk_presets() provides None, which cannot be used: TypeError"),
        (METRIC.format(line="bounds = None"), "has the bounds None; expected two numbers"),
        (METRIC.format(line="bounds = (1, 0)"), "has the bounds (1, 0)"),
        (METRIC.format(line="higher_is_better = 'yes'"), "has higher_is_better = 'yes'"),
        (METRIC.format(line="objective = 'glory'"), "has the objective 'glory'"),
        (METRIC.format(line="required = 5"), "which cannot be used: TypeError"),
        (UNLEARNER.format(line="grid = 5"), "has the grid 5; expected a mapping"),
        (UNLEARNER.format(line="grid = {'lr': 3}"), "expected a list of values for each option"),
        (UNLEARNER.format(line="grid = {'lr': [1.0]}"), "names the option 'lr' in grid, which it doesn't have"),
        (UNLEARNER.format(line="prepared_by = ('x',)"), "names the option 'x' in prepared_by, which it doesn't have"),
        (UNLEARNER.format(line="surveyed_by = ('x',)"), "names the option 'x' in surveyed_by, which it doesn't have"),
    ],
)
def test_an_odd_component_is_refused_and_breaks_nothing(installed, source, reason):
    installed(source)
    registry = load_registry({})
    assert names(registry)[: len(BUILT_IN)] == BUILT_IN
    (failure,) = [f for f in registry.failures if f.provider.distribution == "cutk-test-odd"]
    assert reason in failure.reason


@pytest.mark.parametrize(
    "remains", [{"metadata": False}, {"entry_points": "[cutk\nnonsense"}], ids=["no metadata", "no entry points"]
)
def test_what_is_left_of_a_package_breaks_nothing(installed, remains):
    installed(UNLEARNER.format(line=""), **remains)
    assert set(BUILT_IN) <= set(names(load_registry({})))


def test_the_name_of_a_built_in_stays_its_own_where_it_is_left_out(with_distributions):
    with_distributions("usurper")
    registry = load_registry({"CUTK_DISABLE": "cutk:ssd"})
    assert "ssd" not in names(registry)
    (taken,) = [name for name in names(registry) if name.endswith(":ssd")]
    with pytest.raises(cutk.UsageError, match=f"built-in unlearner 'ssd' is left out here. There is '{taken}' as well"):
        registry.get("unlearner", "ssd")


def test_show_says_why_a_name_cannot_be_shown(with_distributions):
    with_distributions("healthy", "healthy_twin", "import_error")
    registry = load_registry({})
    with pytest.raises(cutk.UsageError, match="is provided twice"):
        registry.find("healthy")
    with pytest.raises(cutk.UsageError, match="cannot be used"):
        registry.find("broken")


def test_a_newcomer_never_takes_the_name_of_a_built_in(with_distributions):
    with_distributions("usurper")
    registry = load_registry({})
    assert registry.get("unlearner", "ssd").provider.distribution == "cutk"
    assert registry.get("unlearner", "cutk-test-usurper:ssd").provider.distribution == "cutk-test-usurper"
    assert "cutk-test-usurper:ssd" in names(registry)


def test_two_third_parties_with_one_name_are_both_named(with_distributions):
    with_distributions("healthy", "healthy_twin")
    registry = load_registry({})
    with pytest.raises(cutk.UsageError) as error:
        registry.get("unlearner", "healthy")
    assert str(error.value) == (
        "The unlearner name 'healthy' is provided twice. "
        "Say which: 'cutk-test-healthy:healthy' or 'cutk-test-healthy-twin:healthy'."
    )
    for distribution in ("cutk-test-healthy", "cutk-test-healthy-twin"):
        entry = registry.get("unlearner", f"{distribution}:healthy")
        assert entry.provider.distribution == distribution


def test_plugins_can_be_disabled(with_distributions):
    with_distributions("healthy", "import_error")
    assert "healthy" not in names(load_registry({"CUTK_DISABLE": "cutk-test-healthy"}))
    assert "healthy" not in names(load_registry({"CUTK_DISABLE": "x, Cutk_Test.Healthy:healthy"}))
    assert "healthy" in names(load_registry({"CUTK_DISABLE": "cutk-test-healthy:other"}))
    assert "ssd" not in names(load_registry({"CUTK_DISABLE": "cutk:ssd"}))


def test_an_allow_list_lets_in_the_built_ins_and_what_it_names(with_distributions):
    with_distributions("healthy", "healthy_twin")
    assert names(load_registry({"CUTK_PLUGINS": ""})) == BUILT_IN
    assert "healthy" in names(load_registry({"CUTK_PLUGINS": "cutk-test-healthy"}))


def test_what_a_plugin_prints_does_not_reach_stdout(with_distributions, capsys):
    with_distributions("chatty")
    assert not [f for f in load_registry({}).failures if "chatty" in f.provider.distribution]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "thank you for importing me" in captured.err
    assert "and for asking me" in captured.err


def test_an_unknown_name_gets_a_suggestion(registry):
    with pytest.raises(cutk.UsageError) as error:
        registry.get("unlearner", "sdd")
    assert str(error.value) == "Unknown unlearner 'sdd'. Did you mean 'ssd'? See: cutk plugins list"


def test_asking_for_a_broken_plugin_says_that_it_is_broken(with_distributions):
    with_distributions("import_error")
    with pytest.raises(cutk.UsageError, match=r"cutk-test-import-error:broken' cannot be used: ModuleNotFoundError"):
        load_registry({}).get("unlearner", "broken")


def test_a_variant_is_named_after_a_colon(registry):
    entry = registry.get("model", "torchvision:resnet18")
    assert entry.name == "torchvision:resnet18"
    assert entry.given == {"architecture": "resnet18"}
    assert entry.family == "torchvision"
    assert registry.get("model", "cutk:torchvision:resnet18").given == entry.given
    assert registry.get("dataset", "arrays:./a:b.npz").given == {"file": "./a:b.npz"}
    for name in ("torchvision:", "resnet9:wide"):
        with pytest.raises(cutk.UsageError, match="Unknown model"):
            registry.get("model", name)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("unlearner", "ssd,rewod", "Give each by itself: --unlearner ssd --unlearner rewod"),
        ("dataset", "digits, fake", "One dataset is expected, not several."),
        ("unlearner", "SSD", "Did you mean 'ssd'? See: cutk plugins list"),
        ("model", "vgg11_bn", "Did you mean 'timm:vgg11_bn' or 'torchvision:vgg11_bn'?"),
        ("model", "resnet18", "Did you mean 'timm:resnet18' or 'torchvision:resnet18'?"),
        ("metric", "alpha_sta", "Did you mean 'alpha_star'? See: cutk plugins list"),
    ],
)
def test_what_may_have_been_meant(registry, kind, name, said):
    with pytest.raises(cutk.UsageError) as error:
        registry.get(kind, name)
    assert str(error.value) == f"Unknown {kind} '{name}'. {said}"


def test_a_summary_is_asked_for_as_a_metric(registry):
    entry = registry.get("metric", "alpha_star")
    assert entry.kind == "summary"
    assert registry.get("summary", "alpha_star") == entry
    assert registry.find("alpha_star") == [entry]
    with pytest.raises(cutk.UsageError, match="Unknown summary 'corrected_accuracy'"):
        registry.get("summary", "corrected_accuracy")


SUMMARY = """
    import cutk

    class Odd(cutk.Summary):
        "Odd."
        name = "odd"
        of = ("retain_accuracy",)

        def summarise(self, curve):
            return 1.0

    @cutk.hookimpl
    def cutk_metrics():
        return [Odd]
"""
BREAKDOWN = """
    import warnings
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        from cutk import Breakdown
    import cutk

    class Odd(Breakdown):
        "Odd."
        name = "odd"

        def breakdown(self, evaluation):
            return {"a": 1.0}

    @cutk.hookimpl
    def cutk_metrics():
        return [Odd]
"""


def test_a_summary_from_the_hook_of_metrics_is_taken_as_one(installed):
    installed(SUMMARY)
    registry = load_registry({})
    assert [f.reason for f in registry.failures if f.provider.distribution == "cutk-test-odd"] == []
    assert registry.get("metric", "odd").kind == "summary"


def test_a_breakdown_is_a_metric_that_returns_its_values(installed):
    installed(BREAKDOWN)
    entry = load_registry({}).get("metric", "odd")
    assert entry.component().compute(None) == {"a": 1.0}
    installed(BREAKDOWN.replace("breakdown(self", "compute_it(self"), name="cutk_test_lazy")
    (failure,) = [f for f in load_registry({}).failures if f.provider.distribution == "cutk-test-lazy"]
    assert failure.reason == "'Odd' does not override breakdown()"


def test_a_module_without_a_hook_is_named(installed):
    installed(METRIC.format(line="").replace("@cutk.hookimpl", ""))
    (failure,) = [f for f in load_registry({}).failures if f.provider.distribution == "cutk-test-odd"]
    assert failure.reason == "it provides nothing: expected a hook such as cutk_unlearners with @cutk.hookimpl"
