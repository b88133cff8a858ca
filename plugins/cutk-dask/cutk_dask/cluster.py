"""The study's end of a cluster: it starts one or finds one, gives it jobs, and hears of them."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Client, KilledWorker, LocalCluster
from distributed.utils import silence_logging_cmgr

import cutk
from cutk_dask.job import do

# Seconds that a worker process may take to end by itself.
GRACE = 1.0
# No process of a study's takes less: torch alone takes that.
LEAST = "512MiB"
# How often it is asked, in seconds, how many workers there are.
OFTEN = 1.0
# After how many seconds without a worker it is said that cells wait for one, and how often that is looked at.
ALONE = 30.0
# Why Dask says that it has cancelled a task where its scheduler is lost, or was restarted.
_LOST = ("scheduler-connection-lost", "scheduler-restart")
_VARIABLES = ("PYTHONHASHSEED", "__DASK_PARENT_PID")


class Jobs:
    """Gives jobs to a scheduler.

    Args:
        client: the connection to it.
        hear: called with what workers send.
        needs: what a job needs of a worker's resources.
        limit: how many jobs it is given at once; as many as there are workers if not given.
        ours: whether it is a cluster that was started here, to which nobody else adds workers.
    """

    def __init__(
        self, client: Client, hear: cutk.Send, needs: dict[str, float], limit: int | None, *, ours: bool = False
    ) -> None:
        self._client, self._hear, self._needs, self._limit, self._ours = client, hear, needs, limit, ours
        self._address = client.scheduler.address
        self._futures: dict[str, Any] = {}
        self._lost = self._closed = False
        # Results wait their turn behind what led to them, and hearing takes its time, which the client hasn't.
        self._turn = ThreadPoolExecutor(1)
        # The scheduler forgets what was told under a client's name some time after the client is gone.
        client.subscribe_topic(client.id, self._listen)
        self._count(client.scheduler_info(n_workers=-1)["workers"])
        self._asked = time.monotonic()
        self._watch = asyncio.run_coroutine_threadsafe(self._watching(), client.loop.asyncio_loop)

    async def _watching(self) -> None:
        """Say once, each time, that all workers have been gone for a while: a scheduler waits for others silently."""
        since, told = time.monotonic(), False
        # That it is cancelled may become another error on its way out of a question to the scheduler.
        while not (self._lost or self._closed):
            await asyncio.sleep(ALONE / 5)
            with suppress(Exception):  # a scheduler that doesn't answer is noticed elsewhere
                able = self._count((await self._client.scheduler.identity(n_workers=-1))["workers"])
                if able or not self._futures:
                    since, told = time.monotonic(), False
                elif not told and time.monotonic() - since > ALONE:
                    told = True
                    self._turn.submit(self._hear, "warning", (self._alone(),))

    def _alone(self) -> str:
        """Say that there is no worker, and what to do."""
        what = f"Start some with: dask worker {self._address} --nthreads 1"
        if self._ours:
            what = (
                "Its processes end as soon as they begin, most often for want of memory: try fewer, or more dask.memory"
            )
        return (
            f"No worker of the scheduler at '{self._address}' can take a cell since {ALONE:g} s, and "
            f"{len(self._futures)} wait. {what}. Ctrl-C stops, and what is finished is kept."
        )

    def _count(self, workers: dict[str, Any]) -> int:
        """Note how many jobs are to be given at once; return how many workers can do one."""
        able = sum(1 for about in workers.values() if at_once(about, self._needs))
        self.slots = self._limit or max(1, able)
        return able

    def _listen(self, event: tuple[float, Any]) -> None:
        _, told = event
        if isinstance(told, bytes):  # otherwise the scheduler speaks of the client
            for name, arguments in pickle.loads(told):  # noqa: S301  # Dask unpickles what workers send
                self._turn.submit(self._hear, name, arguments)

    def submit(self, function: Callable[..., Any], job: Any, /) -> Future[Any]:
        """Take a job."""
        outer: Future[Any] = Future()
        if self._lost or self._client.status != "running":
            outer.set_exception(self._gone())
            return outer
        key = f"cutk-{uuid.uuid4().hex}"
        called = _Called(do, pickle.dumps((function, job)), key, self._client.id).pickled()
        # It may hold weights. As data of a worker they would be lost with it; with the task the scheduler has them.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            future = self._client.submit(pickle.loads, called, key=key, pure=False, resources=self._needs or None)
        self._futures[key] = future
        asyncio.run_coroutine_threadsafe(self._follow(key, outer), self._client.loop.asyncio_loop)
        return outer

    async def _follow(self, key: str, outer: Future[Any]) -> None:
        """Wait for what comes of a job, in the client's thread, which hears of it after what the job sent."""
        try:
            deliver = outer.set_result, await self._futures[key]
        except KilledWorker as error:
            said = f"Its worker was lost, the last of {error.allowed_failures + 1} times at {error.last_worker.address}"
            deliver = outer.set_exception, cutk.CellError(f"{said}; most often that is for want of memory.")
        except CancelledError as error:
            self._lost |= self._client.status != "running" or getattr(error, "reason", "") in _LOST
            deliver = outer.set_exception, self._gone() if self._lost else cutk.CellError(f"It was given up: {error}")
        except ImportError as error:
            deliver = outer.set_exception, cutk.CellError(f"A worker lacks what it needs ({error}). Install it there.")
        except Exception as error:
            self._lost |= self._client.status != "running"  # it may be lost while a result is fetched
            deliver = outer.set_exception, self._gone() if self._lost else error
        del self._futures[key]
        with suppress(Exception):  # there is another time
            if not self._lost and time.monotonic() - self._asked > OFTEN:
                self._asked = time.monotonic()
                self._count((await self._client.scheduler.identity(n_workers=-1))["workers"])
        self._turn.submit(*deliver)

    def _gone(self) -> cutk.CellError:
        return cutk.CellError(
            f"The scheduler at '{self._address}' was lost. What is finished is kept, and the same command goes on "
            "from there."
        )

    def close(self) -> None:
        """Take no more jobs, cancel those that aren't done, and hear what was sent."""
        self._closed = True
        self._watch.cancel()
        with suppress(Exception):
            if self._futures and not self._lost:
                self._client.cancel(list(self._futures.values()), force=True)
            self._client.unsubscribe_topic(self._client.id)
        self._turn.shutdown(cancel_futures=bool(self._futures))


