"""A study of the tiny plan, watched, and ways to put another component into it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from cutk.plugins.registry import Entry, Provider
from cutk.run.chosen import Chosen
from cutk.run.observer import Observer
from cutk.run.setup import Composed
from cutk.run.store import Store
from cutk.run.study import Study


class Watcher(Observer):
    def __init__(self):
        super().__init__()
        self.computed, self.read, self.failed, self.warnings, self.trained, self.errors = [], [], [], [], [], []

    def cell_started(self, cell):
        self.trained.append(str(cell))

    def cell_finished(self, cell, run, read):
        (self.read if read else self.computed).append(str(cell))

    def cell_failed(self, cell, reason):
        self.failed.append((str(cell), reason))

    def warning(self, text):
        self.warnings.append(text)

    def error(self, error):
        self.errors.append(error)


@pytest.fixture
def watcher_class():
    return Watcher


@pytest.fixture
def bench(tmp_path):
    """Run a study in one runs folder; return its results and who watched."""

    def go(setup, runs="runs"):
        watcher = Watcher()
        return Study(setup, Store(tmp_path / runs), watcher).run(), watcher

    return go


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what a setup gives by itself, computed once for all tests that compare with it."""
    known = {}

    def go(setup):
        name = setup.plan.model_dump_json()
        if name not in known:
            known[name] = Study(setup, Store(tmp_path_factory.mktemp("undisturbed"))).run()
        return copy.deepcopy(known[name])

    return go


@pytest.fixture
def having():
    """The same setup with other components; each is a class, or a class and its options, one dict a point."""

    def chosen(component, *points):
        entry = Entry(component.kind, component.name, component, Provider("mine", "1", component.name))
        return Chosen(entry, tuple(component.Options(**point) for point in points or ({},)))

    def make(setup, *, unlearners=(), metrics=(), summaries=(), manipulations=(), selector=None):
        changes = {}
        for name, given in (("unlearners", unlearners), ("metrics", metrics), ("summaries", summaries)):
            if given:
                changes[name] = tuple(one if isinstance(one, Chosen) else chosen(*one) for one in given)
        if manipulations:
            changes["manipulations"] = tuple(
                one if isinstance(one, Composed) else Composed(one[0].name, (chosen(*one),)) for one in manipulations
            )
        if selector:
            changes["selector"] = chosen(*selector)
        return replace(setup, **changes)

    return make


@pytest.fixture
def stripped():
    """Records without what a clock measured."""

    def strip(records):
        kept = [record.model_dump() for record in records]
        for record in kept:
            record.pop("seconds")
            record["metrics"].pop("unlearn_seconds", None)
        return kept

    return strip
