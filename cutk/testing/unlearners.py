"""What is checked of an unlearner, on a tiny scenario and in the way in which the benchmark runs it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cutk.components import Sizes, Unlearner
from cutk.options import Options
from cutk.problem.scenario import Scenario
from cutk.problem.task import Task
from cutk.run.method import admitted
from cutk.run.search import expand_grid
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check
from cutk.testing.states import difference
from cutk.testing.tiny import MANIPULATED, tiny_models, tiny_scenario

__all__ = ["CHECKS", "SUBJECT", "TriedUnlearner"]

ALPHA = 0.5


@dataclass(frozen=True)
class _Trial:
    """What ``unlearn`` returned, the state as it left it, what else it changed, and whether it seeded torch anew."""

    model: Any
    prepared: Any
    spoilt: list[str]
    reseeded: bool


def _given(task: Task, options: Options) -> dict[str, Any]:
    """Return what a method may read and not change, by the name that its author calls it."""
    return {
        "task.train.labels": task.train.labels,
        "task.validation.labels": None if task.validation is None else task.validation.labels,
        "task.identified": task.identified,
        "task.recipe": task.recipe,
        "its own options": options,
    }


class TriedUnlearner(Subject):
    """An unlearner and the tiny problems that it is given."""

    @cached_property
    def scenario(self) -> Scenario:
        """A trigger on eight of 72 images."""
        return tiny_scenario(device=self.device)

    @cached_property
    def original(self) -> nn.Module:
        """M_o."""
        return tiny_models(device=self.device)[0]

    def task(self, alpha: float = ALPHA, *, validation: bool = True) -> Task:
        """Return a task as the benchmark hands it out: with copies of its own, and seeded anew."""
        task = self.scenario.task(self.original, alpha)
        if not validation:
            task.validation = None
        return task

    @property
    def seed(self) -> int:
        """The scenario's own for unlearning."""
        return self.scenario.unlearning_seed()

    def prepare(self, options: Options) -> Any:
        """Return what ``prepare`` gives."""
        with self.apart():
            return self.seeded(lambda: self.make(options).prepare(self.task()))[0]

    def survey(self, options: Options) -> Any:
        """Return what ``survey`` gives."""
        with self.apart():
            return self.seeded(lambda: self.make(options).survey(self.task().knowing_nothing()))[0]

    def work(self, alpha: float = ALPHA, *, validation: bool = True) -> _Trial:
        """Prepare and unlearn, each on a task of its own."""
        tasks = [self.task(alpha, validation=validation) for _ in range(2)]
        options = [self.options.model_copy() for _ in range(2)]
        state, seeded_first = self.seeded(lambda: self.make(options[0]).prepare(tasks[0]))
        model, seeded_then = self.seeded(lambda: self.make(options[1]).unlearn(tasks[1], state))
        expected = _given(self.task(alpha, validation=validation), self.options)
        spoilt = {
            name
            for task, own in zip(tasks, options, strict=True)
            for name, value in _given(task, own).items()
            if difference(expected[name], value)
        }
        if not all(task.intact for task in tasks):
            spoilt.add("the samples")
        return _Trial(model, state, sorted(spoilt), seeded_first or seeded_then)

    def decided(self, result: _Trial) -> dict[str, Tensor]:
        """Return the weights."""
        weights: dict[str, Tensor] = result.model.state_dict()
        return weights

    def require_useful(self, model: object) -> None:
        """Raise an error unless ``model`` is one that the benchmark can measure and keep."""
        probe = torch.arange(len(self.scenario.train))
        recipe, train = self.scenario.recipe, self.scenario.train
        recipe.predict(admitted(model, self.scenario.build, recipe, train, probe), train)

    def points(self) -> Iterator[Options]:
        """Yield the options to check it with, then the points of the grid."""
        yield self.options
        given = {name: getattr(self.options, name) for name in self.given}
        for point in expand_grid(self.component.grid):
            yield self.component.Options(**{**given, **point})

    @property
    def prepares(self) -> bool:
        """Whether it has a ``prepare`` of its own."""
        return self.component.prepare is not Unlearner.prepare

    @property
    def surveys(self) -> bool:
        """Whether it has a ``survey`` of its own."""
        return self.component.survey is not Unlearner.survey

    def require_same(self, method: Callable[[Options], Any], reads: Sequence[str], what: str) -> str | None:
        """Raise an error if ``method`` depends on an option that isn't among those it ``reads``.

        Return which weren't tried, if any.
        """
        names = [name for name in self.component.Options.model_fields if name not in reads]
        if not names:
            return None
        expected = method(self.options)
        untried = []
        for name in names:
            options = next(self.others(name), None)
            if options is None:
                untried.append(name)
            elif found := difference(expected, method(options), what):
                raise Unmet(f"with another '{name}' {what.removesuffix(' gives')} differs in {found}")
        if len(untried) == len(names):
            raise NotJudged(f"no other valid value was found for {', '.join(untried)}")
        return f"not tried, for want of another valid value: {', '.join(untried)}" if untried else None

    def others(self, name: str) -> Iterator[Options]:
        """Yield options that differ from those to check with in the option ``name`` alone."""
        now = getattr(self.options, name)
        candidates = [point[name] for point in expand_grid(self.component.grid) if name in point]
        for part in get_args(self.component.Options.model_fields[name].annotation):
            candidates += get_args(part) or [part]  # the words of a Literal, alone or beside None
        if isinstance(now, bool):
            candidates.append(not now)
        elif isinstance(now, int | float):
            candidates += [now + 1, now - 1, now * 2, now / 2]
        elif now is None:
            candidates += [1, 0.5]
        for value in candidates:
            try:
                options: Options = self.component.Options(**{**self.options.model_dump(), name: value})
            except ValueError:
                continue
            if options != self.options:
                yield options


