"""Hyperparameter search without the test set: the points of a grid, each one's model, and the choice among them."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn

from cutk.chance import isolated_rng
from cutk.components import Score, Selector, Unlearner
from cutk.cost import Cost, measured
from cutk.errors import Caught, CellError
from cutk.guard import watched
from cutk.options import Options
from cutk.problem.task import Task
from cutk.run.records import Attempt, Scalars

__all__ = ["Candidate", "Problem", "Search", "expand_grid", "pin", "search_points"]

Point = dict[str, Any]


def expand_grid(grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[Point]:
    """List the points of a grid, in its order.

    >>> expand_grid({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    >>> expand_grid({})
    [{}]
    """
    if isinstance(grid, Mapping):
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [dict(point) for point in grid] or [{}]


def pin(points: Sequence[Point], name: str, values: Sequence[Any]) -> list[Point]:
    """Restrict one option to ``values``, as a user asked.

    For each value, the points that have it stay. If none has it, every point takes it; of points that become equal
    by this, the first stays.

    >>> pin([{"a": 1, "b": 1}, {"a": 2, "b": 2}], "a", [2])
    [{'a': 2, 'b': 2}]
    >>> pin([{"a": 1, "b": 1}, {"a": 2, "b": 1}], "a", [7])
    [{'a': 7, 'b': 1}]
    """
    result: dict[str, Point] = {}
    for value in values:
        having = [point for point in points if name in point and point[name] == value]
        for point in having or [{**point, name: value} for point in points]:
            result.setdefault(json.dumps(point, sort_keys=True, default=str), point)
    return list(result.values())


def search_points(unlearner: type[Unlearner], given: Mapping[str, Sequence[Any]], search: str) -> list[Point]:
    """Return the options to try: the unlearner's grid (``grid``) or its defaults (``default``), as ``given`` pins them.

    Args:
        unlearner: the component class.
        given: for each option that the user set, the validated values.
        search: ``grid``, ``default``, or ``random:N`` for N points of the grid as pinned, drawn without replacement
            and the same ones every time; fewer if it has fewer.
    """
    points = [{}] if search == "default" else expand_grid(unlearner.grid)
    for name, values in given.items():
        points = pin(points, name, values)
    kind, _, count = search.partition(":")
    if kind == "random" and int(count) < len(points):
        drawn = random.Random(0).sample(range(len(points)), int(count))  # noqa: S311  # no secret
        points = [points[position] for position in sorted(drawn)]
    return points


@dataclass
class Candidate:
    """What came of one point of a grid: what is recorded of it, and the model if there is one."""

    attempt: Attempt
    model: nn.Module | None = None
    score: Score | None = None
    error: BaseException | None = None


class Problem(Protocol):
    """What a search needs of the problem that it is about; the worker's side of a scenario."""

    def task(self, *, silent: bool) -> Task:
        """Return a task of its own for one call of a method."""

    def admit(self, model: object) -> nn.Module:
        """Return the model that is measured and kept in place of the one that a method returned."""

    def score(self, model: nn.Module, measures: Sequence[str]) -> Score:
        """Measure what a selector asks for."""

    def changed(self, what: Sequence[str], who: str = "") -> None:
        """Take note of what a method, or ``who``, changed outside its task, and what was put back."""

    def failed(self, error: BaseException) -> None:
        """Take note of an error before it becomes a line in a record."""


class Search:
    """Every point of an unlearner's grid, each on a task of its own, and the selector's choice among them.

    A point's result doesn't depend on the others: each call starts with the same random state, on copies of all that
    could be written to.

    Args:
        component: the method.
        points: the validated options to try.
        selector: the test-free rule.
        problem: what is to be solved.
        seed: of every call's random state.
        device: where models live.
    """

    def __init__(
        self,
        component: type[Unlearner],
        points: Sequence[Options],
        selector: Selector,
        problem: Problem,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.component = component
        self.points = points
        self.selector = selector
        self.problem = problem
        self.seed = seed
        self.device = device
        self.prepared: dict[str, Scalars] = {}
        self._states: dict[str, tuple[Any, Cost] | CellError] = {}

    def _call(self, work: Callable[[Task], Any]) -> tuple[Any, Cost, Scalars]:
        """Let a method work on a task of its own; return what it gave, what that cost, and what it logged."""
        # Only a single long computation tells its own progress; of many short ones the number done is told.
        task = self.problem.task(silent=len(self.points) > 1)
        with watched() as changed, isolated_rng(self.seed):
            result, cost = measured(self.device, lambda: work(task))
        self.problem.changed(changed)
        curves = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in task.log.scalars.items()
        }
        return result, cost._replace(passes=task.train.drawn / len(task.train)), curves

    @contextmanager
    def _selecting(self) -> Iterator[None]:
        with watched(draws=False) as changed:
            yield
        self.problem.changed(changed, f"The selector '{self.selector.name}'")

    def _choice(self, scores: Sequence[Score | None]) -> int:
        if type(self.selector).choose is Selector.choose:
            return self.selector.choose(scores)
        with self._selecting():
            return self.selector.choose(list(scores))

    def prepare(self, key: str, options: Options) -> tuple[Any, Cost]:
        """Return a copy of the state that ``options`` need; the first point that needs it computes it for all."""
        if key not in self._states:
            with Caught() as caught:
                state, cost, self.prepared[key] = self._call(self.component(options).prepare)
                self._states[key] = state, cost
            if caught.error is not None:
                self._states[key] = CellError(f"prepare() failed: {caught.reason}")
                raise caught.error
        found = self._states[key]
        if isinstance(found, CellError):
            raise found
        state, cost = found
        with Caught():
            return copy.deepcopy(state), cost
        # What can't be copied is computed anew, so that no point can change another's.
        return self._call(self.component(options).prepare)[0], cost

    def attempt(self, options: Options) -> Candidate:
        """Try one point; one that fails is a candidate without a model."""
        candidate = Candidate(Attempt(options=options.model_dump(mode="json")))
        attempt = candidate.attempt
        with Caught() as caught:
            attempt.state = ", ".join(f"{name}={getattr(options, name)}" for name in self.component.prepared_by)
            state, prepare_cost = self.prepare(attempt.state, options)
            unlearn = self.component(options).unlearn
            model, cost, attempt.scalars = self._call(lambda task: unlearn(task, state))
            total = prepare_cost + cost
            attempt.seconds, attempt.passes, attempt.peak_bytes = total.seconds, total.passes, total.peak_bytes
            candidate.model = self.problem.admit(model)
            candidate.score = self.problem.score(candidate.model, self.selector.measures)
            attempt.measured_score = asdict(candidate.score)
            with self._selecting():
                attempt.score = self.selector.value(candidate.score)
        if caught.error is not None:
            self.problem.failed(caught.error)
            attempt.error, attempt.traceback = caught.reason, caught.traceback
            candidate.model, candidate.score, candidate.error = None, None, caught.error
        return candidate

    def run(
        self,
        judge: Callable[[nn.Module, Attempt, Scalars], None],
        *,
        judge_all: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Attempt], int, nn.Module]:
        """Try every point; return the attempts, the position that the selector chose, and that model.

        Args:
            judge: measures a model, told its attempt and all that was logged on the way to it.
            judge_all: call ``judge`` with every model that came about, and not with the chosen one alone.
            progress: told how many points are done.

        Raises:
            CellError: if no point gave a model.
        """
        attempts: list[Attempt] = []
        scores: list[Score | None] = []
        first: BaseException | None = None
        kept: tuple[int, nn.Module] | None = None  # one model at a time: a grid of large ones wouldn't fit
        for position, options in enumerate(self.points):
            candidate = self.attempt(options)
            attempts.append(candidate.attempt)
            first = first or candidate.error
            scores.append(candidate.score)
            if candidate.model is not None:
                if judge_all:
                    self._judge(judge, candidate.model, candidate.attempt)
                if self._choice(scores) == position:
                    kept = position, candidate.model
            if progress is not None and len(self.points) > 1:
                progress(position + 1, len(self.points))
        if kept is None:
            raise CellError(
                f"None of {len(self.points)} options gave a model. The first failed with: {attempts[0].error}"
            ) from first
        selected = self._choice(scores)
        model = kept[1]
        if selected != kept[0]:  # a rule that looks at all scores at once may come back to an earlier point
            again = self.attempt(self.points[selected])
            if again.model is None:
                raise CellError(f"The chosen point failed when it was computed again: {again.attempt.error}")
            model = again.model
        if not judge_all:
            self._judge(judge, model, attempts[selected])
        return attempts, selected, model

    def _judge(self, judge: Callable[[nn.Module, Attempt, Scalars], None], model: nn.Module, attempt: Attempt) -> None:
        judge(model, attempt, self.prepared.get(attempt.state, {}) | attempt.scalars)
