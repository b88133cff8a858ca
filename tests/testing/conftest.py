from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from cutk.kinds import KINDS

FOLDER = Path(__file__).with_name("broken")
MADE = {kind.name: SimpleNamespace(**runpy.run_path(str(FOLDER / f"{kind.plural}.py"))) for kind in KINDS.values()}


@pytest.fixture(scope="session")
def made():
    """By kind, the sound components and the broken ones."""
    return MADE


def pytest_generate_tests(metafunc):
    if "sound" in metafunc.fixturenames:
        each = [component for one in MADE.values() for component in one.SOUND]
        metafunc.parametrize("sound", each, ids=[f"{component.kind}-{component.name}" for component in each])
    if "broken" in metafunc.fixturenames:
        each = [
            pytest.param((kind, name, component), id=f"{kind}-{name}-{position}")
            for kind, one in MADE.items()
            for name, components in one.BROKEN.items()
            for position, component in enumerate(components)
        ]
        metafunc.parametrize("broken", each)
