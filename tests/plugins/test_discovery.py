from __future__ import annotations

from pathlib import Path

from cutk.plugins.discovery import entry_point_names

BROKEN = Path(__file__).parents[1] / "broken_plugins"


def test_entry_point_names_load_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN / "import_error"))
    assert {"broken", "ssd", "digits"} <= set(entry_point_names())


def test_names_are_of_the_kind_that_is_asked_for():
    assert {"sgd", "adamw"} <= set(entry_point_names("recipe"))
    assert "ssd" not in entry_point_names("recipe")
    assert {"paper", "validation", "product"} <= set(entry_point_names("selector"))
    # Summaries are asked for by --metric.
    assert {"retain_accuracy", "alpha_star"} <= set(entry_point_names("metric"))
    assert "retain_accuracy" not in entry_point_names("summary")


def test_a_name_whose_kind_is_not_known_is_offered_for_each(monkeypatch, tmp_path):
    folder = tmp_path / "third_party-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[cutk]\nmine = third_party.mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mine" in entry_point_names("unlearner")
    assert "mine" in entry_point_names("dataset")
    assert "digits" not in entry_point_names("unlearner")
