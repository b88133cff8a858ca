"""What evidence says of a repair beside its report: what was handed over, and a few samples to ask models about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutk.learning.recipe import Progress
from cutk.repair.bundle.digests import data_of
from cutk.repair.bundle.evidence import Code, Data, File
from cutk.repair.inputs import Adapted

if TYPE_CHECKING:
    from cutk.data.given import Given
    from cutk.plugins.registry import Entry
    from cutk.repair.problem import Methods, Problem

__all__ = ["Material", "entries_of", "material_of"]

# Models are compared on so many samples at most.
_ASKED = 200


@dataclass
class Material:
    """What was handed over.

    Attributes:
        given: the training samples, in the order of ``report.samples``.
        held_out: validation samples, None if training samples stood in.
        bad: indices, int64 ``[n]``.
        original: the weights before.
        code: what ran.
        asked: a few samples as they reach the model, ``[n, …]`` on the CPU.
        shape: of one sample as it reaches the model.
        bad_file: where the list lay.
        sources: how training and validation samples were named.
    """

    given: Given
    held_out: Given | None
    bad: Tensor
    original: File
    code: Code
    asked: Tensor
    shape: tuple[int, ...]
    bad_file: File | None = None
    sources: tuple[str, str] = ("", "")
    _data: tuple[Data, Data | None] | None = None

    def data(self, tell: Progress) -> tuple[Data, Data | None]:
        """Return training and validation samples by what they hold, which is read the first time."""
        if self._data is None:
            training = data_of(self.given, self.shape, tell, self.sources[0])
            held_out = None if self.held_out is None else data_of(self.held_out, self.shape, tell, self.sources[1])
            self._data = training, held_out
        return self._data


def entries_of(methods: Methods) -> list[Entry]:
    """Return the components of a repair, the parts of composed ones each."""
    chosen = (*methods.unlearners, methods.selector, methods.recipe, *([methods.detector] if methods.detector else []))
    return [entry for one in chosen for entry in one.entries]


def material_of(
    problem: Problem,
    given: Given,
    held_out: Given | None,
    original: File,
    code: Code,
    bad_file: File | None = None,
    sources: tuple[str, str] = ("", ""),
) -> Material:
    """Return what was handed over; samples to ask models about are taken from all over the validation samples."""
    samples = problem.task.validation or problem.task.train
    which = torch.unique(torch.linspace(0, len(samples) - 1, min(_ASKED, len(samples))).long())
    asked = torch.cat([batch.x.cpu() for batch in samples.batches(which)])
    model = problem.task.original
    if isinstance(model, Adapted) and model.shape is not None:
        asked = asked.reshape(len(asked), *model.shape)
    return Material(
        given=given,
        held_out=held_out,
        bad=problem.task.identified.cpu(),
        original=original,
        code=code,
        asked=asked,
        shape=tuple(asked.shape[1:]),
        bad_file=bad_file,
        sources=sources,
    )
