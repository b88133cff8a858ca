"""What a computation costs: time, data drawn, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from cutk.machine import synchronise

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


def resident_peak() -> int | None:
    """Return the most memory that this process has held since it began, in bytes; None where the system can't say."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _in_use(device: torch.device) -> int | None:
    """Return the bytes in use now; what was freed is given back first, so that using it again shows."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError, AttributeError):  # only glibc can be asked to
        ctypes.CDLL(None).malloc_trim(0)
    return _resident("VmRSS")


def _forget_peak(device: torch.device) -> bool:
    """Start watching for a peak of memory, and say whether that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type == "cpu":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
            return True
    return False


def measured(device: torch.device, work: Callable[[], T]) -> tuple[T, Cost]:
    """Do ``work`` and return its result and its cost, the device's own work included."""
    synchronise(device)
    before = _in_use(device)
    is_watched = _forget_peak(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
    now = _in_use(device)
    if not is_watched or before is None or peak is None or now is None:
        return result, Cost(seconds)
    # No peak above what was there is no measurement: the work found room in what the process holds anyway.
    return result, Cost(seconds, peak_bytes=peak - before if peak > before else None, kept_bytes=max(0, now - before))
