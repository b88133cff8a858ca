"""Taking turns with other processes on this machine, where each wants all of its processors.

Threads of one process that compute a step together wait for the slowest of them. Where two processes keep more threads
than there are processors, one of them always waits for a thread that the other's keeps from running, and both take
several times as long as one after the other would. So they compute one after the other, half a second each.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cutk.machine import processors

_TURN = 0.5  # seconds that a process computes while another one waits: many steps
_POLL = 0.002  # seconds between two looks whether it is one's turn
_PATIENCE = 60.0  # seconds after which a process goes on without: who has the turn was stopped, or computes one step
_AFTERWARDS = 1800.0  # seconds for which it doesn't ask again

_log = logging.getLogger(__name__)


def _folder() -> Path:
    """Return where this user's processes meet that may run on the same processors."""
    places = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else processors()
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"cutk-turns-{user}-{hashlib.sha256(repr(places).encode()).hexdigest()[:12]}"


def _own(folder: Path) -> None:
    """Make ``folder``; an ``OSError`` if somebody else did, who could let what is written there land elsewhere."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "Expected a folder of this user's", str(folder))


class Turns:
    """One process's part in it: ``taking`` around a computation, and the call that it gives before each step.

    Two locks, as at a counter with one place to wait: who computes holds ``now``, who comes next holds ``next``. Who
    has computed for a while and sees that ``next`` is held hands ``now`` over; alone, it never lets go. The operating
    system releases the locks of a process that ends, however it does.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock  # here, since few processes take turns, and all would wait for it

        self._now, self._next = (FileLock(folder / name, mode=0o600, thread_local=False) for name in ("now", "next"))
        self._folder = folder
        self._one = threading.Lock()
        self._taking = 0  # computations that are under way
        self._since = 0.0  # when the turn began
        self._again = 0.0  # from when on a turn is asked for

    @contextlib.contextmanager
    def taking(self) -> Iterator[Callable[[], None]]:
        """Give what is to be called before each step, and hand the turn over at the end."""
        with self._one:
            self._taking += 1
        try:
            yield self._before_step
        finally:
            with self._one:
                self._taking -= 1
                if not self._taking:
                    self._now.release()

    def _before_step(self) -> None:
        """Wait until it is this process's turn."""
        from filelock import Timeout

        if not self._one.acquire(blocking=False):
            return  # another thread of this process waits for it
        try:
            moment = time.monotonic()
            if moment < self._again or (self._now.is_locked and moment < self._since + _TURN):
                return
            _own(self._folder)
            if self._now.is_locked:
                self._since = moment
                with contextlib.suppress(Timeout), self._next.acquire(timeout=0):
                    return  # nobody waits
                self._now.release()
            with self._next.acquire(timeout=_PATIENCE, poll_interval=_POLL):
                self._now.acquire(timeout=_PATIENCE, poll_interval=_POLL)
            self._since = time.monotonic()
        except (Timeout, OSError) as error:
            self._again = time.monotonic() + _AFTERWARDS
            _log.info("Computes beside other studies on this machine instead of in turn with them: %s", error)
        finally:
            self._one.release()


@functools.cache
def _of(process: int) -> Turns:  # noqa: ARG001
    """Return the part of a process; a forked one must have its own, since it would hold what its parent holds."""
    return Turns(_folder())


def turns() -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Return this process's ``Turns.taking``, which does nothing where it leaves processors for another process."""
    if 2 * torch.get_num_threads() <= max(2, processors()):
        return contextlib.nullcontext(lambda: None)
    return _of(os.getpid()).taking()
