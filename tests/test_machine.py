from __future__ import annotations

import pytest
import torch

import cutk
from cutk.machine import choose_device, choose_precision, choose_threads, describe_machine


def test_precision_is_chosen_by_asking_the_machine(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert choose_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    assert choose_precision("auto", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"
    with pytest.raises(cutk.UsageError, match="expected one of auto, fp32, bf16, got 'half'"):
        choose_precision("half", cpu)


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(cutk.UsageError, match="Device 'warp' cannot be used here") as error:
        choose_device("warp")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "meant"), [("gpu", "cuda"), ("CPU", "cpu"), ("cuda0", "cuda")])
def test_a_device_that_is_called_otherwise(name, meant):
    with pytest.raises(cutk.UsageError, match=f"expected auto, cpu, cuda, .*Did you mean '{meant}'") as error:
        choose_device(name)
    assert "\n" not in str(error.value)


def test_the_machine_is_described_in_plain_values():
    described = describe_machine(torch.device("cpu"))
    assert described["threads"] == torch.get_num_threads()
    assert described["capability"] == torch.backends.cpu.get_cpu_capability()
    assert all(isinstance(value, str | int) for value in described.values())


def test_threads_are_as_many_as_pay_off_and_workers_leave(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert choose_threads(3, 0.0, sharing=100) == 3
    assert choose_threads("auto", 0.0) == choose_threads("auto", 1e9) == 1
    assert choose_threads("auto", 30e9) == 3
    assert choose_threads("auto", 1e15) == 8
    assert choose_threads("auto", 1e15, sharing=3) == 2
    assert choose_threads("auto", 1e15, sharing=100) == 1
