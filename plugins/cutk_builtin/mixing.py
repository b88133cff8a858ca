"""Batches that hold more of S_f than the training set does."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import cutk


def mixed(task: cutk.Task, steps: int, share: float) -> Iterator[cutk.Batch]:
    r"""Yield ``steps`` batches of the recipe's size, each with part ``share`` of S_f, or all of it if that is less.

    S_f comes first in a batch, then samples of S_tr \ S_f, each drawn without repetition until all have been.
    """
    size = task.recipe.options.batch_size
    part = min(max(1, int(size * share)), len(task.identified))
    sources = (
        task.train.batches(indices, count, shuffle=True, augment=True, steps=steps)
        for indices, count in ((task.identified, part), (task.retained, max(1, size - part)))
    )
    for some, others in zip(*sources, strict=True):
        yield cutk.Batch(*(torch.cat(pair) for pair in zip(some, others, strict=True)))
