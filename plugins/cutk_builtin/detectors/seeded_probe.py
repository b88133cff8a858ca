"""A probe on features, seeded with S_f."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import cutk
from cutk_builtin.looking import outputs
from cutk_builtin.seeded import suspected


class SeededProbe(cutk.Detector):
    r"""Tells S_f from what is clean under its labels by a linear probe on the features that the classifier is given.

    Within each given label a cross-fitted logistic regression scores all samples. It learns from S_f with that label
    and from S_f with other labels that the model takes for that one otherwise, or from the rest of the label where
    those are fewer than three. Scores are a mixture of two normal densities, and the one part that S_f is of S_m ties
    the labels' shares together. Then the probe is fitted again to all samples, as likely as they seem to be
    manipulated; where S_f with other labels can't be told from the rest of this one, it goes on saying what is clean.
    S_f is taken for a uniform part of S_m. Costs a forward pass.
    """

    name = "seeded-probe"
    reference = "Elkan and Noto, KDD 2008 (learning from positive and unlabelled examples)"

    class Options(cutk.Options):
        """How sceptical it is, and how often it learns from itself."""

        penalty: float = cutk.option(20.0, gt=0, help="of the probe's squared weights, divided by how many are bad")
        refinements: int = cutk.option(4, ge=0, le=100, help="how often the probe learns from what it found")

    def detect(self, task: cutk.Task) -> Tensor:
        """Return the posterior."""
        seen = outputs(task.original, task.recipe, task.train)
        found = suspected(task, [seen], self.options.penalty, self.options.refinements)
        task.log.scalar("known_part", found.alpha)
        return found.probability

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``seeded-probe``."""
    return [SeededProbe]
