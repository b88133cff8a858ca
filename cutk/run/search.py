"""Hyperparameter search without the test set: the points of a grid, each one's model, and the choice among them."""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch import Tensor, nn

from cutk.components import Score, Selector, Unlearner
from cutk.errors import Caught, CellError, forget_locals
from cutk.guard import watched
from cutk.learning.recipe import Progress
from cutk.options import Options
from cutk.problem.task import Suspicion, Task
from cutk.problem.truth import accuracy
from cutk.run.choice import choice_of, value_of
from cutk.run.method import Logged
from cutk.run.observer import Observer, PutBack
from cutk.run.records import Attempt, Scalars

if TYPE_CHECKING:
    from cutk.run.chosen import Chosen

__all__ = ["BEYOND", "Search", "Working", "expand_grid", "keeping", "pin", "score_of", "search_points", "within"]

# What a failure begins with where every point of a grid costs too much.
BEYOND = "No point keeps enough validation accuracy"

_log = logging.getLogger(__name__)
Point = dict[str, Any]
T = TypeVar("T")
# Measures a model, told its attempt and all that was logged on the way to it.
Judge = Callable[[nn.Module, Attempt, Logged], None]


def expand_grid(grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[Point]:
    """List the points of a grid, in its order.

    >>> expand_grid({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    if isinstance(grid, Mapping):
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [dict(point) for point in grid] or [{}]


def pin(points: Sequence[Point], name: str, values: Sequence[Any]) -> list[Point]:
    """Restrict one option to ``values``, as a user asked.

    For each value, the points that have it stay. If none has it, every point takes it; of points that become equal
    by this, the first stays.

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

    ``random:N`` draws N points of the grid as pinned, without replacement and the same ones every time.
    """
    points = [{}] if search == "default" else expand_grid(unlearner.grid)
    for name, values in given.items():
        points = pin(points, name, values)
    kind, _, count = search.partition(":")
    if kind == "random" and int(count) < len(points):
        drawn = random.Random(0).sample(range(len(points)), int(count))  # noqa: S311  # no secret
        points = [points[position] for position in sorted(drawn)]
    return points


class Working(Protocol):
    """A method at work, in this process or in another."""

    prepared: dict[str, Scalars]  # the curves that ``prepare`` logged, for each state
    suspicion: Suspicion | None  # what was suspected on the way to the last point's model

    def state(self, options: Options) -> str:
        """Return which of the prepared states a point uses."""

    def work(self, options: Options, attempt: Attempt) -> nn.Module:
        """Return the model that ``options`` give; note in ``attempt`` what it cost and what was logged."""


def score_of(model: nn.Module, problem: Task, before: Tensor, measures: Sequence[str]) -> Score:
    """Measure what a selector asks for; ``before`` (int64 ``[n]``) is what the original predicts of S_f."""
    recipe, train, validation = problem.recipe, problem.train, problem.validation
    now = recipe.predict(model, train, problem.identified)
    known: Mapping[str, Callable[[], float | None]] = {
        "validation_accuracy": lambda: (
            None if validation is None else accuracy(recipe.predict(model, validation), validation.labels)
        ),
        "changed_fraction": lambda: float((now != before).double().mean()),
        "identified_accuracy": lambda: accuracy(now, train.labels[problem.identified]),
        "retained_accuracy": lambda: accuracy(
            recipe.predict(model, train, problem.retained), train.labels[problem.retained]
        ),
    }
    return Score(**{name: known[name]() for name in measures})


def keeping(floor: float, selector: Selector) -> Callable[[Score], bool]:
    """Return what says of a score whether at least ``floor`` of validation accuracy is kept, where there is any.

    ``selector`` measures that from now on, too, whatever its rule asks for.
    """
    selector.measures = tuple(dict.fromkeys((*selector.measures, "validation_accuracy")))  # type: ignore[misc]

    def admits(score: Score) -> bool:
        return score.validation_accuracy is None or score.validation_accuracy >= floor

    return admits


def within(max_loss: float, selector: Selector, problem: Task) -> dict[str, Any]:
    """Return what has a ``Search`` take no model that loses more than ``max_loss`` of validation accuracy.

    ``selector`` measures that from now on, too.
    """
    before = score_of(problem.original, problem, problem.identified, ("validation_accuracy",)).validation_accuracy
    return {"admits": keeping((before or 0.0) - max_loss - 1e-9, selector), "strict": True}


@dataclass
class Search:
    """Every point of an unlearner's grid, and the selector's choice among them.

    Attributes:
        name: what it is about, for logs.
        progress: told how many points are done.
        observer: told of errors before they become a line.
        admits: says of a score whether it keeps within the user's limits; others are chosen only if none does.
        goes_on: asked before each point but the first whether there is time for it.
        strict: whether it is an error that no point is admitted.
        before: what the original predicts of S_f, int64 ``[n]``.
    """

    unlearner: Chosen
    selector: Selector
    problem: Task
    name: str
    observer: Observer
    progress: Progress
    method: Working
    put_back: PutBack
    admits: Callable[[Score], bool] = lambda _score: True
    goes_on: Callable[[], bool] = lambda: True
    strict: bool = False

    def __post_init__(self) -> None:
        self.points = self.unlearner.points
        self.before = self.problem.recipe.predict(self.problem.original, self.problem.train, self.problem.identified)

    def _attempt(self, options: Options) -> tuple[Attempt, nn.Module | None, Score | None, BaseException | None]:
        """Try one point; return what is recorded of it, and its model and score or its error."""
        attempt = Attempt(options=options.model_dump(mode="json"))
        with Caught() as caught:
            attempt.state = self.method.state(options)
            model = self.method.work(options, attempt)
            score = score_of(model, self.problem, self.before, self.selector.measures)
            attempt.measured_score = asdict(score)
            attempt.score = self._ask(lambda: value_of(self.selector, score))
        if caught.error is None:
            _log.debug("%s: %s took %.2f s, score %s", self.name, attempt.options, attempt.seconds, attempt.score)
            return attempt, model, score, None
        self.observer.error(caught.error)
        attempt.error, attempt.traceback = caught.reason, caught.traceback
        forget_locals(caught.error)
        _log.debug("%s: %s failed: %s", self.name, attempt.options, attempt.error)
        return attempt, None, None, caught.error

    def _ask(self, question: Callable[[], T]) -> T:
        with watched(draws=False) as changed:
            answer = question()
        self.put_back(f"The selector '{self.selector.name}'", changed)
        return answer

    def _choice(self, scores: Sequence[Score | None]) -> int:
        admitted = [score if score is not None and self.admits(score) else None for score in scores]
        if any(score is not None for score in admitted):
            scores = admitted
        if type(self.selector).choose is Selector.choose:  # which needs no watching for each of many points
            return self.selector.choose(scores)
        return self._ask(lambda: choice_of(self.selector, scores))

    def run(self, judge: Judge, *, judge_all: bool = False) -> tuple[list[Attempt], int, nn.Module]:
        """Try every point; return the attempts, the position that the selector chose, and that model.

        ``judge`` is called with the chosen model, or with every one that came about. If none did, it is a CellError.
        """
        attempts: list[Attempt] = []
        scores: list[Score | None] = []
        first: BaseException | None = None
        kept: tuple[int, nn.Module, Logged] | None = None  # one model at a time: a grid of large ones wouldn't fit
        for position, options in enumerate(self.points):
            if position and not self.goes_on():
                break
            attempt, model, score, error = self._attempt(options)
            attempts.append(attempt)
            scores.append(score)
            first = first or error
            if model is not None:
                logged = self._logged(attempt)
                if judge_all:
                    judge(model, attempt, logged)
                if self._choice(scores) == position:
                    kept = position, model, logged
            if len(self.points) > 1:
                self.progress(position + 1, len(self.points))
        if kept is None:
            several = f"None of {len(attempts)} points gave a model. The first failed with: "
            raise CellError(f"{several if len(attempts) > 1 else ''}{attempts[0].error}") from first
        if self.strict and not any(score is not None and self.admits(score) for score in scores):
            raise CellError(f"{BEYOND}: {len(scores)} tried.")
        selected, (_, chosen, logged) = self._choice(scores), kept
        if selected != kept[0]:  # a rule that looks at all scores at once may come back to an earlier point
            attempt, again, _, _ = self._attempt(self.points[selected])
            if again is None:
                raise CellError(f"The chosen point failed when it was computed again: {attempt.error}")
            chosen, logged = again, self._logged(attempt)
        if not judge_all:
            judge(chosen, attempts[selected], logged)
        return attempts, selected, chosen

    def _logged(self, attempt: Attempt) -> Logged:
        """Return all that was said on the way to an attempt, which is the last one."""
        scalars = self.method.prepared.get(attempt.state, {}) | attempt.scalars
        return Logged(scalars, self.method.suspicion)
