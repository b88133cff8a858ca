"""Running a component in surroundings of which nothing may change, with or without other random states around it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from cutk import guard

__all__ = ["watched"]


@contextlib.contextmanager
def watched(stirred: int | None = None) -> Iterator[list[str]]:
    """Yield a list that names, once the block has ended, every piece of global state that it changed.

    All of it is put back, so that one component's doings spoil no other's checks.

    Args:
        stirred: if given, all global generators are seeded with it for the block. Of two runs that are stirred
            differently, whatever draws from them gives different results.
    """
    with guard.watched():
        if stirred is not None:
            torch.manual_seed(stirred)
            np.random.seed(stirred)
            random.seed(stirred)
        with guard.watched() as changed:
            yield changed
