"""``cutk plugins check``: what it takes, what it says, and how it ends."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BROKEN = Path(__file__).parents[1] / "broken_plugins"
METHOD = """
import cutk

print("a greeting that is no result")

class Mine(cutk.Unlearner):
    "Returns the original."
    name = "mine"

    class Options(cutk.Options):
        steps: int = cutk.option(1, ge=1, help="steps")

    def unlearn(self, task, state=None):
        print("working hard")
        {line}
        return task.original

@cutk.hookimpl
def cutk_unlearners():
    return [Mine]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a plugin file into the working folder, which can be imported from, too."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name="my_method.py", line="pass", source=None):
        path = tmp_path / name
        path.write_text(METHOD.format(line=line) if source is None else source)
        return path

    return put


@pytest.fixture
def installed(monkeypatch):
    """Put folders of ``broken_plugins`` on the path, as if they were installed."""

    def put(*names):
        for name in names:
            monkeypatch.syspath_prepend(str(BROKEN / name))
        for module in [m for m in sys.modules if m.startswith("cutk_test_")]:
            monkeypatch.delitem(sys.modules, module)

    return put


def test_a_sound_file_passes(run, write):
    write()
    ran = run("plugins", "check", "my_method.py")
    assert ran.code == 0, ran.err
    assert "mine  (unlearner, inline " in ran.out
    assert re.search(r"\d+ hold, 0 fail, 0 not judged", ran.out)
    assert "It copes with a single identified sample" in ran.out
    assert "FAILS" not in ran.out
    for printed in ("a greeting that is no result", "working hard"):
        assert printed not in ran.out
        assert printed in ran.err


def test_what_fails_is_shown_with_how_to_mend_it(run, write):
    write(line="task.train.labels[0] += 1")
    ran = run("plugins", "check", "./my_method.py")
    assert ran.code == 1
    assert re.search(r"\d+ hold, 1 fail, 0 not judged", ran.out)
    (row,) = [line for line in ran.out.splitlines() if line.split()[:1] == ["FAILS"]]
    assert "Samples, labels" in row
    assert "it writes to task.train.labels" in row
    assert "Mend: Write to copies" in ran.out


def test_json_is_one_document(run, write):
    write(line="task.train.labels[0] += 1")
    ran = run("plugins", "check", "my_method.py", "--json")
    assert ran.code == 1
    document = ran.json
    assert document["passed"] is False
    assert document["failures"] == []
    (component,) = document["components"]
    assert (component["kind"], component["name"]) == ("unlearner", "mine")
    assert component["provider"].startswith("inline==")
    (failed,) = [finding for finding in component["findings"] if finding["passed"] is False]
    assert failed["check"] == "task_is_untouched"
    assert failed["hint"].startswith("Write to copies")


def test_a_module_is_checked_by_its_name(run, write):
    write("cutk_test_module.py")
    ran = run("plugins", "check", "cutk_test_module", "--json")
    assert ran.code == 0, ran.err
    assert [component["name"] for component in ran.json["components"]] == ["mine"]


def test_built_ins_are_checked_by_distribution_entry_point_and_module(run, registry):
    for target in ("cutk:none", "cutk_builtin.unlearners.none"):
        ran = run("plugins", "check", target, "--json")
        assert ran.code == 0, ran.err
        assert [component["name"] for component in ran.json["components"]] == ["none"]
    ran = run("plugins", "check", "cutk_builtin.selectors", "cutk:paper", "--json")
    names = [component["name"] for component in ran.json["components"]]
    assert sorted(names) == [entry.name for entry in registry.of_kind("selector")]


def test_a_distribution_is_checked(run, installed):
    installed("healthy", "import_error")
    ran = run("plugins", "check", "cutk-test-healthy", "--json")
    assert ran.code == 0, ran.out
    assert [component["name"] for component in ran.json["components"]] == ["healthy"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("import_error", "ModuleNotFoundError: No module named 'surely_not_there'"),
        ("raising_hook", "cutk_unlearners() raised RuntimeError: no licence found"),
        ("system_exit", "it calls sys.exit(3) when imported"),
    ],
)
def test_a_broken_plugin_fails_with_its_reason(run, installed, name, reason):
    installed(name)
    distribution = f"cutk-test-{name.replace('_', '-')}"
    ran = run("plugins", "check", distribution)
    assert ran.code == 1
    assert f"broken: {distribution}:" in ran.out
    assert reason in ran.out
    ran = run("plugins", "check", distribution, "--json")
    assert ran.code == 1
    assert reason in ran.json["failures"][0]["reason"]


def test_a_file_with_a_syntax_error_fails_with_its_reason(run, write):
    write(source="def (:")
    ran = run("plugins", "check", "my_method.py")
    assert ran.code == 1
    assert "broken: inline:my_method: SyntaxError" in ran.out


