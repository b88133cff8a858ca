from __future__ import annotations

from pathlib import Path

import pytest

from cutk.kinds import KINDS
from cutk.plugins.discovery import kinds_of, points

BROKEN = Path(__file__).parents[1] / "broken_plugins"


def test_built_ins_come_first_and_the_order_of_installation_means_nothing(monkeypatch):
    for name in ("healthy_twin", "healthy"):
        monkeypatch.syspath_prepend(str(BROKEN / name))
    found = [provider for provider, _ in points()]
    ours = [provider for provider in found if provider.distribution == "cutk"]
    assert found[: len(ours)] == ours
    assert [provider.entry_point for provider in ours] == sorted(provider.entry_point for provider in ours)
    others = [provider.distribution for provider in found[len(ours) :]]
    assert others == sorted(others)
    assert {"cutk-test-healthy", "cutk-test-healthy-twin"} <= set(others)


def test_an_entry_point_that_cannot_be_imported_is_found(monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN / "import_error"))
    assert "cutk-test-import-error:broken" in [str(provider) for provider, _ in points()]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("ssd", {"unlearner"}), ("sgd", {"recipe"}), ("paper", {"selector"}), ("alpha_star", {"summary"})],
)
def test_the_folder_says_of_which_kind_a_component_is(name, kinds):
    (point,) = [point for provider, point in points() if str(provider) == f"cutk:{name}"]
    assert kinds_of(point) == kinds


def test_a_module_in_no_such_folder_may_provide_anything(monkeypatch):
    monkeypatch.syspath_prepend(str(BROKEN / "healthy"))
    (point,) = [point for provider, point in points() if provider.distribution == "cutk-test-healthy"]
    assert kinds_of(point) == set(KINDS)
