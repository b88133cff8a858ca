"""A method in a process of its own, which never had what only the evaluator knows.

The process is started afresh, not forked, and is handed what a developer has. It says what comes of it in JSON and
tensors, so that nothing that a method returns is run by whoever measures it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.data.batches import ResidentTrainSet
from cutk.data.lent import LentTrainSet, augmented, lend
from cutk.errors import Caught, CellError, one_line, printable
from cutk.guard import watched
from cutk.learning.recipe import Progress, Recipe, require_finite
from cutk.machine import repeatable
from cutk.options import Options
from cutk.plugins.registry import load_registry
from cutk.problem.expansion import require_suspicion
from cutk.problem.task import Log, Suspicion, Task
from cutk.run.chosen import Chosen
from cutk.run.messages import Line, Message
from cutk.run.method import Method
from cutk.run.records import Attempt, Scalars

__all__ = ["Isolated", "begin"]

# Seconds until a process that has closed its end of the line is ended.
PATIENCE = 30.0
# What tells where the truth lies.
_UNTOLD = ("CUTK_RUNS", "CUTK_DATA_ROOT", "PWD", "OLDPWD")
# What is imported stays: to look for garbage meanwhile takes a fifth of the time until a method can begin.
_BEGIN = "import gc; gc.disable(); from cutk.run.isolation import begin; begin()"


class _Came(BaseModel):
    """What comes back of a point besides its model."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    reason: str = ""
    traceback: str = ""
    seconds: float | None = None
    passes: float | None = None
    peak_bytes: int | None = None
    scalars: Scalars = {}
    prepared: Scalars | None = None


