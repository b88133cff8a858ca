"""A model in a form that runs without its code, and whether it says the same there."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cutk.errors import Caught, shortened
from cutk.repair.bundle.code import versions_of
from cutk.repair.bundle.evidence import ONNX, Portable
from cutk.repair.inputs import Adapted

__all__ = ["Agreement", "agreement", "onnx_of"]

_MADE_WITH = ("torch", "onnx", "onnxscript", "onnxruntime")
# Two logits may differ by so much of the largest one, which is what float32 and other orders of summing come to.
_TOLERANCE = 1e-3
# Exporters may have much to say; so many characters of it are kept.
_LONGEST = 400
# So many samples go through at once; not the number that the model was exported with, nor one that divides all.
_AT_ONCE = 60


class Agreement(NamedTuple):
    """On how many samples two models predict the same class, and how far their logits are apart."""

    samples: int
    agree: int
    largest_difference: float
    largest_logit: float

    @property
    def close(self) -> bool:
        """Whether what differs is rounding."""
        return self.largest_difference <= _TOLERANCE * max(1.0, self.largest_logit)


def agreement(expected: Tensor, found: Tensor) -> Agreement:
    """Compare logits, float ``[n, classes]`` both.

    >>> agreement(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.5]]))
    Agreement(samples=1, agree=1, largest_difference=0.5, largest_logit=2.0)
    """
    return Agreement(
        samples=len(expected),
        agree=int((expected.argmax(1) == found.argmax(1)).sum()),
        largest_difference=float((expected.double() - found.double()).abs().max()),
        largest_logit=float(expected.abs().max()),
    )


def onnx_of(model: nn.Module, samples: Tensor, folder: Path) -> Portable:
    """Write a model as ONNX, if it can be exported and says the same there of ``samples``.

    Args:
        model: on whatever device; logits are ``[B, classes]``, or what ``Adapted`` takes for them.
        samples: as they reach the model, ``[n, …]``, n ≥ 1.
        folder: where ``model.onnx`` goes, and beside it ``model.onnx.data`` if it is larger than a file of this kind
            can be.

    Raises:
        OSError: if it can't be written.
    """
    refused = partial(Portable, written=False, versions=versions_of(_MADE_WITH))
    plain = Adapted(copy.deepcopy(model).cpu().float().eval())
    with Caught() as caught, _quiet():
        expected = torch.cat([plain(part) for part in torch.split(samples, _AT_ONCE)])
        program = _exported(plain, samples)
    if caught.error is not None:
        return refused(reason=f"it can't be exported: {shortened(caught.reason, _LONGEST)}")
    with Caught() as caught, _quiet():
        program.save(folder / ONNX)
        found = agreement(expected, _ran(folder / ONNX, samples))
    if caught.error is None and found.close:
        return Portable(written=True, file=f"{folder.name}/{ONNX}", versions=versions_of(_MADE_WITH), **found._asdict())
    for path in folder.glob(f"{ONNX}*"):
        path.unlink()
    if isinstance(caught.error, OSError):
        raise caught.error
    if caught.error is not None:
        return refused(reason=f"what was exported doesn't run: {shortened(caught.reason, _LONGEST)}")
    return refused(
        reason=f"what was exported differs: on {found.agree} of {found.samples} samples it predicts the same, and "
        f"logits differ by up to {found.largest_difference:.3g}, the largest being {found.largest_logit:.3g}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Compute without gradients, and without what exporters have to say of each other."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _exported(model: nn.Module, samples: Tensor) -> Any:
    """Return an ONNX program that takes batches of any size."""
    # A dimension of size 1 would be taken for a constant.
    example = samples[:2] if len(samples) > 1 else torch.cat([samples, samples])
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=False)
    made: Any = torch.onnx.export(program, input_names=["samples"], output_names=["logits"], dynamo=True, verbose=False)
    # Which line of which file a node comes from, on this machine, is no reader's business.
    for graph in (made.model.graph, *(function.graph for function in made.model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.clear()
    return made


def _ran(file: Path, samples: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.cat(
        [
            torch.from_numpy(session.run(["logits"], {"samples": part.numpy()})[0])
            for part in torch.split(samples, _AT_ONCE)
        ]
    )