def test_a_file_without_a_hook_fails_with_what_was_expected(run, write):
    write("empty.py", source="import math\n")
    for target in ("empty.py", "empty"):
        ran = run("plugins", "check", target)
        assert ran.code == 1
        assert "broken: inline:empty: it provides nothing: expected a hook such as cutk_unlearners" in ran.out


PLANS = """
from pathlib import Path

import cutk

@cutk.hookimpl
def cutk_presets():
    return [Path(__file__).parent / "plans"]
"""


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ('summary = "mine"\nalphas = [0.5]\n', ""),
        ('unlearners = ["sssd"]\n', "Unknown unlearner 'sssd'. Did you mean 'ssd'?"),
        ("alphas = [2]\n", "expected a fraction above 0"),
        ("alphas = [", "cannot be read"),
    ],
)
def test_presets_are_checked_too(run, write, tmp_path, plan, reason):
    write("my_plans.py", source=f"{PLANS}# in {tmp_path}")  # same code is imported once
    (tmp_path / "plans" / "mine").mkdir(parents=True)
    (tmp_path / "plans" / "mine" / "small.toml").write_text(plan)
    ran = run("plugins", "check", "my_plans.py", "--json")
    assert ran.code == (1 if reason else 0)
    document = ran.json
    assert document["components"] == document["failures"] == []
    (preset,) = document["presets"]
    assert (preset["name"], preset["passed"]) == ("mine/small", not reason)
    assert reason in preset["reason"]
    told = run("plugins", "check", "my_plans.py").out
    assert ("cannot be run" in told) is bool(reason)
    assert "mine/small" in told


def test_presets_are_checked_beside_all_that_is_installed(run, write, tmp_path, monkeypatch):
    monkeypatch.setenv("CUTK_DISABLE", "cutk")
    write("my_plans.py", source=f"{PLANS}# in {tmp_path}")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "mine.toml").write_text("alphas = [0.5]\n")
    (preset,) = run("plugins", "check", "my_plans.py", "--json").json["presets"]
    assert preset == {"name": "mine", "passed": True, "reason": ""}


def test_presets_that_are_not_there_are_a_failure(run, write, tmp_path):
    write("my_plans.py", source=f"{PLANS}# in {tmp_path}")
    ran = run("plugins", "check", "my_plans.py")
    assert ran.code == 1
    assert f"expected a folder of presets, and '{tmp_path / 'plans'}' is none" in ran.out.replace("\n", "")
    (tmp_path / "plans").mkdir()
    ran = run("plugins", "check", "my_plans.py")
    assert ran.code == 1
    assert f"the folder of presets '{tmp_path / 'plans'}' has no plan (*.toml)" in ran.out.replace("\n", "")


def test_options_are_those_to_check_with(run, write):
    write(line="assert self.options.steps == 7")
    assert run("plugins", "check", "my_method.py").code == 1
    assert run("plugins", "check", "my_method.py", "-o", "mine.steps=7").code == 0
    for option, words in (
        ("mine.stepz=7", "Unknown option 'mine.stepz'"),
        ("mine.steps=x", "expected an integer ≥ 1, got 'x'"),
        ("yours.steps=7", "expected one of the components to check (mine), got 'yours'"),
        ("steps", "expected COMPONENT.NAME=VALUE, got 'steps'"),
    ):
        assert words in run("plugins", "check", "my_method.py", "-o", option).err


def test_a_target_that_is_no_plugin_is_refused_in_a_line(run, write, tmp_path, error_of):
    (tmp_path / "cutk-mine").mkdir()
    (tmp_path / "cutk-mine" / "pyproject.toml").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "my.method.py").touch()
    for target, words in (
        ("not_there.py", "'not_there.py': expected a Python file"),
        ("cutk-tset-healthy", "'cutk-tset-healthy' is no plugin: expected an installed distribution"),
        ("cut", "Did you mean 'cutk'?"),
        ("numpy", "The distribution 'numpy' is installed and no plugin"),
        ("package", "'package' is no plugin"),
        ("json.decoder", "'json.decoder' is no plugin"),
        ("cutk-mine", "install it with 'pip install -e cutk-mine', and give its name"),
        ("my.method", "Did you mean the file './my.method.py'?"),
        ("", "'' is no plugin"),
        ("..", "'..' is no plugin"),
    ):
        assert words in error_of(run("plugins", "check", target)), target


def test_one_target_that_is_not_there_stops_all_before_anything_is_checked(run, write):
    write(line="raise SystemExit(7)")
    assert "'nothing' is no plugin" in run("plugins", "check", "my_method.py", "nothing").err.splitlines()[-1]
