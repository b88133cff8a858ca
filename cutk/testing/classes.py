"""What holds of every component, whatever its kind: a sound class, documented, with options that people can use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cutk.components import Component
from cutk.errors import one_line
from cutk.options import Options, describe_options, parse_options
from cutk.plugins.checks import problem_with
from cutk.testing.findings import check
from cutk.testing.verdicts import NotJudged, Unmet

__all__ = ["CHECKS", "Subject", "require_unchanged"]

SHORTEST, LONGEST = 10, 120


class Subject:
    """A component class that is being checked, with the options to check it with.

    Args:
        component: the class.
        given: options over its own defaults.
    """

    def __init__(self, component: type[Component], given: Mapping[str, Any] | None = None) -> None:
        self.component: Any = component
        self.given = dict(given or {})

    @cached_property
    def options(self) -> Options:
        """The options to check it with.

        Raises:
            UsageError: if they can't be what was given.
        """
        options: Options = parse_options(self.component.Options, self.given, str(self.component.name))
        return options

    def make(self, options: Options | None = None) -> Any:
        """Return a component with ``options``, or with those to check it with."""
        return self.component(self.options if options is None else options)


def require_unchanged(changed: list[str]) -> None:
    """Raise ``Unmet`` if global state was changed.

    Args:
        changed: what ``watched`` says.
    """
    if changed:
        raise Unmet(f"it changes {', '.join(changed)}")


@check("Derive from the base class, give it a name, and override what the base class asks for.", essential=True)
def class_is_sound(subject: Subject) -> None:
    """The class is one that cutk accepts, by its base, its name, its attributes and its methods."""
    if problem := problem_with(subject.component, subject.component.kind):
        raise Unmet(problem)


@check(f"Begin the docstring with one sentence of {SHORTEST} to {LONGEST} characters that ends in a full stop.")
def class_is_documented(subject: Subject) -> None:
    """The docstring's first line says in a sentence what it is: users see it in lists."""
    summary = subject.component.summary()
    if not summary.endswith(".") or not SHORTEST < len(summary) < LONGEST:
        raise Unmet(f"the first line is {summary!r}, {len(summary)} characters")


@check("Declare it as name: type = cutk.option(default, help='what it does'), with a type that words can describe.")
def options_are_described(subject: Subject) -> None:
    """Every option says what it does, and what is expected can be put into words."""
    for info in describe_options(subject.component.Options):
        if not info.help.strip():
            raise Unmet(f"the option '{info.name}' has no help")
        if info.expected == "a value":
            raise Unmet(f"of the option '{info.name}' nothing can be said but that a value is expected")


@check("Give every option a default within its own bounds, and leave all work to the methods.", essential=True)
def defaults_are_valid(subject: Subject) -> None:
    """A component can be made from its options, without doing any work."""
    required = {info.name for info in describe_options(subject.component.Options) if info.required}
    if missing := sorted(required - set(subject.given)):
        raise NotJudged(
            f"the option '{missing[0]}' has no default: give options={{'{missing[0]}': …}} to check it with"
        )
    subject.make()


@check("Keep options to what JSON knows: numbers, texts, booleans, None, and lists of them.")
def options_survive_json(subject: Subject) -> None:
    """Options can be written as JSON and read again: stored runs keep them so."""
    cls = subject.component.Options
    try:
        dumped = json.loads(json.dumps(subject.options.model_dump(mode="json")))
        restored = cls(**dumped)
    except ValueError as error:
        raise Unmet(one_line(error)) from None
    if restored != subject.options:
        raise Unmet(f"{subject.options!r} comes back as {restored!r}")


CHECKS = (class_is_sound, class_is_documented, options_are_described, defaults_are_valid, options_survive_json)
