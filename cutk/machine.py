"""Asking the machine: which device, which precision, and what to write down about both."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from cutk.errors import UsageError, suggestion

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        meant = suggestion("cuda" if name.casefold() == "gpu" else name, ("auto", "cpu", "cuda", "mps"))
        expected = "expected auto, cpu, cuda, cuda:1 or mps"
        raise UsageError(f"Device '{name}' cannot be used here: {expected}.{meant}") from None
    try:
        torch.zeros(1, device=device).item()  # which a device without memory of its own ("meta") can't give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Device '{name}' cannot be used here ({reason}). Try --device cpu, or auto.") from None
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the machine multiplies it in hardware.

    The machine's capabilities are asked, not its speed: a stopwatch could answer differently the next time, and then
    the same command would give other numbers. See ``benchmarks/speed.py``, for the layout of memory too.
    """
    if name not in PRECISIONS:
        raise UsageError(f"Precision: expected one of {', '.join(PRECISIONS)}, got '{name}'.")
    if name != "auto":
        return name
    fast = False
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if fast else "fp32"


def processors() -> int:
    """Return how many processors this process may run on: containers and schedulers let it have some of them alone.

    Where the system can't tell, all that there are.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Floating-point operations of a training step for each thread that computes it. With fewer, waking the thread costs
# more than it helps, and many times more where another process wants the same processors.
_WORTH_A_THREAD = 8e9


def choose_threads(asked: int | str, work: float, sharing: int = 1) -> int:
    """Return how many threads compute: as many as ``asked``, or for ``auto`` as many as pay off.

    The number decides the last bits of a result, so it follows from the machine and from the ``work`` of a training
    step, in floating-point operations, and from no stopwatch. So many workers are ``sharing`` the machine.
    """
    if asked != "auto":
        return int(asked)
    return max(1, min(int(work // _WORTH_A_THREAD), torch.get_num_threads() // sharing))


def choose_layout(device: torch.device) -> torch.memory_format:
    """Return the memory layout in which ``device`` convolves fastest: channels last for oneDNN and tensor cores."""
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.channels_last if fast else torch.contiguous_format


def repeatable(device: torch.device) -> None:
    """Let ``device`` convolve the same way each time: some of cuDNN's ways add up in the order that threads finish."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


@contextlib.contextmanager
def cudnn_put_back() -> Iterator[None]:
    """Leave what ``repeatable`` sets as it was before; a decorator, too."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on ``device``, without waiting until that has done all that it was given before.

    A copy from memory that isn't pinned waits, once a step where a batch's indices are sent, and leaves a GPU idle.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given, so that a clock read now tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _capability(device: torch.device) -> str:
    """Return what decides the last digits beside the hardware's name: the instruction set, and where TF32 is used."""
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability()
    if device.type != "cuda":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    uses = {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32}
    tf32 = [f"TF32 {name}" for name, used in uses.items() if used and major >= 8]
    return ", ".join([f"sm_{major}{minor}", *tf32])


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a reader of a result wants to know about the machine it came from."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "hardware": name,
        "capability": _capability(device),
        "threads": torch.get_num_threads(),
    }
