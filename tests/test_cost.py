from __future__ import annotations

import os

import pytest
import torch

import cutk
from cutk.cost import measured


def test_costs_add_up_by_hand():
    prepared = cutk.Cost(1.0, passes=2.0, peak_bytes=50, kept_bytes=30)
    # While unlearning takes 40 at most, the 30 of the prepared state are there as well.
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=40) == cutk.Cost(1.5, 3.0, 70, 30)
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=10) == cutk.Cost(1.5, 3.0, 50, 30)
    assert prepared + cutk.Cost(0.5) == cutk.Cost(1.5, None, 50, 30)
    assert cutk.Cost(1.0) + cutk.Cost(1.0) == cutk.Cost(2.0)


def test_a_cost_is_added_to_costs_alone():
    with pytest.raises(TypeError):
        cutk.Cost(1.0) + 1


def test_what_was_not_measured_adds_nothing():
    assert cutk.Cost(1.0) + cutk.Cost(2.0, passes=1.0, peak_bytes=7) == cutk.Cost(3.0, None, 7, 0)


def test_a_computation_is_timed_and_its_result_returned():
    result, cost = measured(torch.device("cpu"), lambda: 5)
    assert result == 5
    assert cost.seconds >= 0
    assert cost.passes is None
    assert cost.peak_bytes is None or cost.peak_bytes > 0
    assert cost.kept_bytes >= 0


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's account of memory")
def test_memory_is_what_was_needed_beyond_what_was_in_use():
    held = []
    size = 2**26

    def work(keep):
        block = torch.ones(size, dtype=torch.uint8)
        if keep:
            held.append(block)

    _, passing = measured(torch.device("cpu"), lambda: work(False))
    _, kept = measured(torch.device("cpu"), lambda: work(True))
    # Pages are counted, and others of the process may come and go.
    assert size * 0.9 < passing.peak_bytes < size * 1.5
    assert passing.kept_bytes < size * 0.5
    assert kept.kept_bytes > size * 0.9


def test_where_the_kernel_keeps_no_account_there_is_no_measurement(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("cutk.cost.Path.write_text", refuse)
    assert measured(torch.device("cpu"), int)[1].peak_bytes is None


def test_an_error_passes():
    with pytest.raises(ZeroDivisionError):
        measured(torch.device("cpu"), lambda: 1 / 0)
