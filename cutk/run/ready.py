"""Which of the cells that could be computed is the next."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from cutk.run.cells import Cell, Training

__all__ = ["Ready"]


class Ready:
    """The cells whose needs are met, and which of them is the next.

    Those of one manipulation and seed come before those of the next, since a worker that opened their data has them at
    hand. Where several workers share them, those that take longest go first, so that no worker is left alone with one
    at the end (Graham, Bounds on Multiprocessing Timing Anomalies, 1969). What takes longest is told by cells of the
    same unlearner that are through; an original model, for which others wait, and what nothing is known of yet go
    before that, in the plan's order.

    Args:
        cells: of the plan, in its order.
        by_duration: whether the longest go first, or the plan's order is kept.
    """

    def __init__(self, cells: Sequence[Cell], *, by_duration: bool) -> None:
        self._cells, self._by_duration = cells, by_duration
        self._groups: dict[tuple[str, int], int] = {}
        for cell in cells:
            self._groups.setdefault((cell.manipulation, cell.seed), len(self._groups))
        self._waiting: list[int] = []  # numbers of groups, of which a heap gives the lowest
        self._ready: dict[int, dict[str, deque[int]]] = {}
        self._seconds: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._ready)

    def add(self, position: int) -> None:
        """Have the cell at this position of the plan be computed; those of a group are added in their order."""
        cell = self._cells[position]
        group = self._groups[cell.manipulation, cell.seed]
        if group not in self._ready:
            heapq.heappush(self._waiting, group)
        self._ready.setdefault(group, {}).setdefault(_what(cell), deque()).append(position)

    def took(self, cell: Cell, seconds: float) -> None:
        """Learn how long a cell took."""
        if not (isinstance(cell, Training) and cell.role == "original"):
            self._seconds[_what(cell)] = seconds

    def pop(self) -> int:
        """Return the position of the next cell, and forget it; there has to be one."""
        group = self._waiting[0]
        kinds = self._ready[group]

        def turn(what: str) -> tuple[float, int]:
            return -self._seconds.get(what, math.inf) if self._by_duration else 0.0, kinds[what][0]

        what = min(kinds, key=turn)
        position = kinds[what].popleft()
        if not kinds[what]:
            del kinds[what]
        if not kinds:
            del self._ready[group]
            heapq.heappop(self._waiting)
        return position


def _what(cell: Cell) -> str:
    return cell.role if isinstance(cell, Training) else f"unlearner {cell.unlearner}"
