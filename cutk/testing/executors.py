"""What is checked of an executor, with jobs that take a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from multiprocessing import active_children
from typing import Any

from cutk.errors import Caught, one_line
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check

__all__ = ["CHECKS", "SUBJECT", "TriedExecutor", "answer"]

JOBS = 5
TOLD = 3
# The job whose function fails.
FAILING = 3
# Seconds that a job may take, its worker's start included, and that what was started may take to end.
PATIENCE, GRACE = 120.0, 5.0

Told = tuple[str, tuple[Any, ...]]


def answer(job: int, send: Callable[..., None] | None = None) -> int:
    """Return a job's square, having told of it three times: what workers are given to do."""
    for step in range(TOLD):
        if send is not None:
            send("progress", (job, step, TOLD))
    if job == FAILING:
        raise ZeroDivisionError(f"job {job} fails on purpose")
    return job * job


class _Interrupted(BaseException):
    """What the block raises."""


@dataclass
class _Tried:
    """What came of the jobs, and what was still there when the block had ended."""

    slots: Any = None
    results: dict[int, Any] = field(default_factory=dict)
    failed: str = ""
    told: list[Told] = field(default_factory=list)
    left: str = ""


def _alive() -> set[Any]:
    return {thread for thread in threading.enumerate() if not thread.daemon} | set(active_children())


def _left(before: set[Any]) -> str:
    """Return what has been started since, and doesn't end."""
    deadline = time.monotonic() + GRACE
    while (left := _alive() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return ", ".join(sorted(f"{type(each).__name__} '{each.name}'" for each in left))


class TriedExecutor(Subject):
    """An executor, and what it makes of five jobs, of which one fails."""

    def work(self) -> _Tried:
        """Have them done, never more at once than there are slots."""
        tried, before = _Tried(), _alive()
        waiting, running = list(range(JOBS)), dict[Future[Any], int]()
        with self.make().open(lambda name, arguments: tried.told.append((name, arguments))) as pool:
            tried.slots = pool.slots
            while waiting or running:
                while waiting and len(running) < max(1, int(pool.slots)):
                    job = waiting.pop(0)
                    running[pool.submit(answer, job)] = job
                finished, _ = wait(running, PATIENCE, FIRST_COMPLETED)
                if not finished:
                    raise Unmet(f"after {PATIENCE:g} seconds it has done {len(tried.results)} of {JOBS} jobs")
                for future in finished:
                    job, error = running.pop(future), future.exception()
                    if error is None:
                        tried.results[job] = future.result()
                    elif job == FAILING:
                        tried.failed = one_line(error)
                    else:
                        raise Unmet(f"job {job} failed with: {one_line(error)}")
        tried.left = _left(before)
        return tried

    def decided(self, result: _Tried) -> Any:
        """Return what jobs gave, how many are done at once, and what was told of each."""
        return result.slots, sorted(result.results.items()), sorted(result.told)


@check(
    "Let open() be a context manager whose block gets an object with slots, an integer from 1, and submit(function, "
    "job), which returns a concurrent.futures.Future of function(job, send).",
    essential=True,
)
def jobs_are_done(subject: TriedExecutor) -> None:
    """Every job is done, and its future holds what its function returned."""
    tried: _Tried = subject.first.result
    if type(tried.slots) is not int or tried.slots < 1:
        raise Unmet(f"it has slots = {tried.slots!r}")
    for job in range(JOBS):
        if job != FAILING and tried.results.get(job) != job * job:
            raise Unmet(f"of job {job} it gives {tried.results.get(job)!r}, and its function returned {job * job}")


@check("Let the future raise what the function raised: future.set_exception(error).")
def failures_are_in_the_future(subject: TriedExecutor) -> None:
    """A job whose function fails costs its own future alone, which raises the error."""
    tried: _Tried = subject.first.result
    if FAILING in tried.results:
        raise Unmet(f"of a job whose function fails it gives {tried.results[FAILING]!r}")
    if "ZeroDivisionError" not in tried.failed:
        raise Unmet(f"the function raised a ZeroDivisionError, and the future {tried.failed}")


@check("Give each function a send(name, arguments) that leads to hear, in its order, and hear all before you close.")
def events_are_heard_in_order(subject: TriedExecutor) -> str | None:
    """What workers send has been heard at the end of the block, once, and each worker's in its order."""
    if subject.component.here:
        return "it computes in this process, where nothing has to be sent"
    told: list[Told] = subject.first.result.told
    for job in range(JOBS):
        heard = [arguments[1] for name, arguments in told if name == "progress" and arguments[0] == job]
        if heard != list(range(TOLD)):
            raise Unmet(f"job {job} sent {TOLD} events, 0 to {TOLD - 1}, and heard were {heard}")
    return None


@check("Return how many workers of this machine compute at the same time, an integer from 1.")
def sharing_is_a_number(subject: TriedExecutor) -> None:
    """It knows how many workers share the machine, before they are there."""
    sharing = subject.make().sharing
    if type(sharing) is not int or sharing < 1:
        raise Unmet(f"it has sharing = {sharing!r}")


@check("Put what ends workers into a finally behind the yield of open(), and let errors pass through.")
def nothing_works_on(subject: TriedExecutor) -> None:
    """At the end of the block its threads and processes are gone, also where the block was left by an error."""
    if left := subject.first.result.left:
        raise Unmet(f"after the block there is still {left}")
    before = _alive()
    with subject.apart(), Caught() as caught, subject.make().open(lambda *_: None) as pool:
        for job in range(pool.slots):
            pool.submit(answer, job)
        raise _Interrupted
    if not isinstance(caught.error, _Interrupted):
        came = "nothing" if caught.error is None else one_line(caught.error)
        raise Unmet(f"the block raised an error, and open() let through {came}")
    if left := _left(before):
        raise Unmet(f"after a block that raised an error there is still {left}")


SUBJECT = TriedExecutor
CHECKS = all_checks(globals())
