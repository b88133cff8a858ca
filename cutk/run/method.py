"""A method at work: each point of its grid on a task of its own, and what comes back looked at before it is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Unlearner
from cutk.cost import Cost, measured
from cutk.data.batches import TrainSet
from cutk.errors import Caught, CellError
from cutk.guard import watched
from cutk.learning.recipe import Recipe, require_finite
from cutk.options import Options
from cutk.problem.expansion import require_suspicion
from cutk.problem.task import Suspicion, Task
from cutk.run.records import Attempt, Scalars

__all__ = ["Build", "Logged", "Method", "Surveys", "admitted"]

Build = Callable[[], nn.Module]
# What ``survey`` found and what that cost, by the class that has it and the options that it reads.
Surveys: TypeAlias = dict[tuple[type[Unlearner], str], tuple[Any, Cost]]
# Outputs are compared on so many training samples to see that a returned model is its weights and nothing more.
_PROBED = 64


class Logged(NamedTuple):
    """What a method said on the way to a model."""

    scalars: Scalars
    suspicion: Suspicion | None = None


def admitted(model: object, build: Build, recipe: Recipe, train: TrainSet, probe: Tensor) -> nn.Module:
    """Return the architecture with a returned model's weights: what is measured is what is kept.

    ``build`` makes the architecture with arbitrary weights.

    Raises:
        CellError: if the returned model is something else, as its outputs on the training samples ``probe`` (int64
            ``[n]``) show.
    """
    if not isinstance(model, nn.Module):
        raise CellError(f"unlearn() returned {type(model).__name__}; expected a torch.nn.Module.")
    require_finite(model.eval(), "after unlearning")
    built = build()
    advice = "Return task.original, changed in place, or a task.fresh() that was trained"
    try:
        built.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise CellError(
            "unlearn() returned a model whose weights don't fit the architecture "
            f"({' '.join(str(error).split())[:160]}). {advice}; what was added to it has to be taken off."
        ) from None
    built = recipe.place(built).eval()
    ours, theirs = (recipe.logits(m, train, probe) for m in (built, model))
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise CellError(
            "unlearn() returned a model that computes something else than the architecture with its weights "
            f"(a hook, a wrapper, a replaced forward?). {advice}, without them: weights are all that is kept."
        )
    return built


@dataclass
class Method:
    """An unlearner and the problem that it is given, of which every call gets a private copy.

    A point's result doesn't depend on the others: each call starts with the same random state, on copies of all that
    could be written to.

    Attributes:
        name: how the user calls it.
        component: its class.
        problem: what every call is given a private copy of.
        build: makes the architecture with arbitrary weights.
        seed: what every call's chance is seeded with.
        tell: called as ``tell(who, changed)`` with what a call changed in the process.
        surveys: what ``survey`` found for each class that has one and its options; methods on one original share it.
        prepared: the curves that ``prepare`` logged, for each state.
        suspicion: what was suspected on the way to the last point's model, if anything was said.
    """

    name: str
    component: type[Unlearner]
    problem: Task
    build: Build
    seed: int
    tell: Callable[[str, Sequence[str]], None]
    surveys: Surveys = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prepared: dict[str, Scalars] = {}
        self.suspicion: Suspicion | None = None
        self._suspected: dict[str, Suspicion | None] = {}
        self._states: dict[str, tuple[Any, Cost] | CellError] = {}

    def shared_costs(self) -> dict[str, Cost]:
        """Return what ``prepare`` cost, for each state that points share."""
        return {key: found[1] for key, found in self._states.items() if not isinstance(found, CellError)}

    def state(self, options: Options) -> str:
        """Return which of the prepared states a point uses."""
        return ", ".join(f"{name}={getattr(options, name)}" for name in self.component.prepared_by)

    def work(self, options: Options, attempt: Attempt) -> nn.Module:
        """Return the model that ``options`` give; note in ``attempt`` what it cost and what was logged."""
        self.suspicion = None
        state, prepare_cost = self._prepare(self.state(options), options)
        unlearn, surveyed = self.component(options).unlearn, self._survey(options)[0]
        returned, cost, (attempt.scalars, found) = self._call(lambda task: unlearn(task, state), surveyed)
        self.suspicion = self._suspected.get(self.state(options)) if found is None else found
        total = prepare_cost + cost
        attempt.seconds, attempt.passes, attempt.peak_bytes = total.seconds, total.passes, total.peak_bytes
        known = self.problem
        probe = torch.cat([known.identified[: _PROBED // 2], known.retained[: _PROBED // 2]])
        with watched(draws=False) as changed:
            model = admitted(returned, self.build, known.recipe, known.train, probe)
        self.tell("The model", changed)
        return model

    def _call(
        self, work: Callable[[Task], Any], surveyed: Any = None, problem: Task | None = None
    ) -> tuple[Any, Cost, Logged]:
        """Let the method work on a task of its own; return what it gave, what that cost, and what it logged."""
        task = (problem or self.problem).private(self.seed)
        task.surveyed = surveyed
        with watched() as changed, isolated_rng(self.seed):
            result, cost = measured(self.problem.recipe.device, lambda: work(task))
        self.tell(f"The unlearner '{self.name}'", changed)
        scalars = {name: [v if math.isfinite(v) else None for v in values] for name, values in task.log.scalars.items()}
        suspected = task.log.suspected
        if suspected is not None:
            require_suspicion(suspected.values, len(task.train), f"What '{self.name}' suspects")
        return result, cost._replace(passes=task.train.drawn / len(task.train)), Logged(scalars, suspected)

    def _survey(self, options: Options) -> tuple[Any, Cost]:
        """Return a copy of what all S_f share under ``options``; whoever needs it first computes it."""
        if self.component.survey is Unlearner.survey:
            return None, Cost(0.0, 0.0)
        who = self.component.surveyor or self.component
        key = who, ", ".join(f"{name}={getattr(options, name)}" for name in self.component.surveyed_by)
        if key not in self.surveys:
            found, cost, _ = self._call(self.component(options).survey, problem=self.problem.knowing_nothing())
            self.surveys[key] = found, cost
        found, cost = self.surveys[key]
        return copy.deepcopy(found), cost

    def _prepare(self, key: str, options: Options) -> tuple[Any, Cost]:
        """Return a copy of the state that ``options`` need; the first point that needs it computes it for all."""
        if key not in self._states:
            with Caught() as caught:
                surveyed, survey_cost = self._survey(options)
                state, cost, logged = self._call(self.component(options).prepare, surveyed)
                self.prepared[key], self._suspected[key] = logged
                self._states[key] = state, survey_cost + cost
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
        return self._call(self.component(options).prepare, self._survey(options)[0])[0], cost
