"""``cutk plugins list`` and ``show``."""

from __future__ import annotations

from pathlib import Path

import pytest

import cutk
from cutk.kinds import KINDS

BROKEN = Path(__file__).parents[1] / "broken_plugins"


def test_the_list_names_every_component_by_kind(run, registry):
    ran = run("plugins", "list")
    assert ran.code == 0
    for text in ("Kind", "Status", f"cutk {cutk.__version__}", "ok"):
        assert text in ran.out
    rows = [line.split()[:2] for line in ran.out.splitlines()]
    for kind in KINDS:
        for entry in registry.of_kind(kind):
            assert [kind, entry.name] in rows


def test_what_a_component_is_told_is_shown(run, error_of):
    shown = run("plugins", "show", "ssd").out
    for text in (
        *("Foster et al.", "selection_weight", "a number > 0", "10.0", "Search grid: 50 points"),
        "selection_weight 10 with dampening 1, 5, 10, 50, 100",
    ):
        assert text in shown
    assert "lower is better" in run("plugins", "show", "attack_success_rate").out
    assert "higher is better" in run("plugins", "show", "retain_accuracy").out
    assert "Range: 0 to 1" in run("plugins", "show", "alpha_star").out
    assert "It takes no options." in run("plugins", "show", "none").out
    assert "momentum" in run("plugins", "show", "sgd").out
    assert "validation accuracy" in run("plugins", "show", "paper").out
    assert "Did you mean 'ssd'?" in error_of(run("plugins", "show", "sdd"))


CLASHING = """
import cutk


class Method(cutk.Unlearner):
    "A method."
    name = "twice"

    def unlearn(self, task, state=None):
        return task.original


class Rule(cutk.Selector):
    "A rule."
    name = "twice"

    def value(self, score):
        return 0.0


@cutk.hookimpl
def cutk_unlearners():
    return [Method]


@cutk.hookimpl
def cutk_selectors():
    return [Rule]
"""


def test_a_name_of_several_kinds_is_shown_for_each(run, tmp_path, error_of):
    (tmp_path / "clashing.py").write_text(CLASHING)
    both = run("plugins", "show", "twice", "--plugin", "clashing.py").out
    assert "(unlearner, inline" in both
    assert "(selector, inline" in both
    one = run("plugins", "show", "twice", "--kind", "selector", "--plugin", "clashing.py").out
    assert "A rule." in one
    assert "A method." not in one
    refused = run("plugins", "show", "twice", "--kind", "metric", "--plugin", "clashing.py")
    assert "Unknown metric 'twice'" in error_of(refused)


def test_a_broken_plugin_shows_in_the_list_and_hurts_nobody(run, monkeypatch):
    for name in ("import_error", "system_exit"):
        monkeypatch.syspath_prepend(str(BROKEN / name))
    monkeypatch.setenv("CUTK_PLUGINS", "cutk-test-import-error,cutk-test-system-exit")
    ran = run("plugins", "list")
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert "broken: ModuleNotFoundError" in flat
    assert "broken: it calls sys.exit(3) when" in flat
    assert "cutk-test-import-error 1.0" in flat
    assert run("bench", "-d", "fake", "-u", "none", "--dry-run").code == 0
    assert run("--help").code == 0


def test_a_method_with_a_detector_before_it_is_shown_with_the_options_of_both(run):
    ran = run("plugins", "show", "ssd+seeded-probe")
    assert ran.code == 0
    assert all(word in ran.out for word in ("selection_weight", "detector_penalty", "seeded-probe"))
    assert "Unknown detector 'nobody'" in run("plugins", "show", "ssd+nobody").err
    assert "Unknown component 'badnet+sig'" in run("plugins", "show", "badnet+sig").err


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_the_list_of_components_fits_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    ran = run("plugins", "list")
    assert max(map(len, ran.out.splitlines())) <= int(columns)
    assert "corrected_accuracy" in ran.out


GRIDS = """
import cutk


class Method(cutk.Unlearner):
    "A method."
    name = "{name}"
    grid = {grid}

    class Options(cutk.Options):
        lr: float = cutk.option(0.1, gt=0, help="rate")
        layers: list[int] = cutk.option([1], help="which")

    def unlearn(self, task, state=None):
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Method]
"""


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ([{}, {"lr": 0.5}], "lr by default"),
        ([{"layers": [1, 2], "lr": 0.1}, {"layers": [3], "lr": 0.1}], "layers [1, 2] with lr 0.1"),
    ],
)
def test_any_grid_is_shown(run, tmp_path, grid, line):
    (tmp_path / "own.py").write_text(GRIDS.format(name="own-grid", grid=grid))
    ran = run("plugins", "show", "own-grid", "--plugin", "own.py")
    assert ran.code == 0, ran.err
    assert "Search grid: 2 points" in ran.out
    assert line in ran.out
