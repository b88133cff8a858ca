"""Worker processes on this machine."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import AuthenticationError, get_context
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import cutk

# Of cutk's tree, which --log-level shows.
_log = logging.getLogger("cutk.executors.processes")
# How often a job is tried whose process is killed under it.
TRIES = 3
# Seconds until a worker that ends, or one that waits for being heard, is given up.
PATIENCE = 30.0
# How many files a worker process takes in the one that starts it: pipes of its pool and of its start, a connection.
FILES = 12


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
        self._processes: set[int] = set()
        self._closed = self._killing = self.heard = False
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        # Closed where it is listened to: who connects afterwards is turned away instead of waiting for an answer.
        with self._listener:
            while not self._closed:
                try:
                    self._begin(self._listen, self._listener.accept())
                except (EOFError, AuthenticationError):
                    continue
                except OSError:  # no more files, say: not at once again
                    time.sleep(0.1)

    def _listen(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            process = connection.recv()
            self.heard = True
            self._processes.add(process)
            if self._killing:
                self.kill()
            try:
                while True:
                    name, arguments = connection.recv()
                    if name:
                        self._hear(name, arguments)
                    else:  # it asks whether it was heard so far
                        connection.send(None)
            finally:
                self._processes.discard(process)

    def kill(self) -> None:
        """End the processes, whatever they are at, and those that are only about to begin as soon as they do."""
        self._killing = True
        for process in list(self._processes):
            with contextlib.suppress(OSError):  # it is gone
                os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows the latter is as final

    def see_off(self) -> None:
        """Wait until the processes have ended, and end those that don't."""
        begun = time.monotonic()
        while self._processes and time.monotonic() - begun < PATIENCE:
            time.sleep(0.02)
        if self._processes:
            _log.info("%d worker processes didn't end, and are killed", len(self._processes))
        self.kill()

    def close(self) -> None:
        """Hear what was sent, and listen no more."""
        self._closed = True
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            Client(self.address, authkey=self.key).close()  # so that the thread that waits sees it
        for thread in self._threads:
            thread.join(PATIENCE)


class _Mouth:
    """A worker process's end of the connection."""

    def __init__(self, address: Any, key: bytes) -> None:
        self._connection, self._turn = Client(address, authkey=key), threading.Lock()
        self._heard = threading.Event()
        self._connection.send(os.getpid())
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._connection.recv()
                self._heard.set()
        os._exit(1)  # nobody waits for what is done here

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Tell something."""
        with self._turn, contextlib.suppress(OSError):
            self._connection.send((name, arguments))

    def wait(self) -> None:
        """Return when all that was sent has been heard, so that no result comes before what led to it."""
        self._heard.clear()
        self.send("", ())
        self._heard.wait(PATIENCE)


_mouth: _Mouth | None = None


def _begin(address: Any, key: bytes) -> None:
    """Prepare a worker process."""
    global _mouth
    # What is in its memory needn't be taken apart, which takes a while. The first one registered is done last.
    atexit.register(_leave)
    # The study's process decides what an interrupt means. What is printed here is no result.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _mouth = _Mouth(address, key)


def _leave() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(0)


def _do(function: Callable[..., Any], job: Any) -> Any:
    mouth = _mouth
    if mouth is None:
        raise cutk.CellError("This process isn't a worker.")
    try:
        return function(job, mouth.send)
    finally:
        mouth.wait()


class Workers:
    """Processes that do a job each; one that is killed is replaced, and its job done again."""

    def __init__(self, count: int, ear: Ear) -> None:
        self.slots = count
        self._ear = ear
        self._all: list[ProcessPoolExecutor] = []
        self._idle: list[ProcessPoolExecutor] = []
        self._closed = False

    def _new(self) -> ProcessPoolExecutor:
        # A pool for each process, since a pool that loses one ends them all. Not by forking: torch's threads don't
        # survive it.
        pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (self._ear.address, self._ear.key))
        self._all.append(pool)
        return pool

    def submit(self, function: Callable[..., Any], job: Any, /) -> Future[Any]:
        """Take a job."""
        outer: Future[Any] = Future()
        self._start(outer, function, job, 1)
        return outer

    def _start(self, outer: Future[Any], function: Callable[..., Any], job: Any, tries: int) -> None:
        try:
            pool = self._idle.pop() if self._idle else self._new()
            inner = pool.submit(_do, function, job)
        except BrokenProcessPool:  # it was killed while it had nothing to do
            return self._start(outer, function, job, tries)
        except (OSError, RuntimeError) as error:  # no more processes, files or threads: others go on with theirs
            if isinstance(error, RuntimeError) and "thread" not in str(error):
                raise  # this process is itself one that can't begin
            said = f"No worker process could be started ({error}). Try fewer workers."
            return outer.set_exception(cutk.CellError(said))
        return inner.add_done_callback(partial(self._ended, pool, outer, function, job, tries))

    def _ended(
        self,
        pool: ProcessPoolExecutor,
        outer: Future[Any],
        function: Callable[..., Any],
        job: Any,
        tries: int,
        inner: Future[Any],
    ) -> None:
        error = None if inner.cancelled() else inner.exception()
        if not isinstance(error, BrokenProcessPool):
            self._idle.append(pool)  # before anybody hears of the result, and has the next job
        if inner.cancelled() or self._closed:
            outer.cancel()
        elif error is None:
            outer.set_result(inner.result())
        elif not isinstance(error, BrokenProcessPool):
            outer.set_exception(error)
        elif tries < TRIES:
            _log.info("A worker process was killed; its job is done again, for the %d. of %d times", tries + 1, TRIES)
            self._start(outer, function, job, tries + 1)
        else:
            said = f"Its worker process was killed {TRIES} times, most often for want of memory. Try fewer workers."
            if not self._ear.heard:  # a process imports the script that started it
                guard = 'if __name__ == "__main__":'
                said = f"No worker process could begin. In a script, what runs a study has to stand below {guard}"
            outer.set_exception(cutk.CellError(said))

    def close(self, *, kill: bool) -> None:
        """Take no more jobs, and end the processes: when they are done, or at once."""
        self._closed = True
        if kill:
            self._ear.kill()
        for pool in self._all:  # all are told before any is waited for
            pool.shutdown(wait=False, cancel_futures=True)
        self._ear.see_off()  # a component may have left a thread in one that never ends
        for pool in self._all:
            pool.shutdown()


def _make_room(count: int) -> None:
    """Let this process open the files that so many worker processes take, as far as the system lets it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES * (count + 32)
    if resource.RLIM_INFINITY != soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


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
        if self.options.workers:
            return int(self.options.workers)
        return cutk.processors()

    @contextmanager
    def open(self, hear: cutk.Send) -> Iterator[Workers]:
        """Start processes as they are needed."""
        _make_room(self.sharing)
        ear = Ear(hear)
        workers, done = Workers(self.sharing, ear), False
        try:
            yield workers
            done = True
        finally:
            workers.close(kill=not done)
            ear.close()


@cutk.hookimpl
def cutk_executors() -> list[type[cutk.Executor]]:
    """Provide ``processes``."""
    return [Processes]
