"""What is checked of a metric, on models known to be good and bad."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from cutk.cost import Cost
from cutk.problem.scenario import Scenario
from cutk.problem.truth import Evaluation, Truth
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check
from cutk.testing.states import difference, snapshot
from cutk.testing.tiny import HARMS, Harm, Reader, tiny_models, tiny_scenario

__all__ = ["CHECKS", "SUBJECT", "TriedMetric", "require_numbers"]

PERFECT, HARMED = "a perfect model", "a model that errs wherever it can"


@dataclass(frozen=True)
class _Judgement:
    """What a metric returned for one model in one scenario, and what of the evaluation isn't as it was."""

    raw: Any
    touched: str

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that there are, by label; a single one under an empty label."""
        if isinstance(self.raw, Mapping):
            return self.raw
        return {} if self.raw is None else {"": self.raw}


def _shared(evaluation: Evaluation) -> dict[str, Any]:
    """Return a copy of what other metrics read, too."""
    suspicion = evaluation.suspicion
    truth: Truth = evaluation.truth
    sets = (truth.train, truth.affected, truth.retain)
    return {
        "the labels": [each.labels.clone() for each in sets],
        "the model's outputs": [evaluation.affected_logits.clone(), evaluation.retain_logits.clone()],
        "the truth": [truth.manipulated.clone(), truth.clean_labels.clone(), truth.targets.clone()],
        "what was suspected": None if suspicion is None else suspicion.clone(),
        "the model's weights": snapshot(evaluation.model),
        "the model's training mode": [module.training for module in evaluation.model.modules()],
    }


class _Problem:
    """One tiny scenario with the models that are judged in it."""

    def __init__(self, harm: Harm) -> None:
        self.scenario: Scenario = tiny_scenario(harm)
        self.models: dict[str, nn.Module] = {
            **dict(zip(("the original", "gold"), tiny_models(harm), strict=True)),
            PERFECT: Reader().eval(),
            HARMED: Reader(harm).eval(),
        }

    def evaluation(self, name: str) -> Evaluation:
        """Return a fresh evaluation; that of a model that wasn't trained is as if the harmed one had been unlearned."""
        scenario, model = self.scenario, self.models[name]
        if name not in (PERFECT, HARMED):
            return Evaluation(scenario.truth, model, scenario.recipe)
        identified = scenario.identified(0.5)
        manipulated = torch.zeros(len(scenario.train))
        manipulated[scenario.truth.manipulated] = 1.0
        return Evaluation(
            scenario.truth,
            model,
            scenario.recipe,
            identified=identified,
            identified_before=scenario.recipe.predict(self.models[HARMED], scenario.train, identified),
            cost=Cost(1.5, passes=0.5, peak_bytes=2**20),
            scalars={"loss": [1.0, 0.5, None]},
            suspicion=manipulated if name == PERFECT else 1 - manipulated,
        )


class TriedMetric(Subject):
    """A metric, and what it says of four models in several tiny scenarios each."""

    @cached_property
    def problems(self) -> dict[Harm, _Problem]:
        """The ways in which samples are manipulated."""
        return {harm: _Problem(harm) for harm in HARMS}

    def evaluations(self) -> Iterator[tuple[Harm, str, str, Evaluation]]:
        """Yield what is judged: where, which model, on the domain of which manipulation if of one alone, and it."""
        for harm, problem in self.problems.items():
            for name in problem.models:
                evaluation = problem.evaluation(name)
                yield harm, name, "", evaluation
                if self.component.by_domain and len(evaluation.truth.domains) > 1:
                    for domain in evaluation.truth.domains:
                        yield harm, name, domain.name, evaluation.on(domain)

    def work(self) -> dict[tuple[Harm, str, str], _Judgement]:
        """Apply it to every model of every scenario."""
        found = {}
        for harm, name, domain, evaluation in self.evaluations():
            before = _shared(evaluation)
            raw = self.make().compute(evaluation)
            now = _shared(evaluation)
            touched = ", ".join(what for what in before if difference(before[what], now[what]))
            found[harm, name, domain] = _Judgement(raw, touched)
        return found

    def decided(self, result: dict[tuple[Harm, str, str], _Judgement]) -> Any:
        """Return the values."""
        return {", ".join(filter(None, key)): judgement.raw for key, judgement in result.items()}


def require_numbers(raw: Any, bounds: tuple[float, float], about: str) -> None:
    """Raise ``Unmet`` unless ``raw``, or every value of it, is a finite number within ``bounds``.

    Args:
        raw: what a component returned, not None.
        bounds: the smallest and the largest possible value.
        about: what it is of.
    """
    for label, value in (raw if isinstance(raw, Mapping) else {"": raw}).items():
        here = f"{about}, for '{label}'," if label else about
        if not isinstance(label, str):
            raise Unmet(f"of {about} it gives the label {label!r}, a {type(label).__name__} and no text")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Unmet(f"of {here} it says {value!r}, a {type(value).__name__} and no float")
        if not math.isfinite(value):
            raise Unmet(f"of {here} it says {value}")
        if not bounds[0] <= value <= bounds[1]:
            raise Unmet(f"of {here} it says {value:g}, outside its bounds {bounds[0]:g} to {bounds[1]:g}")


@check(
    "Return a float, or a mapping from labels to floats; None where the metric means nothing (no trigger, no retained "
    "samples, no cost: see cutk.Evaluation). Let bounds say what can come: float('inf') for an open end.",
    essential=True,
)
def values_are_within_bounds(subject: TriedMetric) -> str | None:
    """Of whatever model and manipulation, it says a finite number within its bounds, several by label, or None."""
    judgements = subject.first.result
    for (harm, name, domain), judgement in judgements.items():
        where = f", on the domain of {domain} alone" if domain else ""
        if judgement.raw is not None:
            require_numbers(judgement.raw, subject.component.bounds, f"{name} (manipulated: {harm}{where})")
    if not any(judgement.values for judgement in judgements.values()):
        return "it has no value for any of the tiny models: test it by hand"
    return None


@check("Work on copies: the model, its outputs and the truth are what every other metric reads.")
def evaluation_is_untouched(subject: TriedMetric) -> None:
    """Model, training mode, outputs, labels and truth are as they were."""
    for (harm, name, _), judgement in subject.first.result.items():
        if judgement.touched:
            raise Unmet(f"judging {name} (manipulated: {harm}) it changes {judgement.touched}")


@check(
    "Set higher_is_better to the direction in which models get better. If a perfect model is rightly at the worse end "
    "(of a metric that judges no model's answers), give it other bounds than 0 to 1."
)
def direction_is_honest(subject: TriedMetric) -> None:
    """Where it goes from 0 to 1, a model that knows every answer is not worse than one that errs wherever it can."""
    component = subject.component
    if tuple(component.bounds) != (0, 1):
        raise NotJudged("its bounds aren't 0 to 1, so nothing is known of what it measures")
    sign = 1 if component.higher_is_better else -1
    gains, shown = [], ""
    for harm in HARMS:
        perfect, harmed = (subject.first.result[harm, name, ""].values for name in (PERFECT, HARMED))
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


SUBJECT = TriedMetric
CHECKS = all_checks(globals())
