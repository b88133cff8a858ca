"""What a computation costs: time, data drawn, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from cutk.machine import synchronise

__all__ = ["Cost", "measured"]

T = TypeVar("T")


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
