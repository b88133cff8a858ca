"""Plugins that are single files, and the version of the plugin API."""

from __future__ import annotations

import os
import random
import sys

import pytest
import torch

import cutk
from cutk.plugins.registry import load_registry

METHOD = """
import cutk

class Mine(cutk.Unlearner):
    "Returns the original."
    name = "mine"

    def unlearn(self, task, state=None):
        return task.original

@cutk.hookimpl
def cutk_unlearners():
    return [Mine]
"""
ALONE = {"CUTK_PLUGINS": ""}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_method.py"
    path.write_text(METHOD)
    return path


def test_a_file_is_a_plugin(file):
    entry = load_registry(ALONE, inline=[file]).get("unlearner", "mine")
    assert (entry.provider.distribution, entry.provider.entry_point) == ("inline", "my_method")
    again = load_registry(ALONE, inline=[str(file)]).get("unlearner", "inline:mine")
    assert again.component is entry.component


def test_a_changed_file_is_another_version(file):
    first = load_registry(ALONE, inline=[file]).get("unlearner", "mine")
    file.write_text(METHOD.replace("Returns", "Gives back"))
    second = load_registry(ALONE, inline=[file]).get("unlearner", "mine")
    assert first.provider.version != second.provider.version
    assert second.component.summary() == "Gives back the original."


def test_files_and_folders_may_stand_in_the_environment(file, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "other.py").write_text(METHOD.replace('"mine"', '"theirs"'))
    registry = load_registry({**ALONE, "CUTK_PLUGIN_PATH": os.pathsep.join([str(file), str(folder)])})
    assert registry.get("unlearner", "mine")
    assert registry.get("unlearner", "theirs")


def test_two_files_of_one_name_leave_the_first(file, tmp_path):
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / "my_method.py"
    twin.write_text(METHOD.replace('"mine"', '"theirs"'))
    registry = load_registry(ALONE, inline=[file, twin])
    assert registry.get("unlearner", "mine")
    assert [failure.reason for failure in registry.failures] == ["another plugin of this name is loaded already"]


def test_a_file_never_takes_the_name_of_a_built_in(file):
    file.write_text(METHOD.replace('"mine"', '"ssd"'))
    registry = load_registry(ALONE, inline=[file])
    assert registry.get("unlearner", "ssd").provider.distribution == "cutk"
    assert registry.get("unlearner", "inline:ssd").provider.distribution == "inline"


@pytest.mark.parametrize("missing", ["nowhere.py", "notes.txt"])
def test_a_file_that_is_not_there(run, tmp_path, missing):
    (tmp_path / "notes.txt").write_text("not Python")
    ran = run("bench", "-u", "ssd", "--plugin", missing)
    assert ran.code == 2
    assert ran.err == f"Error: Plugin '{missing}': expected a Python file, or a folder of such; there is none.\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import cutk\ndef broken(:\n", "SyntaxError: invalid syntax (bad.py, line 2) (bad.py:2: def broken(:)"),
        (
            "import surely_not_there",
            "ModuleNotFoundError: No module named 'surely_not_there' (bad.py:1: import surely_not_there)",
        ),
        ("raise SystemExit(3)", "it calls sys.exit(3) when imported"),
        ("class Odd(BaseException): pass\nraise Odd('no')", "Odd: no (bad.py:2: raise Odd('no'))"),
        ("x = 1", "it provides nothing: expected a hook such as cutk_unlearners with @cutk.hookimpl"),
        (METHOD + "CUTK_API = '2.7'", "it needs cutk's plugin API 2.7, and this cutk has 2.1. Update cutk."),
        (METHOD + "CUTK_API = '3.0'", "it needs cutk's plugin API 3.0, and this cutk has 2.1. Update cutk."),
        (METHOD + "CUTK_API = '0.9'", "it needs cutk's plugin API 0.9, and this cutk has 2.1. Update the plugin."),
        (METHOD + "CUTK_API = 1", "its CUTK_API is 1; expected a version such as '2.1'"),
    ],
)
def test_a_broken_file_is_named_in_a_line_and_the_rest_goes_on(tmp_path, source, reason):
    (tmp_path / "bad.py").write_text(source)
    registry = load_registry(ALONE, inline=[tmp_path / "bad.py"])
    assert [(str(failure.provider), failure.reason) for failure in registry.failures] == [("inline:bad", reason)]
    assert registry.get("unlearner", "ssd")
    with pytest.raises(cutk.UsageError) as error:
        registry.get("unlearner", "bad")
    assert str(error.value) == f"The plugin 'inline:bad' cannot be used: {reason}"


