"""``cutk presets``: what is listed, and a plan shown whole."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from cutk.plugins.registry import load_registry


def test_a_base_is_laid_under_and_may_have_a_base_itself(run, tmp_path):
    (tmp_path / "mine.toml").write_text('base = "other.toml"\nseeds = 2\n[recipe]\nsteps = 9\n')
    (tmp_path / "other.toml").write_text('base = "laptop/digits"\nseeds = [7]\nalphas = [1.0]\n[recipe]\nlr = 0.5\n')
    shown = run("presets", "show", "mine.toml")
    assert shown.code == 0, shown.err
    plan = tomllib.loads(shown.out)
    assert (plan["seeds"], plan["alphas"]) == (2, [1.0])
    assert plan["recipe"] == {"name": "sgd", "steps": 9, "lr": 0.5}
    assert plan["dataset"] == "digits"
    assert "base" not in plan
    # What is shown is a plan again, and the same one.
    (tmp_path / "shown.toml").write_text(shown.out)
    assert tomllib.loads(run("presets", "show", "shown.toml").out) == plan


def test_a_base_that_is_a_file_lies_beside_the_plan(run, tmp_path, error_of):
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "mine.toml").write_text('base = "other.toml"\nseeds = 2\n')
    (plans / "other.toml").write_text('base = "laptop/digits"\nalphas = [1.0]\n')
    (tmp_path / "other.toml").write_text('base = "laptop/digits"\nalphas = [0.5]\n')
    for name in ("plans/mine.toml", str(plans / "mine.toml")):
        shown = run("presets", "show", name)
        assert shown.code == 0, shown.err
        assert tomllib.loads(shown.out)["alphas"] == [1.0]
    (plans / "other.toml").write_text('base = "../plans/mine.toml"\n')
    assert "is its own base" in error_of(run("presets", "show", "plans/mine.toml"))
    (plans / "other.toml").write_text('base = "nowhere.toml"\n')
    assert "Plan 'plans/nowhere.toml' cannot be read" in error_of(run("presets", "show", "plans/mine.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "mine.toml"', "Plan 'mine.toml' is its own base, by way of: mine.toml → mine.toml."),
        ("base = 3", "expected base to be the name of a plan, got 3"),
        ('base = "laptop/digit"', "Unknown preset 'laptop/digit'. Did you mean 'laptop/digits'?"),
        ('base = "laptop/digits"\nseeds = 0', "seeds"),
        ('base = "laptop/digits"\nseeds = []', "Seeds: expected a number of seeds, or at least one of them, got none."),
        ('base = "laptop/digits"\n[options.ssd]\nselection_weight = "a"', "Option 'ssd.selection_weight'"),
        ('base = "laptop/digits"\n[recipe]\nsteps = 2.5', "Option 'sgd.steps'"),
        ('base = "laptop/digits"\n[recipe]\nname = "sdg"', "Unknown recipe 'sdg'. Did you mean 'sgd'?"),
        ('base = "laptop/digits"\nselect = "papr"', "Unknown selector 'papr'. Did you mean 'paper'?"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_a_line(run, tmp_path, error_of, text, message):
    (tmp_path / "mine.toml").write_text(text)
    for command in (("presets", "show", "mine.toml"), ("bench", "--preset", "mine.toml", "-u", "ssd")):
        assert message in error_of(run(*command))


def test_presets_are_listed_with_what_they_are_for(run):
    ran = run("presets", "list")
    assert ran.code == 0, ran.err
    for name in load_registry({"CUTK_PLUGINS": ""}).presets:
        assert name in ran.out
    assert "figure 2" in ran.out


def test_a_broken_preset_is_listed_as_broken(run, tmp_path, monkeypatch):
    (tmp_path / "bad.toml").write_text("not toml")
    registry = load_registry({"CUTK_PLUGINS": ""})
    registry.presets["bad"] = replace(registry.presets["default"], name="bad", path=tmp_path / "bad.toml")
    monkeypatch.setattr("cutk.plugins.registry.load_registry", lambda **_: registry)
    ran = run("presets", "list")
    assert ran.code == 0
    assert "broken: Plan" in ran.out
