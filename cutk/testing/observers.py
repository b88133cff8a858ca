"""What is checked of an observer: it is told of made-up studies."""

from __future__ import annotations

import contextlib
import math
import tempfile
from copy import deepcopy
from typing import Any

from cutk.errors import UsageError, one_line
from cutk.run.cells import Cell, Training, Unlearning
from cutk.run.keys import key_of
from cutk.run.observer import Observer
from cutk.run.records import Attempt, Environment, Identity, Labels, Measured, Run, Trained, Unlearned
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check

__all__ = ["CHECKS", "SUBJECT", "TriedObserver", "run_of"]

ORIGINAL, GOLD = Training("tiny-harm", 0, "original"), Training("tiny-harm", 0, "gold")
LOW, HIGH = Unlearning("tiny-harm", 0, "tiny-method", 0.5), Unlearning("tiny-harm", 0, "tiny-method", 1.0)
METRIC = "tiny-metric"


def run_of(cell: Cell) -> Run:
    """Return a run of a cell that nobody computed."""

    def identity(name: str) -> Identity:
        return Identity(name=name, provider="tiny==1", options=[{}])

    trained = Trained(
        role=cell.role if isinstance(cell, Training) else "original",
        data="a" * 64,
        corruption="b" * 64,
        manipulation=[identity(cell.manipulation)],
        model=identity("tiny-net"),
        recipe=identity("tiny-recipe"),
        validation_fraction=0.1,
        seed=cell.seed,
        precision="fp32",
        device="cpu",
        threads=1,
    )
    decided_by: Trained | Unlearned = trained
    if isinstance(cell, Unlearning):
        decided_by = Unlearned(
            original=trained,
            unlearner=identity(cell.unlearner),
            identification=identity("tiny-some"),
            identified="c" * 64,
            selector=identity("tiny-rule"),
            alpha=cell.alpha,
        )
    called = {"dataset": "tiny", "model": "tiny-net", "recipe": "tiny-recipe", "manipulated": 8}
    return Run(
        key=key_of(decided_by),
        labels=Labels(**cell.labels, **called, identified=4 if isinstance(cell, Unlearning) else None),
        decided_by=decided_by,
        provider="tiny==1",
        attempts=[Attempt(seconds=0.5, passes=2.0, metrics={METRIC: 0.75}, scalars={"loss": [1.0, 0.5]})],
        selected=0,
        measured={METRIC: Measured(name=METRIC)},
        environment=Environment(torch="2", python="3", device="cpu", hardware="a machine", threads=1, precision="fp32"),
    )


def _computed(observer: Observer, cell: Cell) -> None:
    """Tell of a cell as a worker and the study do."""
    observer.cell_started(cell)
    for step in range(2):
        observer.scalar(cell, "loss", step, 1.0 - step / 2)
        observer.progress(cell, step + 1, 2)
    observer.cell_finished(cell, run_of(cell), False)


class TriedObserver(Subject):
    """An observer that is told, in a folder of its own, of a study in which everything happens."""

    def asked(self) -> Observer:
        """Return a new observer that says it can observe.

        Raises:
            NotJudged: if it says that it can't.
        """
        observer: Observer = self.make()
        try:
            observer.ready()
        except UsageError as error:
            raise NotJudged(one_line(error)) from None
        return observer

    def told(self, tell: Any) -> None:
        """Have a new observer told, away from everything."""
        with self.apart(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            tell(self.asked())

    def work(self) -> list[Any]:
        """Tell it of one cell after the other; return what the runs have become."""
        runs = [run_of(cell) for cell in (ORIGINAL, LOW)]
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            observer = self.asked()
            observer.started(4)
            _computed(observer, ORIGINAL)
            observer.warning("The model changed the default dtype; that was put back.")
            observer.cell_finished(ORIGINAL, runs[0], True)
            observer.cell_started(LOW)
            observer.cell_finished(LOW, runs[1], False)
            observer.cell_started(HIGH)
            observer.error(ZeroDivisionError("it was a test"))
            observer.cell_failed(HIGH, "ZeroDivisionError: it was a test")
            observer.finished()
        return [run.model_dump() for run in runs]


@check("Take what cutk.Observer's methods take, under the same names, and raise nothing.", essential=True)
def a_study_is_told(subject: TriedObserver) -> None:
    """It can be told of all that happens in a study, in the order in which it does."""
    _ = subject.first


@check("Work on copies: the study goes on to write what it tells of.")
def runs_are_untouched(subject: TriedObserver) -> None:
    """A run that it is told of is as it was."""
    if subject.first.result != [run_of(cell).model_dump() for cell in (ORIGINAL, LOW)]:
        raise Unmet("it changes the run that it is told of")


@check("Keep what you remember of a cell by the cell, and expect news of any: cells hash.")
def cells_interleave(subject: TriedObserver) -> None:
    """What it is told of one cell may come between what it is told of another, as from several workers."""

    def tell(observer: Observer) -> None:
        observer.started(2)
        observer.cell_started(ORIGINAL)
        observer.cell_started(GOLD)
        for step in range(3):
            for cell in (GOLD, ORIGINAL):
                observer.scalar(deepcopy(cell), "loss", step, 0.5)
                observer.progress(deepcopy(cell), step + 1, 3)
        observer.cell_finished(GOLD, run_of(GOLD), False)
        observer.progress(ORIGINAL, 3, 3)
        observer.cell_finished(ORIGINAL, run_of(ORIGINAL), False)
        observer.finished()

    subject.told(tell)


@check("Expect cell_finished and cell_failed of cells that weren't started: they were read, or weren't tried.")
def cells_end_without_a_start(subject: TriedObserver) -> None:
    """A cell may be there, or have failed, without ever having been started."""

    def tell(observer: Observer) -> None:
        observer.started(3)
        observer.cell_finished(GOLD, run_of(GOLD), True)
        observer.cell_failed(ORIGINAL, "The manipulation 'tiny-harm' failed: it was a test")
        observer.cell_failed(LOW, "There is no original model: it was a test")
        observer.finished()

    subject.told(tell)


@check("Let finished() do without anything that only cells leave behind.")
def nothing_may_come_of_it(subject: TriedObserver) -> None:
    """A study may be given up before its first cell."""

    def tell(observer: Observer) -> None:
        observer.started(1)
        observer.finished()

    subject.told(tell)


@check("Expect nan and infinity in scalar(), names with spaces, and text of any characters.")
def odd_values_are_borne(subject: TriedObserver) -> None:
    """Values that aren't finite, and texts of whatever characters, are no reason to fail."""

    def tell(observer: Observer) -> None:
        observer.started(1)
        observer.warning("")
        observer.cell_started(LOW)
        for step, value in enumerate((math.nan, math.inf, -math.inf)):
            observer.scalar(LOW, "train loss/α", step, value)
        observer.warning("of \x1b[31m, \ud800 and\nanother line")
        observer.progress(LOW, 0, 0)
        observer.cell_failed(LOW, "Training diverged [/] {0} %s α")
        observer.finished()

    subject.told(tell)


SUBJECT = TriedObserver
CHECKS = all_checks(globals())
