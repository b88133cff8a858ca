"""A sound observer, and those that break one check each."""

import itertools
import os

import cutk

COUNT = itertools.count()


class Counting(cutk.Observer):
    """Counts what it is told of each cell."""

    name = "counting"

    def __init__(self, options=None):
        super().__init__(options)
        self.told = {}

    def progress(self, cell, done, total):
        self.told[cell] = self.told.get(cell, 0) + 1

    def cell_finished(self, cell, run, read):
        self.told.pop(cell, None)

    def cell_failed(self, cell, reason):
        self.told.pop(cell, None)


class Silent(cutk.Observer):
    """Keeps everything to itself."""

    name = "silent"


class Lacking(Counting):
    """Needs a library that isn't there."""

    def ready(self):
        raise cutk.UsageError("it lacks a library")


def telling(**methods):
    return type("Telling", (Counting,), {"__doc__": Counting.__doc__, **methods})


class Single(Counting):
    """Knows of one cell at a time."""

    def cell_started(self, cell):
        self.cell = cell

    def progress(self, cell, done, total):
        if cell != self.cell:
            raise ValueError("another cell")


class Strict(Counting):
    """Expects every cell to have been started."""

    def cell_started(self, cell):
        self.told[cell] = 0

    def cell_finished(self, cell, run, read):
        if not read:
            del self.told[cell]

    def cell_failed(self, cell, reason):
        del self.told[cell]


def touch(_self, _cell, run, _read):
    run.attempts[0].metrics["mine"] = 1.0


def counted(
    _self,
    _cell,
    run,
    _read,
):
    # The run has it until the end of the round.
    run.attempts[0].options["count"] = next(COUNT)


class Latest(Counting):
    """Says at the end which cell came last."""

    def cell_failed(self, cell, reason):
        self.latest = cell

    cell_started = progress = lambda self, cell, *_: setattr(self, "latest", cell)

    def finished(self):
        return str(self.latest)


SOUND = [Counting, Silent]
BROKEN = {
    "a_study_is_told": [
        telling(progress=lambda _self, _done, _total: None),
        telling(cell_finished=lambda _self, _cell, _read: None),
        telling(error=lambda _self, error: 1 / 0),
        telling(warning=None),
    ],
    "runs_are_untouched": [telling(cell_finished=touch)],
    "cells_interleave": [Single],
    "cells_end_without_a_start": [Strict],
    "nothing_may_come_of_it": [Latest],
    "odd_values_are_borne": [
        telling(scalar=lambda _self, _cell, _name, _step, value: int(value)),
        telling(warning=lambda _self, text: text.encode("ascii")),
    ],
    "same_seed_gives_the_same": [telling(cell_finished=counted)],
    "nothing_global_is_left": [telling(started=lambda _self, cells: os.environ.update(CELLS=str(cells)))],
}
