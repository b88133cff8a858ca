from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.testing.findings import NotJudged
from cutk.testing.states import difference


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.0]}, ""),
        ({"a": [1, 2.0]}, {"a": [1, 3.0]}, "it['a'][1]"),
        ({"a": 1}, {"b": 1}, "it"),
        ([1], [1, 2], "it"),
        (1, 1.0, "it"),
        (float("nan"), float("nan"), ""),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), ""),
        (torch.zeros(2), torch.zeros(2).double(), "it"),
        (np.zeros(2), np.ones(2), "it"),
        (cutk.Cost(1.0), cutk.Cost(2.0), "it[0]"),
        (cutk.Normalisation((0.0,), (1.0,)), cutk.Normalisation((0.0,), (2.0,)), "it.std[0]"),
        (nn.Linear(1, 1, bias=False).requires_grad_(False), nn.Linear(1, 1), "it"),
        (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1), "it"),
    ],
)
def test_differences_are_found_where_they_are(first, second, where):
    assert difference(first, second, "it") == where


def test_what_cannot_be_compared_is_not_judged():
    with pytest.raises(NotJudged, match="of type generator, which can't be compared"):
        difference(iter_of(1), iter_of(1))
    loop: list[object] = []
    loop.append(loop)
    other: list[object] = []
    other.append(other)
    assert difference(loop, other) == ""


def iter_of(*values):
    yield from values
