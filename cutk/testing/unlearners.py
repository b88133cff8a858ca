"""What holds of an unlearner, tried on a tiny scenario the way the benchmark runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Sizes, Unlearner
from cutk.learning.recipe import require_finite
from cutk.options import Options
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log, Task
from cutk.run.search import expand_grid
from cutk.testing import classes
from cutk.testing.classes import Subject, require_unchanged
from cutk.testing.findings import Check, check
from cutk.testing.states import difference, snapshot
from cutk.testing.surroundings import watched
from cutk.testing.tiny import MANIPULATED, tiny_scenario
from cutk.testing.verdicts import NotJudged, Unmet

__all__ = ["CHECKS", "Trials"]

ALPHA = 0.5


@dataclass(frozen=True)
class _Trial:
    """One run of ``prepare`` and ``unlearn``.

    Attributes:
        model: what came back.
        prepared: the state as ``unlearn`` left it.
        spoilt: what of the task isn't as it was.
        reseeded: whether torch's global generator was seeded anew.
        changed: what global state was changed.
    """

    model: Any
    prepared: Any
    spoilt: list[str]
    reseeded: bool
    changed: list[str]


class Trials(Subject):
    """An unlearner and the tiny problems that it is given; what several checks look at is tried once.

    Args:
        component: the class.
        given: options over its own defaults.
        device: where models live.
    """

    def __init__(self, component: type[Unlearner], given: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        super().__init__(component, given)
        self.device = device

    @cached_property
    def scenario(self) -> Scenario:
        """A trigger on eight of 72 images."""
        return tiny_scenario(device=self.device)

    @cached_property
    def original(self) -> nn.Module:
        """M_o."""
        return self.scenario.train_original(Log()).eval()

    @cached_property
    def untouched(self) -> tuple[dict[str, Tensor], Tensor]:
        """M_o's weights, and its outputs on S_tr, before anybody has worked with it."""
        return snapshot(self.original), self.outputs(self.original)

    def outputs(self, model: nn.Module) -> Tensor:
        """Return the logits on S_tr, float32 ``[N, classes]``."""
        return self.scenario.recipe.logits(model, self.scenario.train)

    def task(self, alpha: float = ALPHA, *, validation: bool = True) -> Task:
        """Return a task as the benchmark hands it out: with copies of its own, and seeded anew."""
        task = self.scenario.task(self.original, alpha)
        return task if validation else replace(task, validation=None)

    def seeded(self, method: Callable[[], Any]) -> tuple[Any, bool]:
        """Call ``method`` as the benchmark does; return its result, and whether it seeded torch anew."""
        seed = self.scenario.unlearning_seed()
        with isolated_rng(seed):
            result = method()
            return result, torch.initial_seed() != seed

    def prepare(self, options: Options) -> Any:
        """Return what ``prepare`` gives."""
        with watched():
            return self.seeded(lambda: self.make(options).prepare(self.task()))[0]

    def run(self, alpha: float = ALPHA, *, validation: bool = True, stirred: int = 1) -> _Trial:
        """Prepare and unlearn, each on a task of its own."""
        _ = self.untouched
        tasks = [self.task(alpha, validation=validation) for _ in range(2)]
        asked = self.task(alpha, validation=validation)
        with watched(stirred) as changed:
            state, seeded_first = self.seeded(lambda: self.make().prepare(tasks[0]))
            model, seeded_then = self.seeded(lambda: self.make().unlearn(tasks[1], state))
        intact = {
            "the pixels of task.train": asked.train.intact,
            "task.train.labels": all(torch.equal(task.train.labels, asked.train.labels) for task in tasks),
            "task.identified": all(torch.equal(task.identified, asked.identified) for task in tasks),
            "task.retained": all(torch.equal(task.retained, asked.retained) for task in tasks),
        }
        spoilt = [name for name, same in intact.items() if not same]
        return _Trial(model, state, spoilt, seeded_first or seeded_then, changed)

    @cached_property
    def first(self) -> _Trial:
        """A run with half of S_m identified."""
        return self.run()

    @cached_property
    def second(self) -> _Trial:
        """The same again. What was imported on the way has been imported by now, and no longer changes anything."""
        _ = self.first
        return self.run(stirred=2)

    def points(self) -> Iterator[Options]:
        """Yield the options to check it with, then the points of the grid."""
        yield self.options
        given = {name: getattr(self.options, name) for name in self.given}
        for point in expand_grid(self.component.grid):
            yield self.component.Options(**{**given, **point})


