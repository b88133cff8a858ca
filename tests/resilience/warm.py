"""Runs the command line as often as it is asked to, each time in a fork of this process, and kills it or lies to it.

Importing what a study needs takes seconds, and forking what has imported it and computed nothing a hundredth of one.
The first order is rehearsed, to learn what that is. An order is a line of JSON on the standard input, a list of runs
that are carried out at once; each has ``args``, ``cwd``, ``runs`` (the folder that is watched) and ``say`` (a file for
what it prints), and may have

- ``kill``, a number of events, and ``whom``: *itself* before that event; *writer*, the same, but what merely looks
  isn't counted, since it leaves nothing different; or, as soon as it is heard of, *parent* (of the workers) or *group*
  (all processes of the run);
- ``fault``: ``at``, the event that fails with ``errno``, and ``until``, the last one that does;
- ``remove``: the event before which the whole folder is removed;
- ``days`` that the clock jumps by at ``jump``, an event.

An event is whatever is done to a file or folder below ``runs``, and what the study's observers are told. The answer is
a line of JSON, for each run its exit status and the number of its events, of all and of those that write; it comes when
all processes of the runs are gone. A ``trace`` is a file for the events' names.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from multiprocessing import get_context

PR_SET_CHILD_SUBREAPER = 36
LOOKS = {"os.listdir", "os.scandir", "os.stat", "os.lstat", "load", "told", "read"}
WRITES = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.link", "os.symlink"),
    *("os.chmod", "shutil.rmtree"),
}


class Fate:
    """Counts a process's events, and lets happen to it what was ordered."""

    def __init__(self, order, pipe):
        self.order, self.pipe, self.below = order, pipe, os.path.realpath(order["runs"])
        self.count = self.writes = 0
        self.busy = False

    def is_below(self, path):
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.below)

    def heard(self, event, arguments):
        """Be told of what Python is about to do."""
        if event in LOOKS | WRITES and not self.busy:
            paths = [each for each in arguments if isinstance(each, str | bytes | os.PathLike)]
            # What is removed below a folder that is open is named relative to it.
            relative = event in ("os.remove", "os.rmdir") and arguments[-1] != -1
            if relative or any(map(self.is_below, paths)):
                reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
                self.next(f"{'read' if reads else event} {paths[0] if paths else ''}")

    def next(self, what, *, may_fail=True):
        """Count an event; it may be the last."""
        self.busy = True
        writes = what.partition(" ")[0] not in LOOKS
        self.count += 1
        self.writes += writes
        os.write(self.pipe, b"w" if writes else b"l")
        if trace := self.order.get("trace"):
            with open(trace, "a") as file:
                file.write(f"{self.count} {os.getpid()} {what}\n")
        whom, at = self.order.get("whom"), self.order.get("kill")
        if (whom == "itself" and at == self.count) or (whom == "writer" and writes and at == self.writes):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.order.get("remove") == self.count:
            shutil.rmtree(self.below, ignore_errors=True)
        if self.order.get("jump") == self.count:
            real, by = time.time, self.order["days"] * 24 * 3600
            time.time = lambda: real() + by
        self.busy = False
        fault = self.order.get("fault")
        if fault and may_fail and fault["at"] <= self.count <= fault["until"]:
            self.busy = False
            raise OSError(fault["errno"], os.strerror(fault["errno"]), what.partition(" ")[2] or None)


