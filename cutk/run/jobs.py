"""One cell as plain data, and computing it in whatever process."""

from __future__ import annotations

import logging
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from cutk.errors import Caught, CellError, UsageError, forget_locals, one_line
from cutk.plugins.registry import load_registry
from cutk.run.cells import Cell
from cutk.run.keys import Kind
from cutk.run.logs import sent
from cutk.run.observer import Observer, Relay, Send
from cutk.run.parcels import Parcels
from cutk.run.plan import Plan
from cutk.run.records import Trained
from cutk.run.setup import Setup, resolve
from cutk.run.store import Parcel, Store
from cutk.run.worker import Done, Worker

__all__ = ["Failed", "Job", "Lacking", "adopt", "leave", "work"]


class Job(NamedTuple):
    """One cell and all that another process needs to compute it.

    Where ``runs`` is None, the process doesn't see the runs folder: it says which runs it would read from there, and
    the job is given again, maybe to another process, with those that there are.
    """

    plan: Plan
    inline: tuple[Path, ...]  # plugins that aren't installed, absolute
    runs: Path | None  # the runs folder, absolute
    providers: dict[str, str]  # the version of each distribution that takes part
    cell: Cell
    original: Trained | None = None  # the M_o that an unlearner is to begin with
    log_level: int = logging.WARNING  # the lowest that is logged
    asked: tuple[tuple[Kind, str], ...] = ()  # the runs that were looked for
    parcels: tuple[Parcel, ...] = ()  # those of them that there are


class Failed(NamedTuple):
    """Why a cell gave no run, in one line and at length."""

    reason: str
    traceback: str = ""


class Lacking(NamedTuple):
    """The runs that a worker would read from a folder that it doesn't see, if they are there."""

    runs: tuple[tuple[Kind, str], ...]


# A worker holds a dataset: one at a time.
_OPEN: list[tuple[tuple[object, ...], Worker]] = []


def _plan_of(job: Job) -> tuple[object, ...]:
    return job.plan, job.inline, job.runs, job.providers


def adopt(worker: Worker, job: Job) -> None:
    """Let ``work`` compute cells of the job's plan with ``worker`` in this process."""
    _OPEN[:] = [(_plan_of(job), worker)]


def leave() -> None:
    """Keep no worker, nor its data."""
    _OPEN.clear()


def _opened(job: Job) -> Worker:
    """Return this process's worker for a plan, opened with its first job."""
    if not _OPEN or _OPEN[0][0] != _plan_of(job):
        leave()
        setup = _here(job)
        if job.runs is not None and not job.runs.is_dir():
            raise CellError(
                f"The worker on '{_host()}' doesn't see the runs folder '{job.runs}'. If it was removed, give the "
                "command again; otherwise choose one with --runs that workers see under this path, or an executor's "
                "option that sends runs back."
            )
        store = Parcels() if job.runs is None else Store(job.runs)
        adopt(Worker(setup, store, inline=job.inline), job)
    return _OPEN[0][1]


def _host() -> str:
    return platform.node() or "this machine"


def _here(job: Job) -> Setup:
    """Return a job's plan with the components of this process.

    Raises:
        CellError: if it lacks one, or has another version than the study.
    """
    host = _host()
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


def work(job: Job, send: Send | None = None) -> Done | Failed | Lacking:
    """Compute a job's cell, or say why there is no run of it, or not yet; raises nothing but what interrupts it.

    ``send`` passes on what the study's observers are to be told; in the study's own process they are told directly.
    """
    observer: Observer | None = None
    with Caught() as caught, nullcontext() if send is None else sent(job.log_level, send):
        worker = _opened(job)
        if send is not None:
            worker.observer = Relay(send)
        observer = worker.observer
        if isinstance(worker.store, Parcels):
            return _work_apart(worker, worker.store, job)
        return worker.work(job.cell, job.original)
    if observer is not None and caught.error is not None:
        observer.error(caught.error)
    if caught.error is not None:
        forget_locals(caught.error)
    return Failed(caught.reason, caught.traceback)


def _work_apart(worker: Worker, store: Parcels, job: Job) -> Done | Lacking:
    """Compute a cell from what was sent, and send back what came of it."""
    needed = job.cell if job.cell.needs is None else job.cell.needs
    # The next job goes where there is room: whoever asked before may hold what this process doesn't.
    read = [(cell.kind, worker.key(cell)) for cell in dict.fromkeys((job.cell, needed))]
    own, kept = read[0][1], read[-1][1]
    lacking = [each for each in read if each not in job.asked and (each is read[0] or store.read(*each) is None)]
    if lacking:
        return Lacking(tuple(lacking))
    store.take(job.parcels)
    if not any(parcel.run.key == own for parcel in job.parcels):
        store.owe(own)  # which isn't there any more, or not yet
    try:
        done = worker.work(job.cell, job.original)
    finally:
        new = store.hand_over(keep=kept)
    return done._replace(parcels=new)
