"""Chance: derived seeds, a stream for each purpose, and blocks that leave the global random states as they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, salt: str = "") -> int:
    """Return the seed of one purpose's own stream, 0 to 2^63 − 1.

    Whoever sees a derived seed could try small seeds until one gives it, and would then have every other stream; so
    ``salt`` is something that they don't know.

    >>> derive_seed(0, "order") == derive_seed(0, "order") != derive_seed(0, "identification")
    True
    """
    digest = hashlib.sha256(f"cutk/{salt}/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, purpose: str, salt: str = "") -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, salt))


def _seed_torch(seed: int) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available():
        torch.manual_seed(seed)
    else:  # the same, without importing torch's compiler, which takes as long as importing torch
        torch.default_generator.manual_seed(seed)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the global random states of torch, NumPy and Python inside the block, and leave them as they were before."""
    python, numpy = random.getstate(), np.random.get_state()  # the global one is what others use
    # Without devices it would count them itself, each time, by asking the GPUs' driver.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        _seed_torch(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
