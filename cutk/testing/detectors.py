"""What is checked of a detector, on tiny scenarios whose original has been trained."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import nn

from cutk.components import Sizes
from cutk.errors import CellError
from cutk.problem.expansion import require_suspicion
from cutk.problem.scenario import Scenario
from cutk.problem.task import Task
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check
from cutk.testing.states import difference
from cutk.testing.tiny import Harm, tiny_models, tiny_scenario

__all__ = ["CHECKS", "SUBJECT", "TriedDetector"]

TRIED: tuple[Harm, ...] = ("trigger", "two classes")
ALPHAS = (0.125, 0.5, 1.0)


def _given(task: Task) -> dict[str, Any]:
    """Return what a detector may read and not change, by the name that its author calls it."""
    return {
        "task.original": task.original.state_dict(),
        "task.train.labels": task.train.labels,
        "task.validation.labels": None if task.validation is None else task.validation.labels,
        "task.identified": task.identified,
    }


class TriedDetector(Subject):
    """A detector and the tiny problems that it is given."""

    @cached_property
    def scenarios(self) -> dict[Harm, Scenario]:
        """A trigger, and two classes taken for each other."""
        return {harm: tiny_scenario(harm, device=self.device) for harm in TRIED}

    def task(self, harm: Harm, alpha: float) -> Task:
        """Return a task as the benchmark hands it out: with copies of its own, and seeded anew."""
        original: nn.Module = tiny_models(harm, device=self.device)[0]
        return self.scenarios[harm].task(original, alpha)

    def detect(self, task: Task) -> Any:
        """Return what it suspects, as the benchmark asks for it."""
        return self.seeded(lambda: self.make().detect(task))[0]

    def work(self) -> dict[str, Any]:
        """Detect in every scenario, from one sample known to all of them."""
        return {f"{harm}, α = {alpha:g}": self.detect(self.task(harm, alpha)) for harm in TRIED for alpha in ALPHAS}


@check(
    "Return float32 [N], from 0 to 1 for each training sample in their order, on the CPU: found.float().cpu().",
    essential=True,
)
def suspicion_is_from_0_to_1(subject: TriedDetector) -> None:
    """detect() returns float32 [N] with values from 0 to 1, on the CPU, however few or many samples are known."""
    count = len(subject.scenarios["trigger"].train)
    for label, found in subject.first.result.items():
        try:
            require_suspicion(found, count, f"manipulated: {label}")
        except CellError as error:
            raise Unmet(str(error)) from None


@check("Don't suspect everybody: where all samples are suspects, nothing is left to learn from.")
def somebody_is_trusted(subject: TriedDetector) -> None:
    """Some sample isn't suspected."""
    for label, found in subject.first.result.items():
        if bool((found > 0.5).all()):
            raise Unmet(f"it suspects all {len(found)} training samples (manipulated: {label})")


@check("Don't call torch.manual_seed: rankings with different seeds would be the same. task.generator is seeded.")
def seed_is_left_to_cutk(subject: TriedDetector) -> None:
    """Torch's global generator is seeded by cutk alone."""
    with subject.apart():
        reseeded = subject.seeded(lambda: subject.make().detect(subject.task("trigger", 0.5)))[1]
    if reseeded:
        raise Unmet("it seeds torch's global generator")


@check("Return what carries no gradient: found.detach().")
def suspicion_is_no_part_of_a_graph(subject: TriedDetector) -> None:
    """What detect() returns has no gradient."""
    if any(found.requires_grad for found in subject.first.result.values()):
        raise Unmet("it requires a gradient")


@check("Work on copies: copy.deepcopy(task.original), labels.clone().")
def task_is_untouched(subject: TriedDetector) -> None:
    """The task that it is given, the samples included, is as it was."""
    for harm in TRIED:
        task, before = subject.task(harm, 0.5), _given(subject.task(harm, 0.5))
        with subject.apart():
            subject.detect(task)
        for name, value in _given(task).items():
            if difference(before[name], value):
                raise Unmet(f"it writes to {name} (manipulated: {harm})")
        if not task.intact:
            raise Unmet(f"it writes to the samples (manipulated: {harm})")


@check("Return a number of passes, or None: passes() is asked before there are data.")
def passes_are_estimated(subject: TriedDetector) -> str | None:
    """passes() estimates a number from 0, or says that it can't."""
    found = subject.component.passes(subject.options, Sizes(train=1000, identified=10, batch_size=50, steps=100))
    if found is None:
        return "it doesn't say what it costs: --dry-run can't tell"
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
        raise Unmet(f"it says {found!r}")
    return None


SUBJECT = TriedDetector
CHECKS = all_checks(globals())
