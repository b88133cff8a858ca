"""What is checked of every component, whatever its kind: a sound class, described options, and work without traces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch

from cutk.chance import isolated_rng
from cutk.components import Component
from cutk.errors import one_line
from cutk.guard import watched
from cutk.options import Options, describe_options, parse_options
from cutk.plugins.checks import problem_with
from cutk.testing.findings import Check, NotJudged, Unmet, check
from cutk.testing.states import difference

__all__ = ["Round", "Subject", "all_checks"]

SHORTEST, LONGEST = 10, 120


class Round(NamedTuple):
    """What came of all of a component's work, and what it changed in the process around it."""

    result: Any
    changed: list[str]


class Subject:
    """A component class that is being checked. Each kind of component has its own, which knows how to put it to work.

    Args:
        component: the class.
        given: options over its own defaults, to check it with.
        device: where models live.
    """

    def __init__(self, component: type[Component], given: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.component: Any = component
        self.given = dict(given or {})
        self.device = device

    @cached_property
    def options(self) -> Any:
        """The options to check it with.

        Raises:
            UsageError: if they can't be what was given.
        """
        return parse_options(self.component.Options, self.given, str(self.component.name))

    def make(self, options: Options | None = None) -> Any:
        """Return a component with ``options``, or with those to check it with."""
        return self.component(self.options if options is None else options)

    @property
    def seed(self) -> int:
        """What the benchmark seeds torch with before it calls the component."""
        return 0

    def seeded(self, method: Callable[[], Any]) -> tuple[Any, bool]:
        """Call ``method`` as the benchmark does; return its result, and whether it seeded torch anew."""
        seed = self.seed
        with isolated_rng(seed):
            result = method()
            return result, torch.initial_seed() != seed

    def work(self) -> Any:
        """Let a new component do once what cutk would have it do; return what came of it."""
        raise NotImplementedError

    def decided(self, result: Any) -> Any:
        """Return that part of ``work``'s result which has to be the same every time."""
        return result

    @contextmanager
    def apart(self, seed: int = 0) -> Iterator[list[str]]:
        """Seed all chance inside the block, and put back what it changed; yield the names of what that was."""
        with isolated_rng(seed), watched() as changed:
            yield changed

    def _round(self, seed: int) -> Round:
        with self.apart(seed) as changed:
            result = self.work()
        return Round(result, changed)

    @cached_property
    def first(self) -> Round:
        """All its work."""
        return self._round(1)

    @cached_property
    def second(self) -> Round:
        """The same again under other random states, now that all that it imports has been imported."""
        _ = self.first
        return self._round(2)


@check("Derive from the base class, give it a name, and override what the base class asks for.", essential=True)
def class_is_sound(subject: Subject) -> None:
    """The class is one that cutk accepts, by its base, its name, its attributes and its methods."""
    if problem := problem_with(subject.component, subject.component.kind):
        raise Unmet(problem)


@check(f"Begin the docstring with one sentence of {SHORTEST} to {LONGEST} characters that ends in a full stop.")
def class_is_documented(subject: Subject) -> None:
    """The docstring's first line says in a sentence what it is: users see it in lists."""
    summary = subject.component.summary()
    if not summary.endswith(".") or not SHORTEST < len(summary) <= LONGEST:
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


@check(
    "Take all chance from the generator that you are given, or from torch's global state where cutk seeds that "
    "(models, unlearners); none from the clock or the order of a set, and keep nothing on the class or in the module."
)
def same_seed_gives_the_same(subject: Subject) -> None:
    """Twice from the same seed, on the same data, gives the same, to the last bit."""
    first, second = (subject.decided(each.result) for each in (subject.first, subject.second))
    if found := difference(first, second, "what it gave"):
        raise Unmet(f"two runs differ in {found}")


@check("Put back what you set, in a finally or with a context manager, and draw from no global generator.")
def nothing_global_is_left(subject: Subject) -> None:
    """Random states, modes, threads, dtypes, hooks, warnings, folder, environment, functions are as they were."""
    if subject.second.changed:
        raise Unmet(f"it changes {', '.join(subject.second.changed)}")


def all_checks(module: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return the checks of a kind: those of every component, and between them its own, as they are defined.

    Args:
        module: the names in the kind's module, ``globals()``.
    """
    own = [value for value in module.values() if isinstance(value, Check)]
    of_the_class = (class_is_sound, class_is_documented, options_are_described, defaults_are_valid)
    return (*of_the_class, options_survive_json, *own, same_seed_gives_the_same, nothing_global_is_left)
