"""Checks: what each says, how they are run one after the other, and what is reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cutk.components import Component
from cutk.errors import Caught, CutkError, one_line

__all__ = ["Check", "CheckFailed", "Finding", "NotJudged", "Unmet", "check", "run"]


class Unmet(CutkError):  # noqa: N818  # no error of cutk's: what a check has to say
    """What should hold does not: the message says what came instead."""


class NotJudged(CutkError):  # noqa: N818  # the same
    """Whether it holds can't be said: the message says why."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: the check's name.
        statement: what should hold.
        passed: whether it holds; None where that can't be judged.
        reason: of a check that failed, what came instead; of one that wasn't judged, why; of one that passed, a
            remark if there is one.
        hint: how to mend it; empty unless it failed.
    """

    check: str
    statement: str
    passed: bool | None
    reason: str = ""
    hint: str = ""


class CheckFailed(CutkError, AssertionError):  # noqa: N818  # named as what happened: pytest shows it
    """A component doesn't keep to what cutk expects; the message lists every check that failed.

    Args:
        component: the class.
        findings: all of them.
    """

    def __init__(self, component: type[Component], findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        failed = [finding for finding in findings if finding.passed is False]
        name, kind = getattr(component, "name", component.__name__), getattr(component, "kind", "component")
        lines = [f"The {kind} '{name}' fails {len(failed)} of {len(findings)} checks:"]
        for finding in failed:
            lines += [
                f"  - {finding.statement} ({finding.check})",
                f"    came: {finding.reason}",
                f"    mend: {finding.hint}",
            ]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Check:
    """One thing that should hold of a component.

    Attributes:
        name: the function's.
        statement: what should hold: the first line of the function's docstring.
        hint: how to mend it.
        essential: whether the checks behind it mean nothing unless it holds.
        judge: raises ``Unmet`` if it doesn't hold and ``NotJudged`` if that can't be said; whatever else it raises
            means that it doesn't. A text that it returns is a remark.
    """

    name: str
    statement: str
    hint: str
    essential: bool
    judge: Callable[[Any], str | None]


def check(hint: str, *, essential: bool = False) -> Callable[[Callable[[Any], str | None]], Check]:
    """Make a function, whose docstring says what should hold, a check."""

    def decorate(function: Callable[[Any], str | None]) -> Check:
        statement = (inspect.getdoc(function) or "").partition("\n")[0]
        return Check(function.__name__, statement, hint, essential, function)

    return decorate


def _judge(check: Check, subject: object) -> Finding:
    remark: str | None = None
    with Caught() as caught:
        remark = check.judge(subject)
    if isinstance(caught.error, NotJudged):
        return Finding(check.name, check.statement, None, one_line(caught.error))
    if caught.error is not None:
        return Finding(check.name, check.statement, False, caught.reason, check.hint)
    return Finding(check.name, check.statement, True, remark or "")


def run(checks: Iterable[Check], subject: object) -> list[Finding]:
    """Run ``checks`` in their order; behind an essential one that doesn't hold, nothing is judged."""
    findings: list[Finding] = []
    unfounded = ""
    for each in checks:
        if unfounded:
            findings.append(Finding(each.name, each.statement, None, unfounded))
            continue
        finding = _judge(each, subject)
        findings.append(finding)
        if each.essential and not finding.passed:
            unfounded = f"it needs what '{each.name}' says"
    return findings
