"""What a check says when it doesn't simply pass."""

from __future__ import annotations

from cutk.errors import CutkError

__all__ = ["NotJudged", "Unmet"]


class Unmet(CutkError):  # noqa: N818  # no error of cutk's: what a check has to say
    """What should hold does not: the message says what came instead."""


class NotJudged(CutkError):  # noqa: N818  # the same
    """Whether it holds can't be said: the message says why."""