@check("Name in grid only options that there are, with values that they allow; or change the options' bounds.")
def grid_points_are_valid(subject: TriedUnlearner) -> None:
    """Every point of the grid makes valid options."""
    for _ in subject.points():
        pass


@check("Return None, or (passes in prepare, passes in unlearn) as two finite numbers ≥ 0, for whatever options.")
def passes_are_two_numbers(subject: TriedUnlearner) -> None:
    """passes() tells two costs, or None where they can't be told beforehand."""
    for options in subject.points():
        passes = subject.component.passes(options, Sizes(train=72, identified=4, batch_size=16, steps=40))
        if passes is None:
            continue
        sound = isinstance(passes, tuple) and len(passes) == 2
        if not sound or not all(isinstance(p, int | float) and math.isfinite(p) and p >= 0 for p in passes):
            raise Unmet(f"for {options!r} it says {passes!r}")


@check(
    "Return task.original, changed in place, or a task.fresh() that was trained: hooks, wrappers and further layers "
    "have to be taken off, since a model is kept as its weights.",
    essential=True,
)
def unlearn_returns_a_model(subject: TriedUnlearner) -> None:
    """With half of S_m identified, unlearn() returns the architecture with other weights, and finite outputs."""
    trial = subject.first.result
    with subject.apart():
        subject.require_useful(trial.model)


@check("Leave the model where task.device is and its weights in the dtype they had; autocast changes no weights.")
def device_and_dtype_are_kept(subject: TriedUnlearner) -> None:
    """Parameters and buffers are on the task's device, in the original's dtypes."""
    before = subject.original.state_dict()
    for name, value in subject.first.result.model.state_dict().items():
        if value.dtype != before[name].dtype:
            raise Unmet(f"'{name}' is {value.dtype}".replace("torch.", ""))
        if value.device.type != subject.scenario.recipe.device.type:
            raise Unmet(f"'{name}' is on {value.device}, the task on {subject.scenario.recipe.device}")