class Isolated(AbstractContextManager["Isolated"]):
    """``method`` in a process of its own while the block lasts; one that ends is replaced for the next point.

    Args:
        method: what works there, as it would work here.
        parts: the unlearner, the model and the recipe, which are looked up there by their names.
        inline: plugins that aren't installed, absolute.
        seeds: those that a task is given and doesn't show: of initialisation and of order.
        progress: as in ``Log``.
        scalar: as in ``Log``.

    Raises:
        CellError: on entry, if the process can't be started or lacks a component; on exit, if the method wrote to the
            samples.
    """

    def __init__(
        self,
        method: Method,
        parts: Sequence[Chosen],
        inline: Iterable[Path],
        seeds: tuple[int, int],
        progress: Progress | None,
        scalar: Callable[[str, int, float], None],
    ) -> None:
        self._method, self._parts, self._inline, self._seeds = method, parts, list(inline), seeds
        self._progress, self._scalar = progress, scalar
        self.prepared: dict[str, Scalars] = {}
        self.suspicion: Suspicion | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line
        self._folder: tempfile.TemporaryDirectory[str]

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._process is not None:
                self._say("look")
                if not self._hear("looked").plain.get("intact"):
                    raise CellError("It wrote to the samples, which every point shares. Work on a copy.")
        finally:
            self._end()

    def state(self, options: Options) -> str:
        """Return which of the prepared states a point uses."""
        return self._method.state(options)

    def work(self, options: Options, attempt: Attempt) -> nn.Module:
        """Return the model that ``options`` give; note in ``attempt`` what it cost and what was logged."""
        if self._process is None:
            self._start()
        self.suspicion = None
        try:
            self._say("work", {"point": self._parts[0].points.index(options), "prepared": self.state(options)})
            message = self._hear("came")
            try:
                came = _Came.model_validate(message.plain)
            except ValidationError as error:
                self._refuse(one_line(error))
            attempt.seconds, attempt.passes, attempt.peak_bytes = came.seconds, came.passes, came.peak_bytes
            attempt.scalars = came.scalars
            if came.prepared is not None:
                self.prepared[self.state(options)] = came.prepared
            if not came.reason:
                return self._loaded(message.tensors)
        except BaseException:
            self._end()  # in the middle of a talk
            raise
        failure = CellError(came.reason)
        failure.add_note(came.traceback)
        raise failure

    def _loaded(self, weights: dict[str, Tensor]) -> nn.Module:
        model = self._method.build()
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            self._refuse(one_line(error))
        require_finite(model, "after unlearning")
        return self._method.problem.recipe.place(model).eval()

    # The process.

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cutk-method-", ignore_cleanup_errors=True)
        told = {name: value for name, value in os.environ.items() if name not in _UNTOLD}
        told["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(map(os.path.abspath, sys.path)))
        if path := told.get("CUTK_PLUGIN_PATH"):
            told["CUTK_PLUGIN_PATH"] = os.pathsep.join(map(_absolute, filter(None, path.split(os.pathsep))))
        try:
            self._process = subprocess.Popen(  # noqa: S603  # this Python, and a fixed line
                [sys.executable, "-P", "-c", _BEGIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self._folder.name,
                env=told,
            )
            self._line = self._connected(self._process)
            self._say("begin", *self._known())
            self._hear("ready")
        except OSError as error:
            self._end()
            raise CellError(f"The method's process can't be started: {one_line(error)}.") from None
        except BaseException:
            self._end()
            raise

    def _connected(self, process: subprocess.Popen[bytes]) -> Line:
        if process.stdin is None or process.stdout is None:  # which they aren't, having been asked for
            raise CellError("The method's process has no pipes.")
        size = sum(tensor.nbytes for tensor in self._method.problem.original.state_dict().values())
        return Line(process.stdout, process.stdin, 2 * size + 64 * len(self._method.problem.train) + 2**28)

    def _known(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return all that a developer has: what a task is made of."""
        method, problem = self._method, self._method.problem
        plain: dict[str, Any] = {
            "parts": [_named(part) for part in self._parts],
            "inline": [str(path) for path in self._inline],
            "device": str(problem.recipe.device),
            "precision": problem.recipe.precision,
            "threads": torch.get_num_threads(),
            "seeds": self._seeds,
            "seed": method.seed,
            "progress": self._progress is not None,
        }
        tensors = {f"original/{name}": value for name, value in problem.original.state_dict().items()}
        tensors["identified"] = problem.identified
        for name, samples in (("train", problem.train), ("validation", problem.validation)):
            if isinstance(samples, ResidentTrainSet):
                plain[name], those = lend(samples)
                tensors |= {f"{name}/{key}": value for key, value in those.items()}
        return plain, tensors

    def _say(self, name: str, *content: Any) -> None:
        with suppress(OSError):  # nobody is there, which is told when it is to answer
            self._line.send(name, *content)

    def _hear(self, expected: str) -> Message:
        """Return the answer; until it comes, pass on what the method logs, and give it the batches that it asks for."""
        process = self._process
        while process is not None:
            try:
                name, plain, tensors = message = self._line.receive(lambda: process.poll() is None)
                match name:
                    case "progress":
                        if self._progress is not None:
                            self._progress(int(plain["done"]), int(plain["total"]))
                    case "scalar":
                        self._scalar(str(plain["name"]), int(plain["step"]), float(plain["value"]))
                    case "changed":
                        self._method.tell(printable(str(plain["who"])), [printable(str(it)) for it in plain["names"]])
                    case "suspicion":
                        count = len(self._method.problem.train)
                        found = require_suspicion(tensors["found"], count, "What the method suspects")
                        self.suspicion = Suspicion(found, bool(plain["probabilistic"]))
                    case "ask":
                        self._say("batch", {}, augmented(self._train, tensors))
                    case "refused":
                        raise CellError(f"The method's process can't begin: {plain['reason']}")
                    case _ if name == expected:
                        return message
                    case _:
                        raise ValueError(f"'{name}' is not expected")
            except EOFError:
                break
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                self._refuse(one_line(error))
        raise CellError(self._how_it_ended())

    @property
    def _train(self) -> ResidentTrainSet:
        train = self._method.problem.train
        if not isinstance(train, ResidentTrainSet):
            raise CellError("Samples that are streamed can't be lent to another process.")
        return train

    def _refuse(self, why: str) -> NoReturn:
        self._end()
        raise CellError(f"The method's process said what can't be understood ({why}).") from None

    def _how_it_ended(self) -> str:
        code: int | None = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(PATIENCE)
        self._end()
        if code is None:
            return "The method's process closed its line."
        if code >= 0:
            return f"The method's process ended by itself, with exit code {code}."
        hint = ", most often for want of memory" if code == -9 else ""
        return f"The method's process ended with signal {-code}{hint}."

    def _end(self) -> None:
        """End the process, whatever it is at."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._line.close()
            self._folder.cleanup()


def _absolute(path: str | Path) -> str:
    """Return a path as it is found from any folder."""
    return os.path.abspath(os.path.expanduser(path))


def _named(part: Chosen) -> dict[str, Any]:
    """Return a component so that it can be looked up elsewhere; files are named so that they are found there."""
    plain = [point.model_dump(mode="json") for point in part.points]
    for point, options in zip(plain, part.points, strict=True):
        point |= {name: _absolute(value) for name, value in options if isinstance(value, Path)}
    return {
        "kind": part.entry.kind,
        "name": part.name,
        "provider": part.entry.provider.requirement,
        "points": plain,
    }


# The other process.


def begin() -> None:
    """Work for the process that started this one, until it is gone."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A method that reads finds nothing, and what it prints is no answer.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process decides what it means
    mine = os.getcwd()

    def ended() -> NoReturn:
        shutil.rmtree(mine, ignore_errors=True)  # nobody else does, if the other process was killed
        os._exit(1)

    line = Line(reader, writer, ended=ended)
    method: Method | None = None
    points: tuple[Options, ...] = ()
    with Caught() as caught:
        method, points = _method(line.receive(), line)
        _warm_up(method)
    gc.enable()
    if method is None:
        line.send("refused", {"reason": caught.reason})
    else:
        line.send("ready")
    while method is not None:
        said = line.receive()
        if said.name == "look":
            line.send("looked", {"intact": method.problem.intact})
            continue
        came, attempt, weights = _Came(), Attempt(), {}
        with Caught() as caught:
            weights = method.work(points[said.plain["point"]], attempt).state_dict()
        came.reason, came.traceback = caught.reason, caught.traceback
        came.seconds, came.passes, came.peak_bytes = attempt.seconds, attempt.passes, attempt.peak_bytes
        came.scalars, came.prepared = attempt.scalars, method.prepared.get(said.plain["prepared"])
        if method.suspicion is not None:
            found, probabilistic = method.suspicion
            line.send("suspicion", {"probabilistic": probabilistic}, {"found": found})
        line.send("came", came.model_dump(), weights)
    line.receive()  # until this process is ended


def _found(part: Mapping[str, Any], registry: Any) -> tuple[type[Any], tuple[Options, ...]]:
    """Return a component's class and options; a ``CellError`` says that this process has another, or none."""
    entry = registry.get(part["kind"], part["name"])
    if entry.provider.requirement != part["provider"]:
        raise CellError(f"'{part['name']}' is of {entry.provider.requirement} there, and of {part['provider']} here.")
    return entry.component, tuple(entry.component.Options.model_validate(point) for point in part["points"])


def _method(said: Message, line: Line) -> tuple[Method, tuple[Options, ...]]:
    plain = said.plain
    torch.set_num_threads(plain["threads"])
    repeatable(torch.device(plain["device"]))
    registry = load_registry(inline=plain["inline"])
    (unlearner, points), (model, sizes), (recipe, trains) = (_found(part, registry) for part in plain["parts"])
    learning: Recipe = recipe(trains[0]).on(plain["device"], plain["precision"])
    asking, mine = threading.Lock(), os.getpid()

    def of(name: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(f"{name}/"): value for key, value in said.tensors.items() if key.startswith(f"{name}/")
        }

    def ask(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if os.getpid() != mine:
            raise CellError("Augmented samples with a trigger can be read in the method's own process alone.")
        with asking:
            line.send("ask", {}, tensors)
            return line.receive().tensors

    train, validation = (
        LentTrainSet(plain[name], of(name), learning.device, ask) if name in plain else None
        for name in ("train", "validation")
    )
    if train is None:
        raise CellError("It was given no training set.")
    architecture = partial(model(sizes[0]).build, train.shape, train.num_classes)

    def build() -> nn.Module:
        with isolated_rng(0):
            network: nn.Module = architecture()
            return network

    original = build()
    original.load_state_dict(of("original"))
    log = Log(
        (lambda done, total: line.send("progress", {"done": done, "total": total})) if plain["progress"] else None,
        lambda name, step, value: line.send("scalar", {"name": name, "step": step, "value": value}),
    )
    problem = Task(
        learning.place(original).eval(),
        train,
        said.tensors["identified"],
        learning,
        build=architecture,
        validation=validation,
        log=log,
        initialisation_seed=plain["seeds"][0],
        order_seed=plain["seeds"][1],
    )

    def tell(who: str, changed: Sequence[str]) -> None:
        if changed:
            line.send("changed", {"who": who, "names": list(changed)})

    name = plain["parts"][0]["name"]
    return Method(name, unlearner, problem, build, plain["seed"], tell), points


def _warm_up(method: Method) -> None:
    """Train for one step: a process's first one imports what takes seconds, and no method is to be charged that."""
    recipe, train = method.problem.recipe, method.problem.train
    batches = train.batches(None, recipe.options.batch_size, steps=1)
    with Caught(), watched(draws=False), isolated_rng(0):  # what fails here fails where a method needs it
        recipe.fit(recipe.place(method.build()), batches, steps=1)
