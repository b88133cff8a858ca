"""Several observers are told as one, and a worker tells those elsewhere."""

from __future__ import annotations

import inspect

import pytest

import cutk
from cutk.run.cells import Training
from cutk.run.observer import TOLD, Observer, Observers, Relay

CELL = Training("badnet", 0, "original")


class Keeping(cutk.Observer):
    """Keeps what it is told."""

    name = "keeping"

    def __init__(self, options=None):
        super().__init__(options)
        self.told = []

    def progress(self, cell, done, total):
        self.told.append((cell, done, total))

    def warning(self, text):
        self.told.append(text)


class Failing(Keeping):
    """Fails as soon as it is told how far a cell is."""

    name = "failing"

    def progress(self, cell, done, total):
        super().progress(cell, done, total)
        raise ZeroDivisionError("it was a test")


def test_one_that_fails_is_told_no_more_and_the_others_are():
    first, failing, last = Keeping(), Failing(), Keeping()
    observers = Observers(first, [failing, last])
    for done in (1, 2):
        observers.progress(CELL, done, 2)
    assert failing.told == [(CELL, 1, 2)]
    assert last.told == [(CELL, 1, 2), (CELL, 2, 2)]
    begun, warning, ended = first.told
    assert (begun, ended) == ((CELL, 1, 2), (CELL, 2, 2))
    assert warning.startswith(
        "The observer 'failing' failed, and is told no more: ZeroDivisionError: it was a test (test_observer.py:"
    )


def test_one_that_is_not_ready_says_so_before_a_study(setup_of, having, tmp_path, watcher_class):
    from dataclasses import replace

    from cutk.run.store import Store
    from cutk.run.study import Study

    class Lacking(Keeping):
        def ready(self):
            raise cutk.UsageError("it lacks a library")

    class Confused(Keeping):
        def ready(self):
            raise ZeroDivisionError("it was a test")

    setup, watcher = setup_of(), watcher_class()

    def study(observer):
        return Study(replace(setup, observers=having(setup, metrics=[(observer,)]).metrics), Store(tmp_path), watcher)

    with pytest.raises(cutk.UsageError, match="it lacks a library"):
        study(Lacking)
    assert watcher.warnings == []
    study(Confused)
    (warning,) = watcher.warnings
    assert warning.startswith("The observer 'keeping' failed, and is told no more: ZeroDivisionError")


def test_what_the_first_one_raises_passes_through():
    class Stopping(Keeping):
        def progress(self, cell, done, total):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers(Stopping(), []).progress(CELL, 1, 2)


def test_a_terminal_that_is_gone_stops_no_work():
    class Gone(Keeping):
        def progress(self, cell, done, total):
            raise BrokenPipeError(32, "Broken pipe")

    other = Keeping()
    Observers(Gone(), [other]).progress(CELL, 1, 2)
    assert other.told == [(CELL, 1, 2)]


def test_everything_that_can_be_told_is_told_to_all():
    methods = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if name[0] != "_"}
    assert methods - set(TOLD) == set()
    assert set(vars(Observers(Observer(), []))) >= methods


def test_a_worker_sends_what_it_is_told_as_names_and_arguments():
    sent = []
    relay = Relay(lambda name, arguments: sent.append((name, arguments)))
    relay.cell_started(CELL)
    relay.progress(CELL, 1, 2)
    relay.scalar(CELL, "loss", 0, 0.5)
    relay.warning("mind the gap")
    relay.error(ValueError("which can't be pickled, perhaps"))
    assert sent == [
        ("cell_started", (CELL,)),
        ("progress", (CELL, 1, 2)),
        ("scalar", (CELL, "loss", 0, 0.5)),
        ("warning", ("mind the gap",)),
    ]


def test_one_that_fails_in_a_study_costs_a_warning_and_no_result(setup_of, having, tmp_path, watcher_class):
    from dataclasses import replace

    from cutk.run.store import Store
    from cutk.run.study import Study

    setup = setup_of(alphas=[1.0], unlearners=["none"], options={}, recipe={"steps": 3})
    setup = replace(setup, observers=having(setup, metrics=[(Failing,)]).metrics)
    watcher = watcher_class()
    results = Study(setup, Store(tmp_path / "runs"), watcher).run()
    assert len(results.records) == 3
    (warning,) = watcher.warnings
    assert warning.startswith("The observer 'failing' failed, and is told no more:")
