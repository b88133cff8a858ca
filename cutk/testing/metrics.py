"""What holds of a metric, tried on models known to be good and bad, and of a summary, tried on made-up curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from cutk.components import Breakdown
from cutk.cost import Cost
from cutk.problem.scenario import Scenario
from cutk.problem.task import Log
from cutk.problem.truth import Curve, Evaluation
from cutk.testing import classes
from cutk.testing.classes import Subject, require_unchanged
from cutk.testing.findings import Check, check
from cutk.testing.states import difference, snapshot
from cutk.testing.surroundings import watched
from cutk.testing.tiny import Harm, Reader, tiny_scenario
from cutk.testing.verdicts import NotJudged, Unmet

__all__ = ["CHECKS", "SUMMARY_CHECKS", "Curves", "Judgements"]

HARMS: tuple[Harm, ...] = ("trigger", "two classes", "everything")
PERFECT, HARMED = "a perfect model", "a model that errs wherever it can"


@dataclass(frozen=True)
class _Judgement:
    """A metric's values for one model: by label for a breakdown, under an empty label otherwise.

    Attributes:
        raw: what it returned.
        touched: what of the evaluation isn't as it was.
        changed: what global state was changed.
    """

    raw: Any
    touched: list[str]
    changed: list[str]

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that there are."""
        if isinstance(self.raw, Mapping):
            return self.raw
        return {} if self.raw is None else {"": self.raw}


class _Problem:
    """One tiny scenario with the models that are judged in it."""

    def __init__(self, harm: Harm) -> None:
        self.scenario: Scenario = tiny_scenario(harm)
        target = self.scenario.corruption.target
        self.models: dict[str, nn.Module] = {
            "the original": self.scenario.train_original(Log()).eval(),
            "gold": self.scenario.train_gold(Log()).eval(),
            PERFECT: Reader().eval(),
            HARMED: Reader(harmed=True, target=target).eval(),
        }

    def evaluation(self, name: str) -> Evaluation:
        """Return a fresh evaluation; that of a model that wasn't trained is as if the harmed one had been unlearned."""
        scenario, model = self.scenario, self.models[name]
        if name not in (PERFECT, HARMED):
            return Evaluation(scenario.truth, model, scenario.recipe)
        identified = scenario.identified(0.5)
        return Evaluation(
            scenario.truth,
            model,
            scenario.recipe,
            identified=identified,
            identified_before=scenario.recipe.predict(self.models[HARMED], scenario.train, identified),
            cost=Cost(1.5, passes=0.5, peak_bytes=2**20),
            scalars={"loss": [1.0, 0.5, None]},
        )


class Judgements(Subject):
    """A metric or a breakdown, and what it says of four models in three tiny scenarios each."""

    @cached_property
    def problems(self) -> dict[Harm, _Problem]:
        """A trigger with a target class, two classes taken for each other, and labels that are wrong everywhere."""
        return {harm: _Problem(harm) for harm in HARMS}

    def judge(self, problem: _Problem, name: str, stirred: int) -> _Judgement:
        """Apply it to one model."""
        evaluation, metric = problem.evaluation(name), self.make()
        model, truth = evaluation.model, evaluation.truth
        compute: Callable[[Evaluation], Any] = metric.breakdown if isinstance(metric, Breakdown) else metric.compute
        modes, weights = [module.training for module in model.modules()], snapshot(model)
        kept = {
            "the labels": (truth.train.labels.clone(), truth.affected.labels.clone(), truth.retain.labels.clone()),
            "the predictions": (evaluation.affected_predictions.clone(), evaluation.retain_predictions.clone()),
            "the truth": (truth.manipulated.clone(), truth.clean_labels.clone()),
        }
        with watched(stirred) as changed:
            raw = compute(evaluation)
        now = {
            "the labels": (truth.train.labels, truth.affected.labels, truth.retain.labels),
            "the predictions": (evaluation.affected_predictions, evaluation.retain_predictions),
            "the truth": (truth.manipulated, truth.clean_labels),
        }
        touched = [what for what, before in kept.items() if difference(before, now[what])]
        if difference(weights, snapshot(model)):
            touched.append("the model's weights")
        if modes != [module.training for module in model.modules()]:
            touched.append("whether the model is in training mode")
        return _Judgement(raw, touched, changed)

    def judge_all(self, stirred: int) -> dict[tuple[Harm, str], _Judgement]:
        """Apply it to every model of every scenario."""
        return {
            (harm, name): self.judge(problem, name, stirred)
            for harm, problem in self.problems.items()
            for name in problem.models
        }

    @cached_property
    def first(self) -> dict[tuple[Harm, str], _Judgement]:
        """What it says of them."""
        return self.judge_all(stirred=1)

    @cached_property
    def second(self) -> dict[tuple[Harm, str], _Judgement]:
        """What it says of them when all that it imports has been imported."""
        _ = self.first
        return self.judge_all(stirred=2)


