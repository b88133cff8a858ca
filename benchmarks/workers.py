"""What two workers gain, what two studies lose that run at once, and what the number of threads costs that cutk picks.

    python benchmarks/workers.py [--pairs 3]

Ratios of seconds by the clock, of whole ``cutk bench`` processes that begin in an empty folder, so it wants a machine
that does nothing else. Medians over pairs, smallest and largest in brackets, then the medians of both times. "At once"
is how long two take together; "all cores" is one with ``--threads`` set to the number of cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import torch

from cutk.machine import describe_machine, processors

CORES = processors()
DIGITS = ("-u", "ssd", "--seeds", "1")
SWEEP = (
    *("-u", "ssd", "-u", "cf", "-u", "scrub", "-u", "badt", "-u", "rewod"),
    *("--alpha", "0.1,0.5,1", "--seeds", "3", "--threads", "1"),
)
# As large as CIFAR-10's images and network, for some steps: what a step takes decides how many threads pay.
LARGE = (
    *("-d", "fake", "-o", "fake.samples=1000", "-o", "fake.channels=3", "-o", "fake.size=32", "-m", "badnet"),
    *("--model", "cifarnet", "-u", "none", "--alpha", "1", "--seeds", "1", "--recipe", "steps=20", "batch_size=500"),
)


def seconds(*studies: Sequence[str]) -> float:
    """Time studies that run at once, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # Variables for threads would decide what is measured here.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "CUTK_"))}
        start = time.perf_counter()
        command = [sys.executable, "-m", "cutk", "bench", "--device", "cpu"]
        running = [
            subprocess.Popen(
                [*command, "--runs", os.path.join(folder, str(number)), *study],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=clean,
            )
            for number, study in enumerate(studies)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"cutk bench {' '.join(studies[0])} ended with {codes}: run it alone to see why")
        return time.perf_counter() - start


def compare(name: str, slow: Sequence[Sequence[str]], fast: Sequence[str], pairs: int) -> None:
    """Print how much longer some studies take at once than another one alone, measured in turn."""
    found = [(seconds(*slow), seconds(fast)) for _ in range(pairs)]
    ratios = [a / b for a, b in found]
    times = "  ".join(f"{statistics.median(column):.1f} s" for column in zip(*found, strict=True))
    print(f"{name:50}{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})  {times}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3, help="how often each ratio is measured")
    pairs = parser.parse_args().pairs
    print(f"{describe_machine(torch.device('cpu'))['hardware']}, {CORES} cores; n = {pairs} pairs", flush=True)
    compare("digits, a sweep: serial / two workers", [SWEEP], (*SWEEP, "--executor", "processes:2"), pairs)
    for name, one in (("digits", DIGITS), ("cifarnet", LARGE)):
        compare(f"{name}: two studies at once / one", [one, one], one, pairs)
        compare(f"{name}: cutk's threads / all cores", [one], (*one, "--threads", str(CORES)), pairs)


if __name__ == "__main__":
    main()