def watch(fate):
    """Let ``fate`` hear of what Python doesn't tell: looks, and files that are written in several steps."""
    import safetensors.torch as tensors_in_files
    from safetensors import SafetensorError

    import cutk.run.files as filing
    import cutk.run.observer as observing

    sys.addaudithook(fate.heard)
    looks = {name: getattr(os, name) for name in ("stat", "lstat")}

    def looking(name):
        def look(path, *arguments, **keywords):
            if not fate.busy and fate.is_below(path):
                fate.next(f"os.{name} {path}")
            return looks[name](path, *arguments, **keywords)

        return look

    for name in looks:
        setattr(os, name, looking(name))
    sync, save, load = os.fsync, tensors_in_files.save_file, filing.load_file

    def synced(number):
        fate.busy = True
        path = os.readlink(f"/proc/self/fd/{number}")
        if fate.is_below(path) and path.endswith("safetensors"):  # was in halves already
            fate.next("os.fsync", may_fail=True)
        elif fate.is_below(path):
            with open(path, "rb") as file:
                content = file.read()
            half = len(content) // 2
            os.ftruncate(number, half)
            fate.next("os.fsync")
            os.pwrite(number, content[half:], half)
        fate.busy = False
        sync(number)

    def saved(tensors, path):
        # The library reports what the system says in words of its own.
        try:
            fate.next(f"save {path}")
            save(tensors, path)
            fate.busy = True
            os.truncate(path, os.path.getsize(path) // 2)
            fate.busy = False
            fate.next(f"save {path}")
        except OSError as error:
            fate.busy = False
            text = f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
            raise SafetensorError(text) from None
        save(tensors, path)

    def loaded(path):
        try:
            fate.next(f"load {path}")
        except OSError:  # whatever it was
            raise FileNotFoundError(f"No such file or directory: {path}") from None
        return load(path)

    os.fsync, tensors_in_files.save_file, filing.load_file = synced, saved, loaded
    telling = observing.Observers._telling

    def counting(self, name):
        tell = telling(self, name)

        def told(*arguments):
            fate.next(f"told {name}", may_fail=False)
            tell(*arguments)

        return told

    observing.Observers._telling = counting


def carry_out(order, pipe):
    """Run the command in this process, and end it."""
    os.setsid()
    os.chdir(order["cwd"])
    say = os.open(order["say"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(say, stream)
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    sys.stdin = os.fdopen(0)
    watch(Fate(order, pipe))
    from cutk.cli import main

    try:
        main(order["args"])
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def rehearse(order):
    """Import what carrying out an order imports: it is done once in a folder that nobody looks into."""
    ours, theirs = os.pipe()
    process = os.fork()
    if not process:
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
            os.chdir(folder)
            from cutk.cli import main

            with contextlib.suppress(SystemExit):
                main(order["args"])
        with os.fdopen(theirs, "w") as answer:
            answer.write(" ".join(sys.modules))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        names = answer.read().split()
    os.waitpid(process, 0)
    for name in names:
        with contextlib.suppress(ImportError):  # some are names alone
            importlib.import_module(name)


def hear(process, pipe, order):
    """Return how a run ended and how many events there were; kill it when it is time to."""
    at = order.get("kill") if order.get("whom") in ("parent", "group") else None
    events = writes = 0
    while piece := os.read(pipe, 1 if at else 4096):
        events += len(piece)
        writes += piece.count(b"w")
        if at and events >= at:
            (os.killpg if order["whom"] == "group" else os.kill)(process, signal.SIGKILL)
            at = None
    os.close(pipe)
    return {"events": events, "writes": writes}


def reap():
    """Return how processes ended, when all of them are over."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.wait()
            ended[process] = os.waitstatus_to_exitcode(status)
    return ended


def stop_listening():
    """Close the sockets at which the parent listens, which a worker that isn't forked doesn't have.

    With one of its own, a worker whose parent is killed before it answers waits for the answer for ever.
    """
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            end = socket.socket(fileno=int(number))
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                end.close()
            end.detach()


def main():
    import torch

    import cutk.guard as guard
    from cutk.plugins.registry import load_registry

    torch.set_num_threads(1)
    load_registry()
    # Workers are forks, too: a process that computes with one thread has none that forking would lose.
    import cutk_builtin.executors.processes as processes

    processes.get_context = lambda _: get_context("fork")
    begin = processes._begin

    def alone(*given):
        stop_listening()
        begin(*given)

    processes._begin = alone
    # Looking for functions that components replace takes most of the time of so small a study, and isn't tested here.
    guard.owners = lambda _: iter(())
    # Workers outlive a study that is killed, and nobody else might wait for them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    known = False
    for line in sys.stdin:
        began, orders = [], json.loads(line)
        if not known:
            rehearse(orders[0])
            gc.collect()
            gc.freeze()
            known = True
        for order in orders:
            ours, theirs = os.pipe()
            process = os.fork()
            if not process:
                os.close(ours)
                os.set_inheritable(theirs, True)
                carry_out(order, theirs)
            os.close(theirs)
            began.append((process, ours, order))
        heard = [hear(*each) for each in began]
        ended = reap()
        answers = [{**each, "status": ended[process]} for each, (process, _, _) in zip(heard, began, strict=True)]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