@contextmanager
def opened(options: Any, workers: int, hear: cutk.Send) -> Iterator[Jobs]:
    """Start a cluster of this machine's own, or connect to the one that is running.

    Raises:
        UsageError: if there is none, or not such a one.
    """
    needs, ours = _needs(options.resources), not options.scheduler
    _require_meant(options)
    # What Dask has to say of what is lost is said in one line, and a cluster that is closed is no news.
    with _put_back(), silence_logging_cmgr(logging.CRITICAL), _client(options, workers) as client:
        if not ours:
            _require_fit(client, needs, any_number=bool(options.jobs))
        jobs = Jobs(client, hear, needs, options.jobs, ours=ours)
        try:
            yield jobs
        finally:
            jobs.close()


@contextmanager
def _put_back() -> Iterator[None]:
    """Put back what Dask changes in this process: it draws from Python's generator, and sets variables for workers."""
    state, before = random.getstate(), {name: os.environ.get(name) for name in _VARIABLES}
    try:
        settings = {
            # Workers get the variables that there are, as other processes do; threads are counted by cutk.
            "distributed.nanny.pre-spawn-environ": {},
            # Seconds after which a cluster gives up a worker that was lost, though it may be about to begin again.
            "distributed.deploy.lost-worker-timeout": 10**9,
        }
        with dask.config.set(settings):
            yield
    finally:
        random.setstate(state)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def _client(options: Any, workers: int) -> AbstractContextManager[Client]:
    return _found(options) if options.scheduler else _started(options, workers)


def _require_meant(options: Any) -> None:
    """Refuse options that would do nothing."""
    ours = not options.scheduler
    for name in ("resources", "jobs") if ours else ("workers", "memory", "folder", "retries"):
        if getattr(options, name) != type(options).model_fields[name].default:
            whose = "a running scheduler" if ours else "a cluster that is started here, and this one is running"
            raise cutk.UsageError(f"Option 'dask.{name}' is for {whose}. Leave it out.")


def _needs(text: str) -> dict[str, float]:
    """Return what ``GPU=1,MEMORY=2e9`` asks for."""
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, number = part.partition("=")
        with suppress(ValueError):
            found[name.strip()] = float(number)
        if not name.strip() or not 0 < found.get(name.strip(), 0) < float("inf"):
            raise cutk.UsageError(f"Option 'dask.resources': expected NAME=NUMBER, such as GPU=1, got '{part}'.")
    return found


