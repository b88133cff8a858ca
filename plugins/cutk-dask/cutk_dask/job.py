"""What a worker of a cluster does."""

from __future__ import annotations

import pickle
import platform
import random
import sys
import threading
from typing import Any

from distributed import Reschedule, Worker, get_worker

import cutk

# Seconds during which what is told is gathered, since a scheduler that hears thousands of workers has a limit.
GATHER = 0.05

# A cell needs its process to itself. A worker that came later than the study may have several threads nevertheless.
_TURN = threading.Lock()


class Mouth:
    """Sends what a job has to tell, in its order, by way of the scheduler.

    Args:
        worker: whose job it is.
        key: the job's name on the cluster.
        topic: under which the study listens.
    """

    def __init__(self, worker: Worker, key: str, topic: str) -> None:
        self._worker, self._key, self._topic = worker, key, topic
        self._told: list[tuple[str, tuple[Any, ...]]] = []
        self._turn = threading.Lock()

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Tell something.

        Raises:
            KeyboardInterrupt: if the study doesn't want the job any more: nothing else ends a thread.
        """
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise KeyboardInterrupt
        with self._turn:
            self._told.append((name, arguments))
            if len(self._told) == 1:
                self._worker.loop.add_callback(self._worker.loop.call_later, GATHER, self.flush)

    def flush(self) -> None:
        """Send what was told."""
        with self._turn:
            told, self._told = self._told, []
            if told:  # as bytes, since events can be what JSON can be
                self._worker.log_event(self._topic, pickle.dumps(told))


def _leave_chance_alone() -> None:
    """Let Dask draw from a generator of its own: it draws in its thread, in the middle of what a method draws."""
    own = random.Random()  # noqa: S311
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dask", "distributed", "tornado") and vars(module).get("random") is random:
            module.random = own  # type: ignore[attr-defined]


def do(packed: bytes, key: str, topic: str) -> Any:
    """Do a job: call a function with something and with ``send``.

    Raises:
        CellError: if it can't be unpacked.
        Reschedule: if nobody wants it any more.
    """
    worker = get_worker()
    try:
        function, job = pickle.loads(packed)  # noqa: S301  # Dask would unpickle it otherwise
    except Exception as error:
        raise cutk.CellError(
            f"The worker on '{platform.node()}' can't read its job ({type(error).__name__}: {error}). "
            "Install the same packages there as here."
        ) from error
    _leave_chance_alone()
    mouth = Mouth(worker, key, topic)
    with _TURN:
        try:
            return function(job, mouth.send)
        except KeyboardInterrupt:
            raise Reschedule from None
        finally:
            mouth.flush()