def _require_numbers(raw: Any, bounds: tuple[float, float], about: str) -> None:
    """Raise ``Unmet`` unless every value is a finite number within ``bounds``."""
    for label, value in (raw if isinstance(raw, Mapping) else {"": raw}).items():
        here = f"{about}, for '{label}'," if label else about
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Unmet(f"of {here} it says {value!r}, a {type(value).__name__} and no float")
        if not math.isfinite(value):
            raise Unmet(f"of {here} it says {value}")
        if not bounds[0] <= value <= bounds[1]:
            raise Unmet(f"of {here} it says {value:g}, outside its bounds {bounds[0]:g} to {bounds[1]:g}")


@check(
    "Return a float, None where the metric means nothing (no trigger, no retained samples, no cost: see "
    "cutk.Evaluation), and let bounds say what can come: float('inf') for an open end.",
    essential=True,
)
def values_are_within_bounds(judgements: Judgements) -> str | None:
    """Of whatever model and manipulation, it says a finite number within its bounds, or None."""
    breakdown = issubclass(judgements.component, Breakdown)
    for (harm, name), judgement in judgements.first.items():
        about = f"{name} (manipulated: {harm})"
        if judgement.raw is None:
            continue
        if breakdown and not isinstance(judgement.raw, Mapping):
            raise Unmet(f"of {about} it says {judgement.raw!r}, no mapping from labels to numbers")
        if odd := [label for label in judgement.values if breakdown and not isinstance(label, str)]:
            raise Unmet(f"of {about} it gives the label {odd[0]!r}, a {type(odd[0]).__name__} and no text")
        _require_numbers(judgement.raw, judgements.component.bounds, about)
    if not any(judgement.values for judgement in judgements.first.values()):
        return "it has no value for any of the tiny models: test it by hand"
    return None


@check("Compute it from the evaluation alone, without chance or the clock.")
def same_model_has_the_same_value(judgements: Judgements) -> None:
    """The same evaluation gives the same value."""
    for (harm, name), judgement in judgements.first.items():
        again = judgements.second[harm, name]
        if difference(judgement.raw, again.raw):
            raise Unmet(f"of {name} (manipulated: {harm}) it says {judgement.raw!r}, then {again.raw!r}")


@check("Work on copies: the model, its predictions and the truth are what every other metric reads.")
def evaluation_is_untouched(judgements: Judgements) -> None:
    """Model, training mode, predictions, labels and truth are as they were."""
    for (harm, name), judgement in judgements.first.items():
        if judgement.touched:
            raise Unmet(f"judging {name} (manipulated: {harm}) it changes {', '.join(judgement.touched)}")


@check("Put back what you set, and draw no random numbers from the global generators.")
def nothing_global_is_left(judgements: Judgements) -> None:
    """Random states, grad mode, threads, dtypes, autocast, warnings, folder and environment are as they were."""
    for judgement in judgements.second.values():
        require_unchanged(judgement.changed)