def test_a_broken_file_is_said_on_the_command_line(run, tmp_path):
    (tmp_path / "bad.py").write_text("x = 1")
    reason = "it provides nothing: expected a hook such as cutk_unlearners with @cutk.hookimpl"
    ran = run("bench", "-u", "ssd", "-d", "fake", "--plugin", "bad.py", "--dry-run")
    assert ran.code == 0
    assert ran.err == f"Warning: the plugin inline:bad is left out: {reason}\n"
    assert f"broken: {reason}" in " ".join(run("plugins", "list", "--plugin", "bad.py").out.split())


def test_a_file_of_a_folder_may_be_a_helper(tmp_path):
    (tmp_path / "helper.py").write_text("x = 1")
    (tmp_path / "mine.py").write_text(METHOD)
    registry = load_registry(ALONE, inline=[tmp_path])
    assert registry.failures == []
    assert registry.get("unlearner", "mine")


def test_a_plugin_for_the_first_api_is_taken_with_a_remark(file):
    file.write_text('CUTK_API = "1.0"\n' + METHOD)
    registry = load_registry(ALONE, inline=[file])
    assert registry.get("unlearner", "mine")
    assert [remark.reason for remark in registry.remarks] == [
        "it is written for cutk's plugin API 1.0; what 2.1 calls otherwise still works"
    ]


def test_a_plugin_that_asks_for_what_there_is(file):
    file.write_text(f"CUTK_API = {cutk.API_VERSION!r}\n" + METHOD)
    assert load_registry(ALONE, inline=[file]).failures == []


def test_the_first_hour_of_research(run, file):
    tiny = ("-d", "fake", "--alpha", "1", "--seeds", "1", "--recipe", "steps=10")
    ran = run("bench", "--plugin", file, "-u", "mine", *tiny, "--json")
    assert ran.code == 0, ran.err
    record = ran.json["records"][-1]
    assert record["unlearner"] == "mine"
    assert record["provider"].startswith("inline==")
    file.write_text(METHOD + "# changed\n")
    again = run("bench", "--plugin", file, "-u", "mine", *tiny)
    assert "original (read)" in again.err
    assert "mine at α = 1\n" in again.err  # computed: it isn't the method that it was
    shown = run("plugins", "show", "mine", "--plugin", file)
    assert "Returns the original." in shown.out


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import torch; torch.manual_seed(1)", "torch's random state"),
        ("import random; random.seed(1)", "Python's random state"),
        ("import torch; torch.set_num_threads(torch.get_num_threads() + 1)", "the number of threads"),
        ("import torch; torch.randperm = torch.arange", "torch.randperm"),
        ("import sys; sys.path.insert(0, 'elsewhere')", "the path of imports"),
    ],
)
def test_what_a_plugin_changes_when_it_is_loaded_is_named_and_put_back(file, line, what):
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.randperm, list(sys.path)
    file.write_text(f"{line}\n{METHOD}")
    registry = load_registry(ALONE, inline=[file])
    assert registry.get("unlearner", "mine")
    reason = f"it changes {what} when it is loaded, which was put back"
    assert [remark.reason for remark in registry.remarks] == [reason]
    after = torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.randperm, list(sys.path)
    assert torch.equal(after[0], before[0])
    assert after[1:] == before[1:]


def test_a_plugin_whose_options_collide_is_named(file):
    quiet = (
        "    import warnings\n"
        "    with warnings.catch_warnings():\n"
        "        warnings.simplefilter('ignore')\n"
        "        class Options(cutk.Options):\n"
        "            copy: int = cutk.option(1, help='collides')\n\n"
    )
    file.write_text(METHOD.replace("    def unlearn", quiet + "    def unlearn"))
    (failure,) = load_registry(ALONE, inline=[file]).failures
    assert failure.reason.startswith("'Mine' has the option 'copy', which every Options has")
