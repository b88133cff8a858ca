"""What holds of S_f, whoever identifies it."""

from __future__ import annotations

import torch
from torch import Tensor

from cutk.data.samples import told
from cutk.errors import CellError

__all__ = ["all_but", "require_indices"]


def require_indices(indices: object, count: int, what: str) -> Tensor:
    """Return ``indices`` if they are int64 ``[n]``, n ≥ 1, sorted, without repeats, and from 0 to ``count`` − 1.

    Raises:
        CellError: calls them ``what``, and says what was expected and what came.
    """
    if not isinstance(indices, Tensor):
        raise CellError(f"{what}: expected int64 [n], got {type(indices).__name__}.")
    if indices.dtype != torch.int64 or indices.ndim != 1 or len(indices) == 0:
        raise CellError(f"{what}: expected int64 [n] with n ≥ 1, got {told(indices)}.")
    if not (indices[1:] > indices[:-1]).all():
        raise CellError(f"{what}: expected sorted indices without repeats; use indices.unique().")
    if not 0 <= int(indices[0]) <= int(indices[-1]) < count:
        raise CellError(f"{what}: expected indices from 0 to {count - 1}, got {int(indices[0])} to {int(indices[-1])}.")
    return indices


def all_but(indices: Tensor, count: int) -> Tensor:
    """Return the indices from 0 to ``count`` − 1 that aren't among ``indices``: int64 ``[m]``, sorted.

    >>> all_but(torch.tensor([1, 3]), 5)
    tensor([0, 2, 4])
    """
    kept = torch.ones(count, dtype=torch.bool)
    kept[indices] = False
    return kept.nonzero().flatten()