@check(
    "Set higher_is_better to the direction in which models get better. If a perfect model is rightly at the worse end "
    "(of a metric that judges no model's answers), give it other bounds than 0 to 1."
)
def direction_is_honest(judgements: Judgements) -> None:
    """Where it goes from 0 to 1, a model that knows every answer is not worse than one that errs wherever it can."""
    component = judgements.component
    if tuple(component.bounds) != (0, 1):
        raise NotJudged("its bounds aren't 0 to 1, so nothing is known of what it measures")
    sign = 1 if component.higher_is_better else -1
    gains, shown = [], ""
    for harm in HARMS:
        perfect, harmed = (judgements.first[harm, name].values for name in (PERFECT, HARMED))
        for label in perfect.keys() & harmed.keys():
            gains.append(sign * (perfect[label] - harmed[label]))
            if gains[-1] < 0:
                shown = f"{perfect[label]:.3g} for {PERFECT}, {harmed[label]:.3g} for {HARMED} (manipulated: {harm})"
    if not any(gains):
        raise NotJudged("it says the same of a perfect model and of one that errs wherever it can, or nothing")
    if max(gains) > 0 > min(gains):
        raise NotJudged(f"it takes either side, depending on the scenario: {shown}")
    if max(gains) <= 0:
        raise Unmet(f"higher_is_better = {component.higher_is_better}, and it says {shown}")


CHECKS: tuple[Check[Judgements], ...] = (
    *classes.CHECKS,
    values_are_within_bounds,
    same_model_has_the_same_value,
    evaluation_is_untouched,
    nothing_global_is_left,
    direction_is_honest,
)

_ALPHAS = (0.1, 0.5, 1.0)
_COURSES = {
    "an unlearner that gets there": (0.2, 0.6, 0.95),
    "an unlearner that never does": (0.1, 0.1, 0.1),
    "an unlearner that is there at once": (0.95, 0.95, 0.95),
    "an unlearner that gets worse": (0.9, 0.4, 0.0),
    "an unlearner at a single α": (0.5,),
}


class Curves(Subject):
    """A summary, and what it says of made-up curves against α."""

    def curve(self, course: str) -> Curve:
        """Return a curve that has values for the metrics in ``of``, and for no others."""
        values = dict(zip(_ALPHAS, _COURSES[course], strict=False))
        names = self.component.of
        return Curve({name: dict(values) for name in names}, dict.fromkeys(names, 0.95), dict.fromkeys(names, 0.1))

    @cached_property
    def values(self) -> dict[str, Any]:
        """What it says of each curve."""
        with watched(stirred=1):
            return {course: self.make().summarise(self.curve(course)) for course in _COURSES}


@check("Name in of every metric that summarise() reads; a curve may have a single α.", essential=True)
def curves_have_a_value(curves: Curves) -> None:
    """It can be computed from the metrics that it names, whatever course they take."""
    if not curves.component.of:
        raise Unmet("it names no metric that it is computed from")
    _ = curves.values


@check("Return a float within bounds, and None where the curve never gets there.")
def summaries_are_within_bounds(curves: Curves) -> None:
    """Of whatever curve, it says a finite number within its bounds, or None."""
    for course, value in curves.values.items():
        if value is not None:
            _require_numbers(value, curves.component.bounds, course)


@check("Compute it from the curve alone, without chance or the clock.")
def same_curve_has_the_same_value(curves: Curves) -> None:
    """The same curve gives the same value."""
    for course, value in curves.values.items():
        with watched(stirred=2):
            again = curves.make().summarise(curves.curve(course))
        if difference(value, again):
            raise Unmet(f"of {course} it says {value!r}, then {again!r}")


@check("Work on copies: other summaries read the same curve.")
def curve_is_untouched(curves: Curves) -> None:
    """The curve is as it was."""
    for course in _COURSES:
        curve = curves.curve(course)
        before = deepcopy(curve)
        curves.make().summarise(curve)
        if curve != before:
            raise Unmet(f"it changes the curve of {course}")


@check("Put back what you set.")
def no_summary_leaves_anything_global(curves: Curves) -> None:
    """Random states, threads, dtypes, warnings, folder and environment are as they were."""
    _ = curves.values
    with watched() as changed:
        for course in _COURSES:
            curves.make().summarise(curves.curve(course))
    require_unchanged(changed)


SUMMARY_CHECKS: tuple[Check[Curves], ...] = (
    *classes.CHECKS,
    curves_have_a_value,
    summaries_are_within_bounds,
    same_curve_has_the_same_value,
    curve_is_untouched,
    no_summary_leaves_anything_global,
)
