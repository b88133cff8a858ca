"""``--bundle``: from what the command line named to the evidence beside a repair."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cutk.cli.own import Checkpoint
    from cutk.data.given import Given
    from cutk.plugins.registry import Registry
    from cutk.repair.bundle.material import Material
    from cutk.repair.problem import Methods, Problem, Tell
    from cutk.repair.weights import Weights

__all__ = ["as_written", "material_from"]


def material_from(
    registry: Registry,
    options: dict[str, Any],
    own: Checkpoint,
    samples: tuple[Given, Given | None],
    problem: Problem,
    methods: Methods,
    tell: Tell,
) -> Material:
    """Return what was handed over, all of it read; ``samples`` are those for training and for validation."""
    from cutk.repair.bundle.code import code_of, factory_file
    from cutk.repair.bundle.digests import file_at
    from cutk.repair.bundle.material import entries_of, material_of

    spec, datasets = options["model"], [options["data"], *filter(None, [options["validation"]])]
    families = {entry.component.name for entry in registry.of_kind("model")}
    named = ":" not in spec or spec.partition(":")[0] in families
    entries = [*(registry.get("dataset", name) for name in datasets), *entries_of(methods)]
    if named:
        entries.insert(0, registry.get("model", spec))
    found = material_of(
        *(problem, *samples),
        original=file_at(options["weights"].expanduser(), options["weights"].as_posix()),
        code=code_of(own.model, entries, spec, None if named else factory_file(spec)),
        bad_file=file_at(options["bad"].expanduser(), options["bad"].as_posix()),
        sources=(options["data"], options["validation"] or options["data"]),
    )
    # Now, as they were trained on, and before any work that what can't be read would have been for nothing.
    found.data(lambda done, total: tell("data, hashed", done, total))
    return found


def as_written(model: nn.Module, weights: Weights, tensors: dict[str, Tensor]) -> nn.Module:
    """Return a copy of a model with the ``tensors`` that were written under the user's keys."""
    found = copy.deepcopy(model)
    found.load_state_dict({**found.state_dict(), **{own: tensors[theirs] for theirs, own in weights.keys.items()}})
    return found
