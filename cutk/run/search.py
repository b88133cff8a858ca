"""Hyperparameter search without the test set: the points of a grid, each one's model, and the choice among them."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Score, Selector, Unlearner
from cutk.cost import Cost, measured
from cutk.errors import Caught, CellError
from cutk.guard import watched
from cutk.learning.recipe import require_finite
from cutk.options import Options
from cutk.problem.identification import all_but
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log, Task
from cutk.problem.truth import accuracy
from cutk.run.cells import Unlearning
from cutk.run.observer import Observer, tell_put_back
from cutk.run.records import Attempt, Scalars

if TYPE_CHECKING:
    from cutk.run.plan import Chosen

__all__ = ["Search", "admitted", "expand_grid", "pin", "search_points"]

_log = logging.getLogger(__name__)
Point = dict[str, Any]
# Measures a model, told its attempt and all that was logged on the way to it.
Judge = Callable[[nn.Module, Attempt, Scalars], None]
# Outputs are compared on so many training samples to see that a returned model is its weights and nothing more.
_PROBED = 64


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


def admitted(model: object, scenario: Scenario, probe: Tensor) -> nn.Module:
    """Return the architecture with a returned model's weights: what is measured is what is kept.

    Raises:
        CellError: if the returned model is something else, as its outputs on the training samples ``probe`` (int64
            ``[n]``) show.
    """
    if not isinstance(model, nn.Module):
        raise CellError(f"unlearn() returned {type(model).__name__}; expected a torch.nn.Module.")
    require_finite(model.eval(), "after unlearning")
    recipe, built = scenario.recipe, scenario.build()
    advice = "Return task.original, changed in place, or a task.fresh() that was trained"
    try:
        built.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise CellError(
            "unlearn() returned a model whose weights don't fit the architecture "
            f"({' '.join(str(error).split())[:160]}). {advice}; what was added to it has to be taken off."
        ) from None
    built = recipe.place(built).eval()
    ours, theirs = (recipe.logits(m, scenario.train, probe) for m in (built, model))
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise CellError(
            "unlearn() returned a model that computes something else than the architecture with its weights "
            f"(a hook, a wrapper, a replaced forward?). {advice}, without them: weights are all that is kept."
        )
    return built


@dataclass
class Search:
    """Every point of an unlearner's grid, each on a task of its own, and the selector's choice among them.

    A point's result doesn't depend on the others: each call starts with the same random state, on copies of all that
    could be written to. The method is told of S_f at the α of ``cell``. ``before`` is what the original predicts of
    S_f, int64 ``[n]``; ``prepared`` holds the curves that ``prepare`` logged, for each state.
    """

    unlearner: Chosen
    selector: Selector
    scenario: Scenario
    original: nn.Module
    cell: Unlearning
    observer: Observer

    def __post_init__(self) -> None:
        self.points = self.unlearner.points
        self.identified = self.scenario.identified(self.cell.alpha)
        self.retained = all_but(self.identified, len(self.scenario.train))
        self.before = self.scenario.recipe.predict(self.original, self.scenario.train, self.identified)
        self.prepared: dict[str, Scalars] = {}
        self._states: dict[str, tuple[Any, Cost] | CellError] = {}
        self._told: set[str] = set()

    @property
    def component(self) -> type[Unlearner]:
        """The method."""
        return self.unlearner.entry.component  # type: ignore[return-value]

    def _tell(self, who: str, changed: Sequence[str]) -> None:
        """Say once of each thing that a method, or ``who``, changed it."""
        new = [name for name in changed if name not in self._told]
        self._told.update(new)
        tell_put_back(self.observer, who, new)

    def _call(self, work: Callable[[Task], Any]) -> tuple[Any, Cost, Scalars]:
        """Let a method work on a task of its own; return what it gave, what that cost, and what it logged."""
        # Only a single long computation tells its own progress; of many short ones the number done is told.
        log = Log(
            None if len(self.points) > 1 else partial(self.observer.progress, self.cell),
            partial(self.observer.scalar, self.cell),
        )
        task = self.scenario.task(self.original, self.cell.alpha, log)
        with watched() as changed, isolated_rng(self.scenario.unlearning_seed()):
            result, cost = measured(self.scenario.recipe.device, lambda: work(task))
        self._tell(f"The unlearner '{self.unlearner.name}'", changed)
        scalars = {name: [v if math.isfinite(v) else None for v in values] for name, values in task.log.scalars.items()}
        return result, cost._replace(passes=task.train.drawn / len(task.train)), scalars

    def _prepare(self, key: str, options: Options) -> tuple[Any, Cost]:
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

    def _score(self, model: nn.Module) -> Score:
        """Measure what the selector asks for."""
        recipe, train, validation = self.scenario.recipe, self.scenario.train, self.scenario.validation
        now = recipe.predict(model, train, self.identified)
        known: Mapping[str, Callable[[], float | None]] = {
            "validation_accuracy": lambda: (
                None if validation is None else accuracy(recipe.predict(model, validation), validation.labels)
            ),
            "changed_fraction": lambda: float((now != self.before).double().mean()),
            "identified_accuracy": lambda: accuracy(now, train.labels[self.identified]),
            "retained_accuracy": lambda: accuracy(
                recipe.predict(model, train, self.retained), train.labels[self.retained]
            ),
        }
        return Score(**{name: known[name]() for name in self.selector.measures})

    def _attempt(self, options: Options) -> tuple[Attempt, nn.Module | None, Score | None, BaseException | None]:
        """Try one point; return what is recorded of it, and its model and score or its error."""
        attempt = Attempt(options=options.model_dump(mode="json"))
        with Caught() as caught:
            attempt.state = ", ".join(f"{name}={getattr(options, name)}" for name in self.component.prepared_by)
            state, prepare_cost = self._prepare(attempt.state, options)
            unlearn = self.component(options).unlearn
            returned, cost, attempt.scalars = self._call(lambda task: unlearn(task, state))
            total = prepare_cost + cost
            attempt.seconds, attempt.passes, attempt.peak_bytes = total.seconds, total.passes, total.peak_bytes
            probe = torch.cat([self.identified[: _PROBED // 2], self.retained[: _PROBED // 2]])
            with watched(draws=False) as changed:
                model = admitted(returned, self.scenario, probe)
            self._tell("The model", changed)
            score = self._score(model)
            attempt.measured_score = asdict(score)
            attempt.score = self._ask(lambda: self.selector.value(score))
        if caught.error is None:
            _log.debug("%s: %s took %.2f s, score %s", self.cell, attempt.options, attempt.seconds, attempt.score)
            return attempt, model, score, None
        self.observer.error(caught.error)
        attempt.error, attempt.traceback = caught.reason, caught.traceback
        _log.debug("%s: %s failed: %s", self.cell, attempt.options, attempt.error)
        return attempt, None, None, caught.error

    def _ask(self, question: Callable[[], Any]) -> Any:
        with watched(draws=False) as changed:
            answer = question()
        self._tell(f"The selector '{self.selector.name}'", changed)
        return answer

    def _choice(self, scores: Sequence[Score | None]) -> int:
        if type(self.selector).choose is Selector.choose:  # which needs no watching for each of many points
            return self.selector.choose(scores)
        return int(self._ask(lambda: self.selector.choose(list(scores))))

    def run(self, judge: Judge, *, judge_all: bool = False) -> tuple[list[Attempt], int, nn.Module]:
        """Try every point; return the attempts, the position that the selector chose, and that model.

        ``judge`` is called with the chosen model, or with every one that came about. If none did, it is a CellError.
        """
        attempts: list[Attempt] = []
        scores: list[Score | None] = []
        first: BaseException | None = None
        kept: tuple[int, nn.Module] | None = None  # one model at a time: a grid of large ones wouldn't fit
        for position, options in enumerate(self.points):
            attempt, model, score, error = self._attempt(options)
            attempts.append(attempt)
            scores.append(score)
            first = first or error
            if model is not None:
                if judge_all:
                    judge(model, attempt, self.logged(attempt))
                if self._choice(scores) == position:
                    kept = position, model
            if len(self.points) > 1:
                self.observer.progress(self.cell, position + 1, len(self.points))
        if kept is None:
            raise CellError(
                f"None of {len(self.points)} options gave a model. The first failed with: {attempts[0].error}"
            ) from first
        selected, chosen = self._choice(scores), kept[1]
        if selected != kept[0]:  # a rule that looks at all scores at once may come back to an earlier point
            attempt, again, _, _ = self._attempt(self.points[selected])
            if again is None:
                raise CellError(f"The chosen point failed when it was computed again: {attempt.error}")
            chosen = again
        if not judge_all:
            judge(chosen, attempts[selected], self.logged(attempts[selected]))
        return attempts, selected, chosen

    def logged(self, attempt: Attempt) -> Scalars:
        """Return all that was logged on the way to an attempt."""
        return self.prepared.get(attempt.state, {}) | attempt.scalars
