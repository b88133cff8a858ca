"""How many cells a second a study can give away and take back: its workers sleep, and write nothing.

    python benchmarks/throughput.py --cells 100000 --slots 64 --seconds 0.01

The first cell of each kind is computed; what sleeping workers return are copies of it. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutk.machine import describe_machine
from cutk.plugins.registry import load_registry
from cutk.run.plan import Plan, layer, over_default
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk.run.study import Study
from cutk.run.worker import Done

LEAST = {
    "dataset": "breast-cancer",
    "manipulations": ["asymmetric-noise"],
    "unlearners": ["none", "ssd"],
    "recipe": {"steps": 2},
    "options": {"asymmetric-noise": {"rate": 0.2}, "ssd": {"dampening": 1.0, "selection_weight": 1.0}},
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
}
ALPHAS = [round(0.02 * step, 2) for step in range(1, 50)]
PER_SEED = 2 + 2 * len(ALPHAS)


def kind_of(cell: Any) -> str:
    """Return which of the computed cells stands for one."""
    name: str = cell.role if cell.kind == "train" else cell.unlearner
    return name


class Sleepers:
    """Workers that sleep, then return a copy of what was computed before."""

    def __init__(self, slots: int, seconds: float, known: dict[Any, Any]) -> None:
        self.slots, self.seconds, self.known = slots, seconds, known
        self.due: list[tuple[float, int, Future[Any], Any]] = []
        self.ready, self.count = threading.Condition(), 0
        threading.Thread(target=self._wake, daemon=True).start()

    def submit(self, _: Any, job: Any) -> Future[Any]:
        """Return what will hold the copy."""
        future: Future[Any] = Future()
        run = self.known[kind_of(job.cell)]
        with self.ready:
            self.count += 1
            heapq.heappush(self.due, (time.monotonic() + self.seconds, self.count, future, run))
            self.ready.notify()
        return future

    def _wake(self) -> None:
        while True:
            with self.ready:
                while not self.due:
                    self.ready.wait()
                when, _, future, run = heapq.heappop(self.due)
            time.sleep(max(0.0, when - time.monotonic()))
            future.set_result(Done(run, False))


class Sleeping:
    """The executor that has them, and what a plan says of it: for the rest, the one that it replaces."""

    sees_runs = here = True

    def __init__(self, pool: Sleepers, replaced: Any) -> None:
        self.pool, self.replaced = pool, replaced

    def __getattr__(self, name: str) -> Any:
        return getattr(self.replaced, name)

    def make(self) -> Sleeping:
        """Return it."""
        return self

    @contextmanager
    def open(self, _: Any) -> Iterator[Sleepers]:
        """Give its workers."""
        yield self.pool


class Unwritten(Store):
    """A folder in which everything seems to be."""

    def has(self, _: Any) -> bool:
        """Say so."""
        return True


def study(root: Path, **more: Any) -> Study:
    """Return a study of a plan."""
    registry = load_registry({"CUTK_PLUGINS": ""})
    setup = resolve(Plan.parse(layer(over_default(LEAST, registry), more)), registry)
    return Study(setup, Unwritten(root))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.01)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = study(Path(folder) / "runs", alphas=[1.0], seeds=1)
        runs = first.run().runs
        known = {kind_of(cell): run for cell, run in zip(first.cells, runs, strict=True)}
        whole = study(Path(folder) / "others", alphas=ALPHAS, seeds=-(-arguments.cells // PER_SEED))
        pool = Sleepers(arguments.slots, arguments.seconds, known)
        whole.setup = dataclasses.replace(whole.setup, executor=Sleeping(pool, whole.setup.executor))
        began, cpu = time.perf_counter(), time.process_time()
        cells = len(whole.cells)
        results = whole.run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    line = {"cells": cells, "slots": arguments.slots, "sleep": arguments.seconds, "failures": len(results.failures)}
    line |= {"seconds": round(seconds, 1), "cells_a_second": round(cells / seconds), "cpu_seconds": round(cpu, 1)}
    line |= {"at_most": round(arguments.slots / arguments.seconds)}
    line |= {"mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    print(json.dumps({**line, **describe_machine(first.worker.recipe.device)}))


if __name__ == "__main__":
    main()
