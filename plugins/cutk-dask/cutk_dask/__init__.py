"""Cells on a Dask cluster: on one of this machine's own, or on one that is running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cutk


class Dask(cutk.Executor):
    """Computes cells on a Dask cluster: one that it starts on this machine, or ``dask:tcp://HOST:PORT``."""

    name = "dask"
    variant = "scheduler"

    class Options(cutk.Options):
        """Which cluster, and what is asked of it."""

        scheduler: str = cutk.option("", help="address of a running one; without it, a cluster of this machine's own")
        workers: int | None = cutk.option(
            None, ge=1, le=1024, help="processes of a cluster of its own; one for each processor if not given"
        )
        memory: str = cutk.option("auto", help="of each of them, such as 4GiB; auto divides what there is, 0 sets none")
        folder: str = cutk.option("", help="where they may put files of their own; a temporary one if not given")
        retries: int = cutk.option(2, ge=0, le=100, help="times that a cell is tried again whose worker was lost")
        timeout: float = cutk.option(30.0, gt=0, le=86400, help="seconds until a scheduler has answered, with a worker")
        resources: str = cutk.option("", help="what a cell needs of a running cluster's worker, such as GPU=1")
        jobs: int | None = cutk.option(
            None, ge=1, le=100_000, help="given to a running scheduler at once; as many as it has workers if not given"
        )
        shared: bool = cutk.option(True, help="whether workers see the runs folder; if not, runs travel with results")

    @property
    def sharing(self) -> int:
        """As many as a cluster of its own has workers; of others nothing is known."""
        if self.options.scheduler:
            return 1
        if self.options.workers:
            return int(self.options.workers)
        return cutk.processors()

    @property
    def sees_runs(self) -> bool:
        """As it was told."""
        return bool(self.options.shared)

    @contextmanager
    def open(self, hear: cutk.Send) -> Iterator[Any]:
        """Start workers, or connect to those that there are."""
        from cutk_dask.cluster import opened  # imports distributed, which takes a second, and is seldom needed

        with opened(self.options, self.sharing, hear) as jobs:
            yield jobs


@cutk.hookimpl
def cutk_executors() -> list[type[cutk.Executor]]:
    """Provide ``dask``."""
    return [Dask]
