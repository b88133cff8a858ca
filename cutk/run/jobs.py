"""One cell as plain data, and computing it in whatever process."""

from __future__ import annotations

import logging
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from cutk.errors import Caught, CellError, UsageError, one_line
from cutk.plugins.registry import load_registry
from cutk.run.cells import Cell
from cutk.run.logs import sent
from cutk.run.observer import Observer, Relay, Send
from cutk.run.plan import Plan, Setup, resolve
from cutk.run.store import Store
from cutk.run.worker import Done, Worker

__all__ = ["Failed", "Job", "adopt", "work"]


class Job(NamedTuple):
    """One cell and all that another process needs to compute it."""

    plan: Plan
    inline: tuple[Path, ...]  # plugins that aren't installed, absolute
    runs: Path  # the runs folder, absolute
    providers: dict[str, str]  # the version of each distribution that takes part
    cell: Cell
    log_level: int = logging.WARNING  # the lowest that is logged


class Failed(NamedTuple):
    """Why a cell gave no run, in one line and at length."""

    reason: str
    traceback: str = ""


# A worker holds a dataset: one at a time.
_OPEN: list[tuple[Job, Worker]] = []


def adopt(worker: Worker, job: Job) -> None:
    """Let ``work`` compute cells of the job's plan with ``worker`` in this process."""
    _OPEN[:] = [(job, worker)]


def _opened(job: Job) -> Worker:
    """Return this process's worker for a plan, opened with its first job."""
    if not _OPEN or _OPEN[0][0]._replace(cell=job.cell) != job:
        adopt(Worker(_here(job), Store(job.runs)), job)
    return _OPEN[0][1]


def _here(job: Job) -> Setup:
    """Return a job's plan with the components of this process.

    Raises:
        CellError: if it lacks one, or has another version than the study.
    """
    host = platform.node() or "this machine"
    try:
        setup = resolve(job.plan, load_registry(inline=job.inline))
    except UsageError as error:
        raise CellError(f"The worker on '{host}' can't carry out the plan: {one_line(error)}") from None
    for provider, version in setup.providers().items():
        if version != job.providers.get(provider, version):
            raise CellError(
                f"The worker on '{host}' has {provider} {version}, and the study has {job.providers[provider]}. "
                "Install the same on both."
            )
    return setup


def work(job: Job, send: Send | None = None) -> Done | Failed:
    """Compute a job's cell, or say why there is no run of it; raises nothing but what interrupts it.

    ``send`` passes on what the study's observers are to be told; in the study's own process they are told directly.
    """
    observer: Observer | None = None
    with Caught() as caught, nullcontext() if send is None else sent(job.log_level, send):
        worker = _opened(job)
        if send is not None:
            worker.observer = Relay(send)
        observer = worker.observer
        return worker.work(job.cell)
    if observer is not None and caught.error is not None:
        observer.error(caught.error)
    return Failed(caught.reason, caught.traceback)
