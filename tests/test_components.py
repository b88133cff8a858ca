"""The base classes: what they say of themselves, and what plugins for the API 1.0 may still call otherwise."""

from __future__ import annotations

import pytest
import torch

import cutk
from cutk.components import Component
from cutk.kinds import KINDS, asked_as


def test_a_kind_is_where_the_table_says_it_is():
    for kind in KINDS.values():
        assert issubclass(kind.base, Component)
        assert kind.base.kind == kind.name
        assert kind.base.required or kind.name == "observer"  # which hears what it wants to
        assert kind.hook == f"cutk_{kind.plural}"
        assert getattr(cutk, kind.base.__name__) is kind.base
    assert [KINDS[name].option for name in ("recipe", "selector", "summary")] == ["--recipe", "--select", "--metric"]
    assert [kind.name for kind in asked_as("metric")] == ["metric", "summary"]
    assert [kind.name for kind in asked_as("summary")] == ["summary"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_author_must_write_says_so(kind):
    base = KINDS[kind].base
    for method in base.required:
        nothing = [None] * (getattr(base, method).__code__.co_argcount - 1)
        with pytest.raises(NotImplementedError, match=rf"has no {method}\(\)"):
            getattr(base(), method)(*nothing)


def samples(count=4):
    pixels = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    return cutk.Samples(pixels, torch.arange(count) % 3, ("a", "b", "c"))


def test_what_a_corruption_was_told_before_is_understood():
    mark = cutk.Stamp(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.ones(2, 2))
    chosen = torch.tensor([1, 3])
    with pytest.warns(DeprecationWarning, match="is called") as said:
        old = cutk.Corruption(samples(), chosen, stamp=mark, affected_classes=(0, 1), target=2)
    assert [str(warning.message).partition(" since")[0] for warning in said] == [
        "Corruption(stamp=…) is called overlays",
        "Corruption(affected_classes=…) is called affected",
        "Corruption(target=…) is called targets",
    ]
    assert [(trigger, indices.tolist()) for trigger, indices in old.overlays] == [(mark, [1, 3])]
    assert (old.affected, old.targets) == ((0, 1), (2, 2, 2))
    new = cutk.Corruption(samples(), chosen, targets=cutk.Corruption.all_to_one(2, 3))
    assert (new.overlays, new.affected, new.targets) == ((), None, (2, 2, 2))


@pytest.mark.parametrize(
    ("name", "instead"), [("Images", "cutk.Samples"), ("Breakdown", "cutk.Metric"), ("layers", "cutk.last_layers")]
)
def test_names_of_the_first_api_still_work_and_say_what_to_use(name, instead):
    assert name not in cutk.__all__
    for _ in range(2):  # at every use, and not at the first alone
        with pytest.warns(DeprecationWarning, match=rf"cutk\.{name} is deprecated since cutk 0\.2: use {instead}"):
            assert callable(getattr(cutk, name))


def test_a_name_that_is_imported_and_used_says_so_once():
    with pytest.warns(DeprecationWarning, match="Images") as said:
        from cutk import Images
    assert len(said) == 1
    assert Images(samples().x, samples().labels, ("a", "b", "c")).classes == ("a", "b", "c")
