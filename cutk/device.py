"""Asking the machine: which device, which precision, and what to write down about both."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from cutk.errors import UsageError

__all__ = ["Cost", "choose_device", "choose_layout", "choose_precision", "describe_machine", "measured", "synchronise"]

T = TypeVar("T")

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: if this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which a device without memory of its own ("meta") can't give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Device '{name}' cannot be used here ({reason}). Try --device cpu, or auto.") from None
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the machine multiplies it in hardware.

    The machine's capabilities are asked, not its speed: a stopwatch could answer differently the next time, and
    then the same command would give other numbers. Where the capability exists, bf16 autocast was measured faster
    than fp32 for every built-in model (see ``benchmarks/speed.py``).

    Raises:
        UsageError: if ``name`` isn't one of ``auto``, ``fp32`` and ``bf16``.
    """
    if name not in PRECISIONS:
        raise UsageError(f"Precision: expected one of {', '.join(PRECISIONS)}, got '{name}'.")
    if name != "auto":
        return name
    return "bf16" if _multiplies_bf16(device) else "fp32"


def choose_layout(device: torch.device) -> torch.memory_format:
    """Return the memory layout in which ``device`` convolves fastest, by its capabilities.

    Channels last where oneDNN (CPU) or tensor cores (CUDA from 7.0) do the work: see ``benchmarks/speed.py``.
    """
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.channels_last if fast else torch.contiguous_format


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given, so that a clock read now tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Cost(NamedTuple):
    """What a computation cost.

    Attributes:
        seconds: wall-clock.
        passes: samples drawn from S_tr, divided by their number.
        peak_bytes: the most memory in use at once, beyond what was in use before: the device's own (CUDA), or the
            process's resident memory (Linux). None where it can't be told, or is too little to show.
        kept_bytes: how much of it was still in use afterwards.
    """

    seconds: float
    passes: float | None = None
    peak_bytes: int | None = None
    kept_bytes: int = 0

    def __add__(self, other: object) -> Cost:
        """Return the cost of one computation after the other."""
        if not isinstance(other, Cost):
            return NotImplemented
        passes = None if self.passes is None or other.passes is None else self.passes + other.passes
        later = None if other.peak_bytes is None else self.kept_bytes + other.peak_bytes
        peaks = [peak for peak in (self.peak_bytes, later) if peak is not None]
        kept = self.kept_bytes + other.kept_bytes
        return Cost(self.seconds + other.seconds, passes, max(peaks, default=None), kept)


def _resident(entry: str) -> int | None:
    """Return an entry of the kernel's account of this process's memory, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(entry + ":"):
                return int(line.split()[1]) * 1024
    return None


def _give_back_freed_memory() -> None:
    """Have the allocator return what was freed, so that using it again shows; only glibc can be asked to."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _start_watching_memory(device: torch.device) -> int | None:
    """Forget earlier peaks, and return what is in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if device.type == "cpu":
        _give_back_freed_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
        except OSError:
            return None
        return _resident("VmRSS")
    return None


def _watched_memory(device: torch.device) -> tuple[int, int] | None:
    """Return the peak since watching began, and what is in use now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    peak = _resident("VmHWM")
    _give_back_freed_memory()
    now = _resident("VmRSS")
    return None if peak is None or now is None else (peak, now)


def measured(device: torch.device, work: Callable[[], T]) -> tuple[T, Cost]:
    """Do ``work`` and return its result and its cost, the device's own work included."""
    synchronise(device)
    before = _start_watching_memory(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    seconds = time.perf_counter() - start
    after = None if before is None else _watched_memory(device)
    if before is None or after is None:
        return result, Cost(seconds)
    peak, now = after
    # No peak above what was there is no measurement: the work found room in what the process holds anyway.
    return result, Cost(seconds, peak_bytes=peak - before if peak > before else None, kept_bytes=max(0, now - before))


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
        "threads": torch.get_num_threads(),
    }
