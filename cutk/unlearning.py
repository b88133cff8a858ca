"""Running a corrective method: every point of its grid on a fresh copy, scored without the test set."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from cutk.components import Unlearner
from cutk.errors import CellError, one_line
from cutk.options import Options
from cutk.recipe import Recipe, require_finite
from cutk.scenario import timed
from cutk.search import Score, select
from cutk.task import Log, Task, isolated_rng

__all__ = ["Attempt", "attempt_all", "score"]


@dataclass
class Attempt:
    """One model, and how it came about: a point of a grid, or a training.

    Attributes:
        options: the unlearner's options.
        seconds: wall-clock seconds; for a point of a grid ``prepare`` and ``unlearn``, evaluation excluded.
        score: the selection score, 0 to 1.
        validation_accuracy: the score's first part.
        changed_fraction: the score's second part.
        metrics: measured values by the metric's identity; None where a metric means nothing.
        failed_metrics: reasons, by the same identities.
        scalars: curves that the method logged.
        error: why there is no model, if there is none.
        traceback: where that happened.
    """

    options: dict[str, Any]
    seconds: float | None = None
    score: float | None = None
    validation_accuracy: float | None = None
    changed_fraction: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    failed_metrics: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""


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
    judge: Callable[[nn.Module, Attempt], None] | None = None,
) -> tuple[list[Attempt], int, nn.Module]:
    """Try every point and select one by the test-free rule.

    Args:
        component: the method.
        points: the validated options to try.
        task: the problem.
        original: M_o; each call gets a copy of its own.
        before: int64 ``[n]``, the original's predictions on S_f.
        seed: every call starts with this random state, so that a point's result doesn't depend on the others.
        progress: told how many points are done.
        judge: called with every model that came about, if all are to be measured.

    Returns:
        The attempts, the position of the selected one, and its model.

    Raises:
        CellError: if no point gave a model.
    """
    recipe = task.recipe

    def private() -> Task:
        task.generator.manual_seed(seed)
        # Only a single long computation tells its own progress; of many short ones the number done is told.
        on_progress = task.log.on_progress if len(points) == 1 else None
        log = Log(on_progress)
        return replace(task, original=copy.deepcopy(original), log=log)

    states: dict[str, tuple[Any, float]] = {}

    def prepared(options: Options) -> tuple[Any, float]:
        """Return the state that ``options`` need and what it cost, computed by the first point that needs it."""
        key = repr([getattr(options, name) for name in component.prepared_by])
        if key not in states:
            mine = private()
            with isolated_rng(seed):
                states[key] = timed(recipe.device, lambda: component(options).prepare(mine))
        return states[key]

    attempts: list[Attempt] = []
    scores: list[Score | None] = []
    best: nn.Module | None = None
    for position, options in enumerate(points):
        attempt = Attempt(options.model_dump(mode="json"))
        attempts.append(attempt)
        try:
            state, prepare_seconds = prepared(options)
            mine = private()
            method = component(options)
            with isolated_rng(seed):
                model, seconds = timed(recipe.device, partial(method.unlearn, mine, state))
            attempt.seconds = prepare_seconds + seconds
            attempt.scalars = mine.log.scalars
            if not isinstance(model, nn.Module):
                raise CellError(f"unlearn() returned {type(model).__name__}; expected a torch.nn.Module.")
            require_finite(model.eval(), "after unlearning")
            result = score(recipe, model, task, before)
            attempt.score = result.value
            attempt.validation_accuracy = result.validation_accuracy
            attempt.changed_fraction = result.changed_fraction
            if judge is not None:
                judge(model, attempt)
            scores.append(result)
            if select(scores) == position:
                best = model
        except (Exception, SystemExit) as error:
            attempt.error, attempt.traceback = one_line(error), traceback.format_exc()
            scores.append(None)
        if len(points) > 1:
            progress(position + 1, len(points))
    if best is None:
        raise CellError(f"None of {len(points)} options gave a model. The first failed with: {attempts[0].error}")
    return attempts, select(scores), best
