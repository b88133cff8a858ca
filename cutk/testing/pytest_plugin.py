"""pytest fixtures for the tests of plugins: ``cutk_registry``, ``tiny_scenario`` and ``tiny_task``.

Ask for them in the plugin's own ``pyproject.toml``::

    [tool.pytest.ini_options]
    addopts = "-p cutk.testing.pytest_plugin"

or in the topmost ``conftest.py``: ``pytest_plugins = ["cutk.testing.pytest_plugin"]``.

They are no ``pytest11`` entry point on purpose: pytest imports those in every run of the environment, whatever is
tested there, and this one brings torch.
"""

from __future__ import annotations

import pytest

from cutk.plugins.registry import Registry, load_registry
from cutk.problem.scenario import Scenario
from cutk.problem.task import Task
from cutk.testing.tiny import tiny_models
from cutk.testing.tiny import tiny_scenario as make_scenario

__all__ = ["cutk_registry", "tiny_scenario", "tiny_task"]


@pytest.fixture(scope="session")
def cutk_registry() -> Registry:
    """Every installed plugin, as the command line finds them."""
    return load_registry()


@pytest.fixture
def tiny_scenario() -> Scenario:
    """The evaluator's side of a benchmark that is trained in a moment: 72 grey images, 8 of them with a trigger."""
    return make_scenario()


@pytest.fixture
def tiny_task(tiny_scenario: Scenario) -> Task:
    """What an unlearner is given there: a trained original, and half of the manipulated samples."""
    original, _ = tiny_models()
    return tiny_scenario.task(original, alpha=0.5)
