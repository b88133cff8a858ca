"""Where the cells of a study are computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from cutk.components import Component
from cutk.run.observer import Send

__all__ = ["Executor", "Pool"]


class Pool(Protocol):
    """What an executor has opened."""

    slots: int  # how many jobs it can do at once; it is given no more

    def submit(self, function: Callable[..., Any], job: Any, /) -> Future[Any]:
        """Have ``function(job, send)`` called by a worker, and return what will hold its result.

        Function, job and result can be pickled. ``send(name, arguments)`` is the worker's own, and leads to the
        ``hear`` that the executor was opened with. The function raises nothing; what the future raises is the
        executor's: that a worker was lost, say, for good.
        """


class Executor(Component):
    """Where the cells of a benchmark are computed: here one by one, in other processes, on a cluster.

    Attributes:
        here: whether it is this process that computes.
    """

    kind = "executor"
    required = ("open",)
    here: ClassVar[bool] = False

    @property
    def sharing(self) -> int:
        """How many workers share this machine's processors; each has its part of them."""
        return 1

    @property
    def sees_runs(self) -> bool:
        """Whether workers see the study's runs folder under its path; otherwise runs travel with jobs and results."""
        return True

    def open(self, hear: Send) -> AbstractContextManager[Pool]:
        """Start the workers; at the end of the block they are gone, whatever they were at.

        ``hear(name, arguments)`` may be called from any thread; what workers send is to reach it in their order.

        Raises:
            UsageError: if there are none to be had.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open()")
