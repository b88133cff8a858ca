"""Confident learning, by cleanlab."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import cutk
from cutk_builtin.cross_fitting import class_probabilities
from cutk_builtin.looking import outputs
from cutk_builtin.seeded import standardised


def graded(quality: Tensor, issues: Tensor) -> Tensor:
    """Return 1 − quality (``[n]``, 0 to 1), halved: from 0 for what is no issue, from above one half for what is one.

    >>> graded(torch.tensor([0.0, 0.4, 0.4, 1.0]), torch.tensor([False, False, True, False])).tolist()
    [0.5, 0.30000001192092896, 0.800000011920929, 0.0]
    """
    half = (1 - quality.float()) / 2
    above = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0))
    return torch.where(issues, (0.5 + half).clamp(min=float(above), max=1.0), half.clamp(0.0, 0.5))


class ConfidentLearning(cutk.Detector):
    """Suspects labels that the classes' own confidence contradicts, as cleanlab finds them; looks at no S_f.

    cleanlab's ``find_label_issues`` decides: what it finds is above one half, and nothing else. Within each half its
    label quality scores, the probability of the given label, give the order. It asks for out-of-sample probabilities,
    which would take several trainings. By default (``probabilities=probe``) they come from a cross-fitted multinomial
    logistic regression on the original's features: the probe hasn't seen the sample, though the features have.
    ``probabilities=original`` takes the original's own outputs, which are in-sample: a model that fits its wrong labels
    hides them. So may its features: with 130 labels of two classes of the digits exchanged, nothing is an issue after
    the dataset's 300 training steps, which fit all of them, and 86 samples are after 40 (one seed). Made for wrong
    labels: poisoned samples that a trigger explains are no contradiction. Costs a forward pass.
    """

    name = "confident-learning"
    reference = "Northcutt, Jiang, Chuang, Confident Learning, JAIR 2021; cleanlab"
    probabilistic = False
    libraries = {"cleanlab": "cutk[cleanlab]"}

    class Options(cutk.Options):
        """Whose probabilities, and which of cleanlab's rules."""

        probabilities: Literal["probe", "original"] = cutk.option(
            "probe", help="of a cross-fitted probe on the original's features, or the original's own, in-sample"
        )
        filter_by: Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning"] = cutk.option(
            "prune_by_noise_rate", help="cleanlab's rule for what is an issue"
        )
        penalty: float = cutk.option(1.0, gt=0, help="of the probe's squared weights, against the sum of the losses")

    def detect(self, task: cutk.Task) -> Tensor:
        """Return graded label quality; S_f itself is certain."""
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        o, labels = self.options, task.train.labels.cpu()
        seen = outputs(task.original, task.recipe, task.train)
        if o.probabilities == "original":
            probabilities = seen.logits.cpu().double().softmax(1)
        else:
            features = standardised(seen.features)
            probabilities = class_probabilities(features, labels, task.num_classes, task.generator, o.penalty)
        given = labels.numpy(), probabilities.numpy()
        issues = torch.from_numpy(find_label_issues(*given, filter_by=o.filter_by, n_jobs=1))
        found = graded(torch.from_numpy(get_label_quality_scores(*given)), issues)
        task.log.scalar("label_issues", int(issues.sum()))
        found[task.identified.cpu()] = 1.0
        return found

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> float:
        """A forward pass, which is a third of a pass."""
        return 1 / 3


@cutk.hookimpl
def cutk_detectors() -> list[type[cutk.Detector]]:
    """Provide ``confident-learning``."""
    return [ConfidentLearning]
