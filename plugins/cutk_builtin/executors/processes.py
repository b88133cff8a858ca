"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import AuthenticationError, get_context
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import cutk

# How often a job is tried whose process is killed under it; the second time it may only have been near one that was.
TRIES = 3


class Ear:
    """Hears worker processes, each over a connection of its own: one that is killed spoils nobody else's.

    Args:
        hear: called with what they send.
    """

    def __init__(self, hear: cutk.Send) -> None:
        self._hear = hear
        self.key = os.urandom(32)
        self._listener = Listener(authkey=self.key)
        self.address = self._listener.address
        self.processes: set[int] = set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                connection = self._listener.accept()
                threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            process = connection.recv()
            self.processes.add(process)
            try:
                while True:
                    self._hear(*connection.recv())
            finally:
                self.processes.discard(process)
                connection.close()

    def close(self, *, kill: bool) -> None:
        """Stop listening, and end what still works if asked to."""
        self._closed = True
        for process in list(self.processes) if kill else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            Client(self.address, authkey=self.key).close()  # so that the thread that waits sees it
        self._listener.close()


_send: cutk.Send | None = None


def _begin(address: Any, key: bytes) -> None:
    """Prepare a worker process."""
    global _send
    # The study's process decides what an interrupt means. What is printed here is no result.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    connection, turn = Client(address, authkey=key), threading.Lock()
    connection.send(os.getpid())

    def send(name: str, arguments: tuple[Any, ...]) -> None:
        with turn, contextlib.suppress(OSError):
            connection.send((name, arguments))

    def end_with_the_study() -> None:
        with contextlib.suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    _send = send
    threading.Thread(target=end_with_the_study, daemon=True).start()


def _do(function: Callable[..., Any], job: Any) -> Any:
    return function(job, _send)


class Workers:
    """Processes that do a job each; when one is killed they are replaced, and what was under way is done again."""

    def __init__(self, count: int, ear: Ear) -> None:
        self.slots = count
        self._ear, self._turn = ear, threading.Lock()
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        # Not by forking: torch's threads don't survive it.
        return ProcessPoolExecutor(self.slots, get_context("spawn"), _begin, (self._ear.address, self._ear.key))

    def submit(self, function: Callable[..., Any], job: Any, /) -> Future[Any]:
        """Take a job."""
        outer: Future[Any] = Future()
        self._start(outer, function, job, 1)
        return outer

    def _start(self, outer: Future[Any], function: Callable[..., Any], job: Any, tries: int) -> None:
        with self._turn:
            try:
                inner = self._pool.submit(_do, function, job)
            except BrokenProcessPool:
                self._pool = self._new()
                inner = self._pool.submit(_do, function, job)
        inner.add_done_callback(partial(self._ended, outer, function, job, tries))

    def _ended(
        self, outer: Future[Any], function: Callable[..., Any], job: Any, tries: int, inner: Future[Any]
    ) -> None:
        if inner.cancelled():
            outer.cancel()
        elif (error := inner.exception()) is None:
            outer.set_result(inner.result())
        elif not isinstance(error, BrokenProcessPool):
            outer.set_exception(error)
        elif tries < TRIES:
            self._start(outer, function, job, tries + 1)
        else:
            said = f"Its worker process was killed {TRIES} times, most often for want of memory. Try fewer workers."
            outer.set_exception(cutk.CellError(said))

    def close(self) -> None:
        """Take no more jobs, and drop those that haven't begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Processes(cutk.Executor):
    """Computes cells in several processes on this machine, which share its processors."""

    name = "processes"
    variant = "workers"

    class Options(cutk.Options):
        """How many."""

        workers: int | None = cutk.option(None, ge=1, le=1024, help="processes; one for each processor if not given")

    @property
    def sharing(self) -> int:
        """As many as there are."""
        return self.options.workers or len(os.sched_getaffinity(0))

    @contextmanager
    def open(self, hear: cutk.Send) -> Iterator[Workers]:
        """Start processes as they are needed."""
        ear = Ear(hear)
        workers, done = Workers(self.sharing, ear), False
        try:
            yield workers
            done = True
        finally:
            workers.close()
            ear.close(kill=not done)


@cutk.hookimpl
def cutk_executors() -> list[type[cutk.Executor]]:
    """Provide ``processes``."""
    return [Processes]
