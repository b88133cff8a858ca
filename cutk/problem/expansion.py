"""An unlearner that a detector works for: S_f grows by what it finds, and then the unlearner is asked."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from pydantic import create_model
from torch import Tensor, nn

from cutk.components import Detector, Sizes, Unlearner
from cutk.errors import CellError
from cutk.problem.task import Task

__all__ = ["OF_DETECTOR", "expanding", "grown", "require_suspicion"]

# How the options of a detector begin among those of the two together.
OF_DETECTOR = "detector_"
SUSPECT = 0.5


def require_suspicion(found: object, count: int, who: str) -> Tensor:
    """Return what a detector found if it is float32 ``[count]`` with values from 0 to 1; else it is a CellError."""
    expected = f"{who}: expected float32 [{count}] with values from 0 to 1, on the CPU"
    if not isinstance(found, Tensor):
        raise CellError(f"{expected}, got {type(found).__name__}.")
    if found.dtype != torch.float32 or found.shape != (count,) or not found.is_cpu:
        raise CellError(f"{expected}, got {found.dtype} {list(found.shape)} on {found.device}.")
    if not ((found >= 0) & (found <= 1)).all():
        raise CellError(f"{expected}, got values from {float(found.min()):g} to {float(found.max()):g}.")
    return found.detach()


def grown(identified: Tensor, suspicion: Tensor) -> Tensor:
    """Return S_f with all that is more likely manipulated than not: int64 ``[n]``, sorted, without repeats.

    >>> grown(torch.tensor([1]), torch.tensor([0.2, 0.0, 0.9])).tolist()
    [1, 2]
    """
    found = suspicion > SUSPECT
    found[identified] = True
    return found.nonzero().flatten()


def expanding(unlearner: type[Unlearner], detector: type[Detector]) -> type[Unlearner]:
    """Return ``unlearner`` with ``detector`` before it; the detector's options are called ``detector_NAME``."""
    theirs = {
        f"{OF_DETECTOR}{name}": (field.annotation, field) for name, field in detector.Options.model_fields.items()
    }
    together: Any = create_model("Options", __base__=unlearner.Options, **theirs)  # type: ignore[call-overload]

    class Expanding(Unlearner):
        __doc__ = f"{unlearner.__doc__}\n\nS_f is first grown by what '{detector.name}' finds."
        name = f"{unlearner.name}+{detector.name}"
        reference = unlearner.reference
        variant = unlearner.variant
        Options: ClassVar[Any] = together
        grid = unlearner.grid
        prepared_by = (*unlearner.prepared_by, *theirs)
        surveyed_by = unlearner.surveyed_by
        surveyor = unlearner

        def _parts(self) -> tuple[Unlearner, Detector]:
            given: dict[str, Any] = dict(self.options)
            own = {name: given[name] for name in unlearner.Options.model_fields}
            others = {name: given[f"{OF_DETECTOR}{name}"] for name in detector.Options.model_fields}
            return unlearner(unlearner.Options(**own)), detector(detector.Options(**others))

        if unlearner.survey is not Unlearner.survey:  # by which it is told whether there is one

            def survey(self, task: Task) -> Any:
                return self._parts()[0].survey(task)

        def prepare(self, task: Task) -> tuple[Tensor, Any]:
            first, second = self._parts()[::-1]
            looked_at = task.knowing(task.identified)
            looked_at.original = copy.deepcopy(task.original)
            found = require_suspicion(first.detect(looked_at), len(task.train), f"The detector '{detector.name}'")
            identified = grown(task.identified, found)
            if len(identified) == len(task.train) > len(task.identified):
                raise CellError(
                    f"The detector '{detector.name}' suspects all {len(task.train)} samples: nothing is left to learn "
                    "from."
                )
            task.log.suspicion(found, probabilistic=detector.probabilistic)
            task.log.scalar("suspects", len(identified) - len(task.identified))
            return identified, second.prepare(task.knowing(identified))

        def unlearn(self, task: Task, state: Any = None) -> nn.Module:
            identified, prepared = self.prepare(task) if state is None else state
            return self._parts()[0].unlearn(task.knowing(identified), prepared)

        @classmethod
        def passes(cls, options: Any, sizes: Sizes) -> tuple[float, float] | None:
            own = unlearner.passes(options, sizes)
            given: dict[str, Any] = dict(options)
            others = {name: given[f"{OF_DETECTOR}{name}"] for name in detector.Options.model_fields}
            before = detector.passes(detector.Options(**others), sizes)
            return None if own is None or before is None else (own[0] + before, own[1])

    return Expanding
