"""What happens in a study as lines of JSON, for machines."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import IO, Any

import cutk


def _number(value: float) -> float | None:
    """Return what JSON can say of a number."""
    return value if math.isfinite(value) else None


class Events(cutk.Observer):
    """Writes each event to a file as it happens, as a line of JSON.

    Every line has ``order``, which counts from 0, ``seconds`` since the study began and ``event``, the name; of a cell
    the ``cell``, its labels. The rest is the event's own: ``cells``; ``done`` and ``total``; ``name``, ``step`` and
    ``value``; ``key``, ``read`` and ``seconds_taken``; ``reason``; ``text``. Lines of earlier studies stay in the file.
    """

    name = "events"

    class Options(cutk.Options):
        """Where."""

        path: str = cutk.option("events.jsonl", help="the file, to which lines are added")

    _file: IO[str] | None = None
    _order = 0
    _began = 0.0
    _place: Path | None = None

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._early: list[str] = []  # warnings that came before the study began

    def _write(self, event: str, cell: Any = None, **more: Any) -> None:
        if self._file is None:
            return
        about = {"order": self._order, "seconds": round(time.monotonic() - self._began, 3), "event": event}
        labels = {} if cell is None else {"cell": cell.labels}
        self._file.write(json.dumps({**about, **labels, **more}, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        self._order += 1

    def started(self, cells: int) -> None:
        """Open the file."""
        self._place = Path(self.options.path).expanduser().absolute()
        self._order, self._began = 0, time.monotonic()
        self._open()
        self._write("started", cells=cells)
        for text in self._early:
            self._write("warning", text=text)
        self._early.clear()

    def _open(self) -> None:
        if self._place is not None:
            self._file = self._place.open("a", encoding="utf-8", errors="replace")

    def cell_started(self, cell: Any) -> None:
        """Write it."""
        self._write("cell_started", cell)

    def progress(self, cell: Any, done: int, total: int) -> None:
        """Write it."""
        self._write("progress", cell, done=done, total=total)

    def scalar(self, cell: Any, name: str, step: int, value: float) -> None:
        """Write it; what isn't finite is null."""
        self._write("scalar", cell, name=name, step=step, value=_number(value))

    def cell_finished(self, cell: Any, run: Any, read: bool) -> None:
        """Write the run's key, by which it lies in the runs folder."""
        self._write("cell_finished", cell, key=run.key, read=read, seconds_taken=run.chosen.seconds)

    def cell_failed(self, cell: Any, reason: str) -> None:
        """Write why."""
        self._write("cell_failed", cell, reason=reason)

    def warning(self, text: str) -> None:
        """Write it, also what comes before the study begins or after it has ended."""
        if self._place is None:
            self._early.append(text)
            return
        ended = self._file is None
        if ended:
            self._open()
        self._write("warning", text=text)
        if ended:
            self._close()

    def finished(self) -> None:
        """Close the file."""
        self._write("finished")
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@cutk.hookimpl
def cutk_observers() -> list[type[cutk.Observer]]:
    """Provide ``events``."""
    return [Events]
