"""One cell after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import cutk


class Inline:
    """Does each job at once."""

    slots = 1

    def submit(self, function: Callable[..., Any], job: Any, /) -> Future[Any]:
        """Do it; what the user does (Ctrl-C) passes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(job))
        except Exception as error:
            future.set_exception(error)
        return future


class Serial(cutk.Executor):
    """Computes one cell after the other, in this process."""

    name = "serial"
    here = True

    @contextmanager
    def open(self, hear: cutk.Send) -> Iterator[Inline]:
        """Yield what does each job at once; the study's observers are told directly."""
        yield Inline()


@cutk.hookimpl
def cutk_executors() -> list[type[cutk.Executor]]:
    """Provide ``serial``."""
    return [Serial]
