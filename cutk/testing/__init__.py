"""The test kit for plugin authors: does a component keep to what cutk expects?

In the spirit of scikit-learn's ``check_estimator``: each function takes a component class, tries it on a tiny scenario
in seconds, and raises one ``CheckFailed`` that lists every check that failed and how to mend it::

    from cutk.testing import check_unlearner

    def test_it_keeps_to_what_cutk_expects():
        check_unlearner(MyUnlearner)

``cutk plugins check`` runs the same checks from the command line, and cutk's own tests run them over every built-in.
pytest fixtures are in ``cutk.testing.pytest_plugin``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutk.components import KINDS, Component, Dataset, Manipulation, Metric, Model, Summary, Unlearner
from cutk.errors import UsageError
from cutk.testing import datasets, manipulations, metrics, models, unlearners
from cutk.testing.findings import CheckFailed, Finding, run, settle
from cutk.testing.tiny import tiny_scenario

__all__ = [
    "CheckFailed",
    "Finding",
    "check_component",
    "check_dataset",
    "check_manipulation",
    "check_metric",
    "check_model",
    "check_unlearner",
    "examine",
    "tiny_scenario",
]

Given = Mapping[str, Any] | None


def examine(component: type[Component], *, options: Given = None, device: str = "cpu") -> list[Finding]:
    """Run every check for a component's kind and return what they found, whether or not they passed.

    Args:
        component: the class.
        options: what to set over its own defaults, to check it with.
        device: where models live; kinds without a model of their own stay on the CPU.

    Raises:
        UsageError: if it is no component class.
    """
    if not isinstance(component, type) or not issubclass(component, tuple(KINDS.values())):
        bases = ", ".join(f"cutk.{base.__name__}" for base in KINDS.values())
        raise UsageError(f"Expected a subclass of {bases}, got {component!r}.")
    if issubclass(component, Unlearner):
        return run(unlearners.CHECKS, unlearners.Trials(component, options, device))
    if issubclass(component, Manipulation):
        return run(manipulations.CHECKS, manipulations.Doings(component, options))
    if issubclass(component, Model):
        return run(models.CHECKS, models.Builds(component, options))
    if issubclass(component, Dataset):
        return run(datasets.CHECKS, datasets.Loads(component, options))
    if issubclass(component, Summary):
        return run(metrics.SUMMARY_CHECKS, metrics.Curves(component, options))
    return run(metrics.CHECKS, metrics.Judgements(component, options))


def check_component(component: type[Component], *, options: Given = None, device: str = "cpu") -> list[Finding]:
    """Check a component of whatever kind; see ``check_unlearner`` and its siblings.

    Raises:
        CheckFailed: if a check failed.
        UsageError: if it is no component class.
    """
    return settle(component, examine(component, options=options, device=device))


def _of_kind(base: type[Component], component: type[Component]) -> None:
    if not isinstance(component, type) or not issubclass(component, base):
        raise UsageError(f"Expected a subclass of cutk.{base.__name__}, got {component!r}.")


def check_unlearner(component: type[Unlearner], *, options: Given = None, device: str = "cpu") -> list[Finding]:
    """Check an unlearner on a tiny scenario of 72 images, 8 of them manipulated.

    The same seed gives the same model; the original, the task and everything global stay as they were; device and
    dtypes are kept; ``prepared_by`` is honest; it copes with |S_f| = 1, with S_f = S_m, and without a validation set.

    Args:
        component: the class.
        options: what to set over its own defaults, to check it with; fewer steps, say.
        device: where models live.

    Returns:
        What every check found: those that passed, and those that couldn't be judged.

    Raises:
        CheckFailed: if a check failed.
        UsageError: if it is no unlearner.
    """
    _of_kind(Unlearner, component)
    return check_component(component, options=options, device=device)


def check_manipulation(component: type[Manipulation], *, options: Given = None) -> list[Finding]:
    """Check a manipulation on 300 random images, grey and in colour.

    It changes exactly the samples that it says, the same ones for the same seed, and leaves the given images alone.

    Args, returns and raises as ``check_unlearner``.
    """
    _of_kind(Manipulation, component)
    return check_component(component, options=options)


def check_model(component: type[Model], *, options: Given = None) -> list[Finding]:
    """Check a model on images of several shapes.

    They become logits or are refused with a ``UsageError``; gradients reach every parameter; the seed decides the
    weights; and these survive a file.

    Args, returns and raises as ``check_unlearner``.
    """
    _of_kind(Model, component)
    return check_component(component, options=options)


def check_metric(component: type[Metric], *, options: Given = None) -> list[Finding]:
    """Check a metric or a breakdown on good and bad models in three tiny scenarios, a summary on made-up curves.

    Its values are within its bounds and the same every time; it changes nothing; its direction is honest, where that
    can be judged.

    Args, returns and raises as ``check_unlearner``.
    """
    _of_kind(Metric, component)
    return check_component(component, options=options)


def check_dataset(component: type[Dataset], *, options: Given = None) -> list[Finding]:
    """Check a dataset: loaded twice it is the same, and its parts fit together.

    If its files aren't here, it has to say how to get them, and nothing else is judged.

    Args, returns and raises as ``check_unlearner``.
    """
    _of_kind(Dataset, component)
    return check_component(component, options=options)
