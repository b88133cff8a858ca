"""A sound executor, and those that break one check each."""

import itertools
import os
import threading
from concurrent.futures import Future
from contextlib import contextmanager

import cutk

SLOTS = itertools.count(1)


class AtOnce:
    """Does a job at once."""

    slots = 1

    def __init__(self, hear):
        self.hear = hear

    def call(self, function, job):
        return function(job, self.hear)

    def submit(self, function, job, /):
        future = Future()
        try:
            future.set_result(self.call(function, job))
        except Exception as error:
            future.set_exception(error)
        return future


class Direct(cutk.Executor):
    """Does each job at once, and hears it."""

    name = "direct"
    pool = AtOnce

    @contextmanager
    def open(self, hear):
        yield self.pool(hear)


class InPlace(Direct):
    """Does each job at once, and tells nothing."""

    name = "in-place"
    here = True

    @contextmanager
    def open(self, hear):
        yield AtOnce(None)


def pooling(**attributes):
    return type("Pooling", (Direct,), {"__doc__": Direct.__doc__, "pool": type("Pool", (AtOnce,), attributes)})


def opening(function, **attributes):
    return type("Opening", (Direct,), {"__doc__": Direct.__doc__, "open": contextmanager(function), **attributes})


def swallows(self, hear):
    try:
        yield AtOnce(hear)
    except BaseException:
        return


def leaves_a_thread(self, hear):
    # It ends when the tests do.
    thread = threading.Thread(target=threading.main_thread().join)
    thread.start()
    yield AtOnce(hear)


def fails(self, hear):
    raise OSError("no cluster today")
    yield


def yields_nothing(self, hear):
    yield


def changes_folder(self, hear):
    os.chdir("/")
    yield AtOnce(hear)


class Backwards(AtOnce):
    def call(self, function, job):
        told = []
        try:
            return function(job, lambda *what: told.append(what))
        finally:
            for name, arguments in reversed(told):
                self.hear(name, arguments)


def swallowing(self, function, job, /):
    future = Future()
    try:
        future.set_result(function(job, self.hear))
    except Exception:
        future.set_result(None)
    return future


SOUND = [Direct, InPlace]
BROKEN = {
    "jobs_are_done": [
        pooling(call=lambda _self, _function, job: job),
        pooling(slots=0),
        pooling(slots="2"),
        pooling(submit=lambda _self, function, job: function(job)),
        opening(fails),
        opening(yields_nothing),
    ],
    "failures_are_in_the_future": [pooling(submit=swallowing)],
    "events_are_heard_in_order": [
        pooling(call=lambda _self, function, job: function(job, lambda *_: None)),
        type("Backward", (Direct,), {"__doc__": Direct.__doc__, "pool": Backwards}),
    ],
    "sharing_is_a_number": [type("Sharing", (Direct,), {"__doc__": Direct.__doc__, "sharing": 0.5})],
    "nothing_works_on": [opening(swallows), opening(leaves_a_thread)],
    "same_seed_gives_the_same": [
        pooling(slots=property(lambda _self: next(SLOTS))),
    ],
    "nothing_global_is_left": [opening(changes_folder)],
}