def _require_useful(trials: Trials, model: object) -> None:
    if not isinstance(model, nn.Module):
        raise Unmet(f"unlearn() returned {type(model).__name__}")
    require_finite(model.eval(), "after unlearning")
    logits, expected = trials.outputs(model), (len(trials.scenario.train), trials.scenario.train.num_classes)
    if logits.shape != expected:
        raise Unmet(f"for {expected[0]} images in {expected[1]} classes the logits' shape is {list(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise Unmet("some logits are infinite or not a number")


@check("Name in grid only options that there are, with values that they allow; or change the options' bounds.")
def grid_points_are_valid(trials: Trials) -> None:
    """Every point of the grid makes valid options."""
    for _ in trials.points():
        pass


@check("Return None, or (passes in prepare, passes in unlearn) as two finite numbers ≥ 0, for whatever options.")
def passes_are_two_numbers(trials: Trials) -> None:
    """passes() tells two costs, or None where they can't be told beforehand."""
    for options in trials.points():
        passes = trials.component.passes(options, Sizes(train=72, identified=4, batch_size=16, steps=40))
        if passes is None:
            continue
        sound = isinstance(passes, tuple) and len(passes) == 2
        if not sound or not all(isinstance(p, int | float) and math.isfinite(p) and p >= 0 for p in passes):
            raise Unmet(f"for {options!r} it says {passes!r}")


@check("Return a torch.nn.Module from unlearn(), task.original for example.", essential=True)
def unlearn_returns_a_network(trials: Trials) -> None:
    """With half of S_m identified, unlearn() returns a network with finite logits [B, classes]."""
    _require_useful(trials, trials.first.model)


@check("Leave the model where task.device is and its weights in the dtype they had; autocast changes no weights.")
def device_and_dtype_are_kept(trials: Trials) -> None:
    """Parameters and buffers are on the task's device, in the original's dtypes."""
    before, _ = trials.untouched
    dtypes = {value.dtype for value in before.values()}
    for name, value in trials.first.model.state_dict().items():
        expected = {before[name].dtype} if name in before else dtypes
        if value.dtype not in expected:
            raise Unmet(f"'{name}' is {value.dtype}".replace("torch.", ""))
        if value.device.type != trials.scenario.recipe.device.type:
            raise Unmet(f"'{name}' is on {value.device}, the task on {trials.scenario.recipe.device}")


@check(
    "Take all chance from task.generator or torch's global state, which cutk seeds, and none from NumPy, random or "
    "the clock; keep nothing on the class or in the module between calls."
)
def same_seed_gives_the_same_model(trials: Trials) -> None:
    """The same seed gives the same model, to the last bit."""
    if found := difference(trials.first.model.state_dict(), trials.second.model.state_dict(), "the weights"):
        raise Unmet(f"two runs differ in {found}")


@check("Work on task.original, which is a private copy; patch no classes, and remove every hook that you register.")
def original_is_untouched(trials: Trials) -> None:
    """The original model, of which every call gets a copy, has the weights and the outputs that it had."""
    weights, logits = trials.untouched
    _ = trials.second
    if found := difference(weights, snapshot(trials.original), "the weights"):
        raise Unmet(f"the original's are no longer the same in {found}")
    if difference(logits, trials.outputs(trials.original)):
        raise Unmet("the original's outputs are no longer the same, though its weights are")


@check("Write to copies: labels.clone(), x.clone().")
def task_is_untouched(trials: Trials) -> None:
    """The task's training set, labels, identified and retained indices are as they were."""
    for trial in (trials.first, trials.second):
        if trial.spoilt:
            raise Unmet(f"it writes to {', '.join(trial.spoilt)}")


@check("Put back what you set, in a finally or with a context manager (torch.no_grad, torch.autocast, …).")
def nothing_global_is_left(trials: Trials) -> None:
    """Random states, grad mode, threads, dtypes, autocast, warnings, folder and environment are as they were."""
    require_unchanged(trials.second.changed)


@check("Don't call torch.manual_seed: runs with different seeds would be the same. task.generator is seeded.")
def seed_is_left_to_cutk(trials: Trials) -> None:
    """Torch's global generator is seeded by cutk alone."""
    if trials.second.reseeded:
        raise Unmet("it seeds torch's global generator")


@check("Copy what you change: every point of the grid reads the state that prepare() returned once.")
def prepared_state_is_shared(trials: Trials) -> None:
    """unlearn() leaves what prepare() returned as it was."""
    if not _prepares(trials):
        return
    if found := difference(trials.prepare(trials.options), trials.first.prepared, "the state"):
        raise Unmet(f"after unlearn() it differs from what prepare() gives in {found}")


def _prepares(trials: Trials) -> bool:
    return trials.component.prepare is not Unlearner.prepare


def _another(trials: Trials, name: str) -> Options | None:
    """Return options that differ from those to check with in the option ``name`` alone, if any can be found."""
    now = getattr(trials.options, name)
    candidates = [point[name] for point in expand_grid(trials.component.grid) if name in point]
    for part in get_args(trials.component.Options.model_fields[name].annotation):
        candidates += get_args(part) or [part]  # the words of a Literal, alone or beside None
    if isinstance(now, bool):
        candidates.append(not now)
    elif isinstance(now, int):
        candidates += [now + 1, now - 1]
    elif isinstance(now, float):
        candidates += [now * 2, now / 2, now + 1.0]
    elif now is None:
        candidates += [1, 0.5]
    for value in candidates:
        try:
            options: Options = trials.component.Options(**{**trials.options.model_dump(), name: value})
        except ValueError:
            continue
        if options != trials.options:
            return options
    return None


@check("Name in prepared_by every option that prepare() reads: points of the grid that agree on them share its state.")
def prepared_by_names_what_prepare_reads(trials: Trials) -> str | None:
    """prepare() gives the same state for options that differ only in what prepared_by doesn't name."""
    names = [name for name in trials.component.Options.model_fields if name not in trials.component.prepared_by]
    if not _prepares(trials) or not names:
        return None
    expected = trials.prepare(trials.options)
    untried = []
    for name in names:
        options = _another(trials, name)
        if options is None:
            untried.append(name)
        elif found := difference(expected, trials.prepare(options), "the state"):
            raise Unmet(f"with another '{name}' the state differs in {found}")
    if len(untried) == len(names):
        raise NotJudged(f"no other valid value was found for {', '.join(untried)}")
    return f"not tried, for want of another valid value: {', '.join(untried)}" if untried else None


@check("A batch may hold one sample: mind divisions by n - 1, batch norm on one sample, and squeeze() without dim.")
def one_identified_sample_is_enough(trials: Trials) -> None:
    """It copes with a single identified sample, |S_f| = 1."""
    _require_useful(trials, trials.run(1 / MANIPULATED).model)


@check("Nothing has to be left to discover: S_f may be all of S_m.")
def all_may_be_identified(trials: Trials) -> None:
    """It copes with all of S_m identified, S_f = S_m."""
    _require_useful(trials, trials.run(1.0).model)


@check("task.validation is None where the user holds nothing out: do without it, or with a part of task.retained.")
def validation_may_be_missing(trials: Trials) -> None:
    """It copes with a task without validation set."""
    _require_useful(trials, trials.run(validation=False).model)


CHECKS: tuple[Check[Trials], ...] = (
    *classes.CHECKS,
    grid_points_are_valid,
    passes_are_two_numbers,
    unlearn_returns_a_network,
    device_and_dtype_are_kept,
    same_seed_gives_the_same_model,
    original_is_untouched,
    task_is_untouched,
    nothing_global_is_left,
    seed_is_left_to_cutk,
    prepared_state_is_shared,
    prepared_by_names_what_prepare_reads,
    one_identified_sample_is_enough,
    all_may_be_identified,
    validation_may_be_missing,
)
