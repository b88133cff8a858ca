"""What is checked of an identification: who it finds among the manipulated samples of three tiny scenarios."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cutk.errors import UsageError
from cutk.problem.identification import require_indices
from cutk.problem.scenario import Scenario
from cutk.problem.truth import Truth
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check
from cutk.testing.states import difference
from cutk.testing.tiny import HARMS, tiny_scenario

__all__ = ["CHECKS", "SUBJECT", "TriedIdentification"]

ALPHAS = (0.125, 0.25, 0.5, 0.75, 1.0)


def _copy(truth: Truth) -> list[Tensor]:
    sets = (truth.train, truth.affected, truth.retain)
    told = (truth.manipulated, truth.clean_labels, truth.targets, truth.samples.x, truth.samples.labels)
    return [tensor.clone() for tensor in (*told, *(each.labels for each in sets))]


class TriedIdentification(Subject):
    """An identification, and S_f for several α in several scenarios."""

    @cached_property
    def scenarios(self) -> dict[str, Scenario]:
        """Several ways in which samples were manipulated."""
        return {harm: tiny_scenario(harm) for harm in HARMS}

    def identify(self, truth: Truth, alpha: float) -> Any:
        """Return S_f, drawn as the benchmark has it drawn."""
        return self.make().identify(truth, alpha, torch.Generator().manual_seed(0))

    def work(self) -> dict[str, dict[float, Any]]:
        """Identify at every α in every scenario."""
        return {
            harm: {alpha: self.identify(scenario.truth, alpha) for alpha in ALPHAS}
            for harm, scenario in self.scenarios.items()
        }


@check(
    "Return int64 indices of training samples, at least one, sorted and without repeats: indices.unique(). Raise "
    "cutk.UsageError where the options don't fit the samples or nothing would be found.",
    essential=True,
)
def samples_are_identified(subject: TriedIdentification) -> None:
    """identify() returns S_f for every α: int64 [n], n ≥ 1, sorted, without repeats, within the training set."""
    try:
        results = subject.first.result
    except UsageError as error:
        raise NotJudged(f"it refuses the tiny scenario: {error}") from None
    for harm, by_alpha in results.items():
        for alpha, found in by_alpha.items():
            require_indices(found, len(subject.scenarios[harm].train), f"manipulated: {harm}, α = {alpha:g}")


@check("Let α decide how many are found: round(alpha * len(truth.manipulated)) of the manipulated ones, say.")
def more_are_found_at_larger_alpha(subject: TriedIdentification) -> str | None:
    """|S_f| grows with α, and S_f is never the whole training set."""
    nested = True
    for harm, by_alpha in subject.first.result.items():
        sizes = [len(by_alpha[alpha]) for alpha in ALPHAS]
        if sizes != sorted(sizes) or sizes[0] == sizes[-1]:
            raise Unmet(f"for α = {ALPHAS} it finds {sizes} samples (manipulated: {harm})")
        if sizes[-1] == len(subject.scenarios[harm].train):
            raise Unmet(f"at α = 1 it finds all {sizes[-1]} training samples (manipulated: {harm})")
        sets = [set(by_alpha[alpha].tolist()) for alpha in ALPHAS]
        nested = nested and all(smaller <= larger for smaller, larger in itertools.pairwise(sets))
    return None if nested else "S_f at one α isn't part of S_f at every larger one: curves against α vary more"


@check("Work on copies: the truth is what the benchmark judges by.")
def truth_is_untouched(subject: TriedIdentification) -> None:
    """What the evaluator knows, samples included, is as it was."""
    for harm, scenario in subject.scenarios.items():
        before = _copy(scenario.truth)
        with subject.apart():
            subject.identify(scenario.truth, 0.5)
        if difference(before, _copy(scenario.truth)) or not scenario.train.intact:
            raise Unmet(f"it writes to the truth (manipulated: {harm})")


SUBJECT = TriedIdentification
CHECKS = all_checks(globals())
