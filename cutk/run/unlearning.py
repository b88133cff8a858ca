"""Running a corrective method: every point of its grid on a fresh copy, scored without the test set."""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Unlearner
from cutk.cost import Cost, measured
from cutk.errors import CellError, one_line
from cutk.learning.recipe import Recipe, require_finite
from cutk.options import Options
from cutk.problem.task import Log, Task
from cutk.run.search import Score, select

__all__ = ["Attempt", "Outcome", "Scalars", "SpoiltError", "attempt_all", "score"]

Scalars = dict[str, list[float | None]]


@dataclass
class Attempt:
    """One model, and how it came about: a point of a grid, or a training.

    Attributes:
        options: the unlearner's options.
        seconds: wall-clock seconds; for a point of a grid ``prepare`` and ``unlearn``, evaluation excluded.
        passes: samples drawn meanwhile, divided by |S_tr|.
        peak_bytes: the most memory meanwhile, beyond what was in use before.
        score: the selection score, 0 to 1.
        validation_accuracy: the score's first part.
        changed_fraction: the score's second part.
        metrics: measured values by the metric's identity; None where a metric means nothing.
        breakdowns: the values of a breakdown by their labels, by the same identities; None as above.
        failed_metrics: reasons, by the same identities.
        scalars: curves that ``unlearn`` logged.
        state: which of the prepared states it used.
        error: why there is no model, if there is none.
        traceback: where that happened.
    """

    options: dict[str, Any]
    seconds: float | None = None
    passes: float | None = None
    peak_bytes: int | None = None
    score: float | None = None
    validation_accuracy: float | None = None
    changed_fraction: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    breakdowns: dict[str, dict[str, float] | None] = field(default_factory=dict)
    failed_metrics: dict[str, str] = field(default_factory=dict)
    scalars: Scalars = field(default_factory=dict)
    state: str = ""
    error: str = ""
    traceback: str = ""

    @property
    def cost(self) -> Cost | None:
        """What it cost, if it came about."""
        return None if self.seconds is None else Cost(self.seconds, self.passes, self.peak_bytes)

    def cost_was(self, cost: Cost) -> None:
        """Keep what it cost."""
        self.seconds, self.passes, self.peak_bytes = cost.seconds, cost.passes, cost.peak_bytes


@dataclass
class Outcome:
    """What came of trying every point of a grid.

    Attributes:
        attempts: one for each point.
        selected: the position of the one that the test-free rule takes.
        model: the selected model.
        prepared: curves that ``prepare`` logged, for each state.
    """

    attempts: list[Attempt]
    selected: int
    model: nn.Module
    prepared: dict[str, Scalars] = field(default_factory=dict)


class SpoiltError(CellError):
    """A method has changed what others share: whatever is computed from it now would be wrong."""


def kept_scalars(log: Log) -> Scalars:
    """Return what was logged, for JSON: a value that isn't finite, which JSON has no word for, is none."""
    return {name: [v if math.isfinite(v) else None for v in values] for name, values in log.scalars.items()}


def score(recipe: Recipe, model: nn.Module, task: Task, before: Tensor) -> Score:
    """Measure what the selection rule asks for.

    Without a validation set its accuracy counts as 0 for every point, so that S_f decides alone.

    Args:
        recipe: how to run the model.
        model: the candidate.
        task: what a developer knows.
        before: int64 ``[n]``, the original's predictions on S_f.
    """
    changed = recipe.predict(model, task.train, task.identified) != before
    accuracy = 0.0
    if task.validation is not None:
        right = recipe.predict(model, task.validation) == task.validation.labels
        accuracy = float(right.double().mean())
    return Score(accuracy, float(changed.double().mean()))


def attempt_all(
    component: type[Unlearner],
    points: Sequence[Options],
    task: Task,
    original: nn.Module,
    before: Tensor,
    *,
    seed: int,
    progress: Callable[[int, int], None],
    judge: Callable[[nn.Module, Attempt, Scalars], None],
    judge_all: bool = False,
) -> Outcome:
    """Try every point and select one by the test-free rule.

    Args:
        component: the method.
        points: the validated options to try.
        task: the problem.
        original: M_o; each call gets a copy of its own.
        before: int64 ``[n]``, the original's predictions on S_f.
        seed: every call starts with this random state, so that a point's result doesn't depend on the others.
        progress: told how many points are done.
        judge: measures a model, told its attempt and all that was logged on the way to it.
        judge_all: call ``judge`` with every model that came about, and not with the selected one alone.

    Raises:
        CellError: if no point gave a model.
    """
    recipe = task.recipe

    def private() -> Task:
        task.generator.manual_seed(seed)
        return replace(
            task,
            original=copy.deepcopy(original),
            train=task.train.drawing_from(task.generator),
            identified=task.identified.clone(),
            retained=task.retained.clone(),
            # Only a single long computation tells its own progress; of many short ones the number done is told.
            log=task.log.anew(silent=len(points) > 1),
        )

    def costing(mine: Task, work: Callable[[], Any]) -> tuple[Any, Cost]:
        with isolated_rng(seed):
            result, cost = measured(recipe.device, work)
        return result, cost._replace(passes=mine.train.drawn / len(mine.train))

    states: dict[str, tuple[Any, Cost] | CellError] = {}
    prepared: dict[str, Scalars] = {}

    def prepare(key: str, options: Options) -> tuple[Any, Cost]:
        """Return the state that ``options`` need; the first point that needs it computes it, or fails for all."""
        if key not in states:
            mine = private()
            try:
                states[key] = costing(mine, lambda: component(options).prepare(mine))
                prepared[key] = kept_scalars(mine.log)
            except (Exception, SystemExit) as error:
                states[key] = CellError(f"prepare() failed: {one_line(error)}")
                raise
        state = states[key]
        if isinstance(state, CellError):
            raise state
        return state

    attempts: list[Attempt] = []
    scores: list[Score | None] = []
    best: nn.Module | None = None
    for position, options in enumerate(points):
        attempt = Attempt(options.model_dump(mode="json"))
        attempts.append(attempt)
        try:
            attempt.state = ", ".join(f"{name}={getattr(options, name)}" for name in component.prepared_by)
            state, prepare_cost = prepare(attempt.state, options)
            mine = private()
            model, cost = costing(mine, partial(component(options).unlearn, mine, state))
            attempt.cost_was(prepare_cost + cost)
            attempt.scalars = kept_scalars(mine.log)
            if not isinstance(model, nn.Module):
                raise CellError(f"unlearn() returned {type(model).__name__}; expected a torch.nn.Module.")
            require_finite(model.eval(), "after unlearning")
            if not task.train.intact:
                raise SpoiltError("It wrote to the training images, which every method shares. Work on a copy.")
            result = score(recipe, model, task, before)
            attempt.score = result.value
            attempt.validation_accuracy = result.validation_accuracy
            attempt.changed_fraction = result.changed_fraction
            if judge_all:
                judge(model, attempt, prepared[attempt.state] | attempt.scalars)
            scores.append(result)
            if select(scores) == position:
                best = model
        except SpoiltError:
            raise
        except (Exception, SystemExit) as error:
            attempt.error, attempt.traceback = one_line(error), traceback.format_exc()
            scores.append(None)
        if len(points) > 1:
            progress(position + 1, len(points))
    if best is None:
        raise CellError(f"None of {len(points)} options gave a model. The first failed with: {attempts[0].error}")
    selected = select(scores)
    if not judge_all:
        judge(best, attempts[selected], prepared[attempts[selected].state] | attempts[selected].scalars)
    return Outcome(attempts, selected, best, prepared)
