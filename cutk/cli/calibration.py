"""What ``cutk unlearn`` says before it begins, and ``--calibrate``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutk.cli.messages import say
from cutk.cli.own import saying
from cutk.errors import UsageError

if TYPE_CHECKING:
    from cutk.plugins.registry import Registry
    from cutk.repair.calibrating import Calibrating
    from cutk.repair.problem import Methods, Problem, Tell
    from cutk.repair.records import RepairReport

__all__ = ["Calibrated", "foretold"]


@dataclass
class Calibrated:
    """A calibration that comes after a repair, and shares its budget."""

    plan: Calibrating
    runs: Path
    per_pass: float
    budget: float
    began: float = field(default_factory=time.monotonic)

    def added_to(self, report: RepairReport, tell: Tell) -> RepairReport:
        """Run it for as long as there is time left, and return the report with it."""
        left = self.budget - (time.monotonic() - self.began)
        return report.model_copy(update={"calibration": self.plan.run(self.runs, self.per_pass, left, saying(), tell)})


def foretold(
    problem: Problem, methods: Methods, left: Methods, registry: Registry, options: dict[str, Any]
) -> Calibrated | None:
    """Say how long what is ``left`` of the methods will take, and return the calibration, if that is asked for."""
    from cutk.repair.foresight import per_pass_of, told_duration

    per_pass = per_pass_of(problem) if options["calibrate"] else None
    if left.unlearners and (line := told_duration(problem, left, per_pass)):
        say(line)
    if per_pass is None:
        if options["calibrate_alpha"] is not None:
            raise UsageError("--calibrate-alpha says nothing without --calibrate. Leave it out, or give both.")
        return None
    from cutk.repair.calibrating import ALPHA, Calibrating

    plan = Calibrating(problem, methods, registry, options["calibrate_alpha"] or ALPHA)
    budget = methods.limits.budget_seconds
    say(plan.forecast(per_pass))
    out: Path = options["out"]
    runs = out.with_name(f"{out.name}-calibration")
    return Calibrated(plan, runs, per_pass, float("inf") if budget is None else budget)
