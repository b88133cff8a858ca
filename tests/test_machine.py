from __future__ import annotations

import pytest
import torch

import cutk
from cutk.machine import choose_device, choose_precision, choose_threads, describe_machine, repeatable


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


def test_of_a_gpu_what_decides_the_last_digits_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    described = describe_machine(torch.device("cuda"))
    assert (described["hardware"], described["capability"]) == ("a card", "sm_90, TF32 convolutions")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert describe_machine(torch.device("cuda"))["capability"] == "sm_75"


def test_a_gpu_is_told_to_convolve_the_same_way_each_time(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    repeatable(torch.device("cpu"))
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
    repeatable(torch.device("cuda"))
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)


def test_threads_are_as_many_as_pay_off_and_workers_leave(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert choose_threads(3, 0.0, sharing=100) == 3
    assert choose_threads("auto", 0.0) == choose_threads("auto", 1e9) == 1
    assert choose_threads("auto", 30e9) == 3
    assert choose_threads("auto", 1e15) == 8
    assert choose_threads("auto", 1e15, sharing=3) == 2
    assert choose_threads("auto", 1e15, sharing=100) == 1