@contextmanager
def _started(options: Any, workers: int) -> Iterator[Client]:
    """Start a cluster that ends with the block."""
    memory = _memory(options.memory)
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=memory,
                    local_directory=options.folder or None,
                    dashboard_address="127.0.0.1:0",  # it has one even where it has no dashboard
                    silence_logs=logging.CRITICAL,
                    preload="cutk_dask.preload",
                    scheduler_kwargs={"allowed_failures": options.retries, "dashboard": False},
                )
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        except (OSError, RuntimeError, ValueError) as error:
            raise cutk.UsageError(f"A Dask cluster can't be started here: {_said(error)}") from None
        try:
            yield client
        finally:
            # Whatever they are at: what is wanted has come back.
            cluster.sync(_end, list(cluster.workers.values()))


def _memory(text: str) -> str | int:
    """Return how many bytes a process may take: ``auto``, 0 for any number, or enough to begin.

    Raises:
        UsageError: if it is none of these.
    """
    if text == "auto":
        return text
    with suppress(ValueError):
        found = int(parse_bytes(text))
        if text == "0" or found >= parse_bytes(LEAST):
            return found
    expected = f"expected auto, 0, or at least {LEAST}, such as 4GiB"
    raise cutk.UsageError(f"Option 'dask.memory': {expected}, got '{text}'.")


async def _end(nannies: list[Any]) -> None:
    await asyncio.gather(*(nanny.close(timeout=GRACE) for nanny in nannies), return_exceptions=True)


@contextmanager
def _found(options: Any) -> Iterator[Client]:
    """Connect to a scheduler, and wait for its first worker."""
    address, deadline = options.scheduler, time.monotonic() + options.timeout
    if not re.fullmatch(r"([a-z]+://)?.+:\d+", address):
        raise cutk.UsageError(f"Executor 'dask:{address}': expected a scheduler's address, such as tcp://HOST:8786.")
    try:
        client = Client(address, timeout=options.timeout, set_as_default=False)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise cutk.UsageError(
            f"No Dask scheduler answers at '{address}' within {options.timeout:g} s ({_said(error)}). "
            "Start one with: dask scheduler"
        ) from None
    with client:
        if not options.jobs:
            try:
                client.wait_for_workers(1, max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                raise cutk.UsageError(
                    f"The scheduler at '{address}' has no worker after {options.timeout:g} s. Start some with: dask "
                    f"worker {address} --nthreads 1. If they are to come, say how many at most with -o dask.jobs=N."
                ) from None
        yield client


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Called:
    """A function and its arguments; to unpickle it is to call it.

    A worker that lacks the function's module fails at the task then, and says so. If it were a task's function it would
    hang, since Dask unpickles that while it listens to the scheduler, and the scheduler itself would need the module.
    """

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call[0], self._call[1:]

    def pickled(self) -> bytes:
        return pickle.dumps(self)


def at_once(worker: dict[str, Any], needs: dict[str, float]) -> int:
    """Return how many jobs a worker would do at the same time."""
    has = worker.get("resources", {})
    return min(int(worker["nthreads"]), *(int(has.get(name, 0) // need) for name, need in needs.items()), 10**6)


def _require_fit(client: Client, needs: dict[str, float], *, any_number: bool) -> None:
    """Refuse workers that can't do a job, each a job at a time, or have other versions."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for address, about in workers.items():
        if (number := at_once(about, needs)) > 1:
            raise cutk.UsageError(
                f"The worker at '{address}' would compute {number} cells at once, and each needs a process to itself. "
                "Start it with --nthreads 1, or with --resources for one cell, and ask for them: -o dask.resources=…"
            )
    if needs and not any_number and not any(at_once(about, needs) for about in workers.values()):
        asked = ",".join(f"{name}={number:g}" for name, number in needs.items())
        raise cutk.UsageError(f"No worker has {asked}. Start some with: dask worker --nthreads 1 --resources {asked}")
    packages = ["cutk", "cutk-dask"]  # of which a scheduler knows nothing
    there = client.get_versions(packages=packages)
    here, others = there["client"], {f"worker at '{address}'": about for address, about in there["workers"].items()}
    for who, about in {f"scheduler at '{client.scheduler.address}'": there["scheduler"], **others}.items():
        for package in ("python", "distributed", *(packages if who in others else ())):
            mine, theirs = (_version(each, package) for each in (here, about))
            if mine != theirs:
                raise cutk.UsageError(
                    f"The {who} has {package} {theirs}, and here is {mine}. Install the same on both."
                )


def _version(about: dict[str, Any], package: str) -> str:
    version = about["packages"].get(package) or "(none)"
    return ".".join(version.split(".")[:2]) if package == "python" else version
