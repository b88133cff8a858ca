from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

import cutk


@pytest.fixture
def load():
    """Load a dataset under options."""

    def call(component, **options):
        return component(component.Options(**options)).load()

    return call


@pytest.fixture
def message(load):
    """What the user reads when the data can't be loaded; it is one line."""

    def call(component, **options):
        with pytest.raises(cutk.UsageError) as error:
            load(component, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    return call


@pytest.fixture
def noise():
    """Make arrays of random bytes."""

    def call(*shape, seed=0):
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return call


@pytest.fixture
def open_folder():
    """A folder that everybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: S103
        yield Path(name)


@pytest.fixture
def nobody():
    """A block in which this process has no rights that its user hasn't: to root, nothing is unreadable."""

    @contextlib.contextmanager
    def block():
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return block