@check(
    "Write to copies: labels.clone(), x.clone(). What a recipe decides is given to task.recipe.fit() instead: loss, "
    "steps, lr, modules."
)
def task_is_untouched(subject: TriedUnlearner) -> None:
    """Samples, labels, validation set, identified indices, recipe and the method's options are as they were."""
    for each in (subject.first, subject.second):
        if each.result.spoilt:
            raise Unmet(f"it writes to {', '.join(each.result.spoilt)}")


@check("Don't call torch.manual_seed: runs with different seeds would be the same. task.generator is seeded.")
def seed_is_left_to_cutk(subject: TriedUnlearner) -> None:
    """Torch's global generator is seeded by cutk alone."""
    if subject.second.result.reseeded:
        raise Unmet("it seeds torch's global generator")


@check("Copy what you change: every point of the grid reads the state that prepare() returned once.")
def prepared_state_is_shared(subject: TriedUnlearner) -> str | None:
    """unlearn() leaves what prepare() returned as it was."""
    if not subject.prepares:
        return None
    state = subject.prepare(subject.options)
    if found := difference(state, subject.first.result.prepared, "the state"):
        raise Unmet(f"after unlearn() it differs from what prepare() gives in {found}")
    try:
        copy.deepcopy(state)
    except Exception:
        return "the state can't be copied, so that every point of a grid computes it anew"
    return None


@check("Name in prepared_by every option that prepare() reads: points of the grid that agree on them share its state.")
def prepared_by_names_what_prepare_reads(subject: TriedUnlearner) -> str | None:
    """prepare() gives the same state for options that differ only in what prepared_by doesn't name."""
    if not subject.prepares:
        return None
    return subject.require_same(subject.prepare, subject.component.prepared_by, "the state")


@check("Name in surveyed_by every option that survey() reads: points of the grid that agree on them share its result.")
def surveyed_by_names_what_survey_reads(subject: TriedUnlearner) -> str | None:
    """survey() gives the same for options that differ only in what surveyed_by doesn't name."""
    if not subject.surveys:
        return None
    return subject.require_same(subject.survey, subject.component.surveyed_by, "its result")


@check("Read task.surveyed where it is there, and what self.survey(task.knowing_nothing()) gives where it is None.")
def survey_decides_nothing(subject: TriedUnlearner) -> str | None:
    """It gives the same model whether survey() was called for it or not."""
    if not subject.surveys:
        return "it has no survey()"
    surveyed = subject.survey(subject.options)
    with subject.apart():
        options = subject.options
        tasks = [subject.task() for _ in range(2)]
        for task in tasks:
            task.surveyed = surveyed
        state, _ = subject.seeded(lambda: subject.make(options).prepare(tasks[0]))
        model, _ = subject.seeded(lambda: subject.make(options).unlearn(tasks[1], state))
    expected = subject.first.result.model.state_dict()
    if found := difference(expected, model.state_dict(), "its weights"):
        raise Unmet(f"with task.surveyed the model differs in {found}")
    return None


@check("A batch may hold one sample: mind divisions by n - 1, batch norm on one sample, and squeeze() without dim.")
def one_identified_sample_is_enough(subject: TriedUnlearner) -> None:
    """It copes with a single identified sample, |S_f| = 1."""
    with subject.apart():
        subject.require_useful(subject.work(1 / MANIPULATED).model)


@check("Nothing has to be left to discover: S_f may be all of S_m.")
def all_may_be_identified(subject: TriedUnlearner) -> None:
    """It copes with all of S_m identified, S_f = S_m."""
    with subject.apart():
        subject.require_useful(subject.work(1.0).model)


@check("task.validation is None where the user holds nothing out: do without it, or with a part of task.retained.")
def validation_may_be_missing(subject: TriedUnlearner) -> None:
    """It copes with a task without validation set."""
    with subject.apart():
        subject.require_useful(subject.work(validation=False).model)


SUBJECT = TriedUnlearner
CHECKS = all_checks(globals())
