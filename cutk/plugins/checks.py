"""What must be right about a component class before anyone is offered it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import fields

from cutk.components import Component, Metric, Score, Selector, Summary, Unlearner
from cutk.errors import UsageError
from cutk.kinds import KINDS

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Attributes that list names, and of what.
_NAMED = {"of": "metrics", "measures": "fields of cutk.Score", "prepared_by": "options", "surveyed_by": "options"}
# Words that the command line and the records use for something else.
_RESERVED = frozenset({"all", "gold", "original", "recipe"})


def _problem_with_values(component: type[Component], base: type[Component]) -> str | None:
    """Say which class attribute of ``component`` has a value that nothing could be done with."""
    options = component.Options.model_fields
    for attribute in ("of", "measures", "prepared_by", "surveyed_by"):
        names = getattr(component, attribute, ())
        # One name in brackets without a comma is a text, which would be taken for its letters.
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            what = _NAMED[attribute]
            return f"has {attribute} = {names!r}; expected the names of {what}, as in {attribute} = ('name',)"
    if taken := sorted(set(options) & set(dir(base.Options))):
        return f"has the option {taken[0]!r}, which every Options has as a method already; call it otherwise"
    if base.kind == "recipe" and "name" in options:
        return "has the option 'name', which is how a plan names the recipe; call it otherwise"
    if issubclass(component, Metric | Summary):
        bounds = component.bounds
        numbers = isinstance(bounds, tuple) and [isinstance(bound, int | float) for bound in bounds] == [True, True]
        if not numbers or not bounds[0] < bounds[1]:
            return f"has the bounds {bounds!r}; expected two numbers, the smaller first"
        if not isinstance(component.higher_is_better, bool):
            return f"has higher_is_better = {component.higher_is_better!r}; expected True or False"
        if issubclass(component, Metric) and component.objective not in ("", "unlearning", "utility"):
            return f"has the objective {component.objective!r}; expected 'unlearning' or 'utility'"
    if issubclass(component, Selector) and (odd := set(component.measures) - {field.name for field in fields(Score)}):
        return f"measures {sorted(odd)[0]!r}; expected fields of cutk.Score"
    if issubclass(component, Unlearner):
        grid = component.grid
        points = [grid] if isinstance(grid, Mapping) else grid
        if not isinstance(points, tuple | list) or not all(isinstance(point, Mapping) for point in points):
            return f"has the grid {grid!r}; expected a mapping from options to values, or a list of such points"
        if isinstance(grid, Mapping) and not all(isinstance(v, tuple | list) and v for v in grid.values()):
            return f"has the grid {grid!r}; expected a list of values for each option"
        named = {
            "grid": [str(name) for point in points for name in point],
            "prepared_by": component.prepared_by,
            "surveyed_by": component.surveyed_by,
        }
        for attribute, names in named.items():
            if unknown := sorted(set(names) - set(options)):
                return f"names the option {unknown[0]!r} in {attribute}, which it doesn't have"
    return None


def problem_with(component: object, kind: str) -> str | None:
    """Say what is wrong with a class that a plugin provides as a ``kind``, or None if nothing is.

    >>> problem_with(int, "metric")
    "'int' is no subclass of cutk.Metric"
    """
    base = KINDS[kind].base
    if not isinstance(component, type):
        return f"expected a subclass of cutk.{base.__name__}, got the {type(component).__name__} {component!r}"
    label = f"'{component.__name__}'"
    if not issubclass(component, base):
        return f"{label} is no subclass of cutk.{base.__name__}"
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{label} has the name {name!r}; expected lower-case letters, digits, - and _"
    if name in _RESERVED:
        return f"{label} has the name {name!r}, which is reserved"
    if not (isinstance(component.Options, type) and issubclass(component.Options, base.Options)):
        return f"'{component.__name__}.Options' is no subclass of cutk.{base.Options.__name__}"
    if component.variant and component.variant not in component.Options.model_fields:
        return f"'{component.__name__}.variant' names the option {component.variant!r}, which it doesn't have"
    libraries = component.libraries
    if not isinstance(libraries, Mapping) or not all(isinstance(v, str) for each in libraries.items() for v in each):
        return f"{label} has libraries = {libraries!r}; expected a mapping from modules to what to install"
    if problem := _problem_with_values(component, base):
        return f"{label} {problem}"
    if missing := [method for method in component.required if _is_missing(component, method)]:
        return f"{label} does not override {missing[0]}()"
    if taken := [method for method in base.final if getattr(component, method) is not getattr(base, method)]:
        return f"{label} overrides {taken[0]}(), which others rely on; what may be overridden, its base class says"
    return None


def _is_missing(component: type[Component], method: str) -> bool:
    """Say whether a method that an author must write is still the one of the class that asks for it."""
    writer = next((cls for cls in component.__mro__ if method in vars(cls)), None)
    return writer is None or "required" in vars(writer)


def require_libraries(component: type[Component]) -> None:
    """Raise a ``UsageError`` if a library that ``component`` needs isn't installed; none is imported for that."""
    for module, package in component.libraries.items():
        if not _is_there(module):
            raise UsageError(
                f"The {component.kind} '{component.name}' needs {module}. Install it: pip install '{package}'"
            )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that a module lies in
        return False
