"""The test kit for plugin authors: does a component keep to what cutk expects?

In the spirit of scikit-learn's ``check_estimator``: ``check_component`` takes a component class of whatever kind, tries
it on something tiny in seconds, and raises one ``CheckFailed`` that lists every check that failed and how to mend it.
For each kind there is ``check_KIND`` besides, which takes classes of that kind alone: ``check_unlearner``,
``check_manipulation``, ``check_recipe``, …::

    from cutk.testing import check_unlearner

    def test_it_keeps_to_what_cutk_expects():
        check_unlearner(MyUnlearner, options={"steps": 10})

``cutk plugins check`` runs the same checks from the command line, and cutk's own tests run them over every built-in.
pytest fixtures are in ``cutk.testing.pytest_plugin``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from cutk.components import Component
from cutk.errors import UsageError
from cutk.kinds import KINDS, Kind, asked_as
from cutk.testing.findings import CheckFailed, Finding, run
from cutk.testing.tiny import tiny_scenario

__all__ = ["CheckFailed", "Finding", "check_component", "examine", "tiny_scenario"]

Given = Mapping[str, Any] | None


def _kind_of(component: object) -> Kind:
    kind = KINDS.get(getattr(component, "kind", ""))
    if kind is None or not isinstance(component, type) or not issubclass(component, kind.base):
        bases = ", ".join(f"cutk.{kind.base.__name__}" for kind in KINDS.values())
        raise UsageError(f"Expected a subclass of {bases}, got {component!r}.")
    return kind


def examine(component: type[Component], *, options: Given = None, device: str = "cpu") -> list[Finding]:
    """Run the checks as ``check_component`` does, and return what they found, whether or not they passed.

    Raises:
        UsageError: if it is no component class.
    """
    kit = import_module(f"{__name__}.{_kind_of(component).plural}")
    return run(kit.CHECKS, kit.SUBJECT(component, options, device))


def check_component(component: type[Component], *, options: Given = None, device: str = "cpu") -> list[Finding]:
    """Check a component of whatever kind.

    Args:
        component: the class.
        options: what to set over its own defaults, to check it with; fewer steps, say.
        device: where models live; kinds without a model of their own stay on the CPU.

    Returns:
        What every check found: those that passed, and those that couldn't be judged.

    Raises:
        CheckFailed: if a check failed.
        UsageError: if it is no component class.
    """
    findings = examine(component, options=options, device=device)
    if any(finding.passed is False for finding in findings):
        raise CheckFailed(component, findings)
    return findings


def __getattr__(name: str) -> Callable[..., list[Finding]]:
    kind = KINDS.get(name.removeprefix("check_"))
    if kind is None or not name.startswith("check_"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def check_kind(component: type[Component], *, options: Given = None, device: str = "cpu") -> list[Finding]:
        # To those who asked for both in one way, a summary is a metric.
        bases = tuple(other.base for other in asked_as(kind.name))
        if not isinstance(component, type) or not issubclass(component, bases):
            raise UsageError(f"Expected a subclass of cutk.{kind.base.__name__}, got {component!r}.")
        return check_component(component, options=options, device=device)

    check_kind.__name__ = check_kind.__qualname__ = name
    check_kind.__doc__ = f"Check a component that has to be a {kind.name}; see ``check_component``."
    globals()[name] = check_kind
    return check_kind


def __dir__() -> list[str]:
    return sorted({*globals(), *(f"check_{name}" for name in KINDS)})
