"""What a selector says of candidates, taken at its word only where that can be a choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import TypeVar

from cutk.components import Score, Selector
from cutk.errors import CellError, one_line

__all__ = ["choice_of", "value_of"]

T = TypeVar("T")


def value_of(selector: Selector, score: Score) -> float:
    """Return how good a candidate is.

    A CellError names the selector where it fails, and where its value is no finite number: nothing compares with NaN.
    """
    value = _asked(selector, lambda: float(selector.value(score)))
    if not math.isfinite(value):
        raise CellError(f"The selector '{selector.name}' gave {value} as a value; expected a finite number.")
    return value


def choice_of(selector: Selector, scores: Sequence[Score | None]) -> int:
    """Return the position that a selector chooses; a CellError names it where it fails or nothing is there."""

    def chosen() -> int:
        return index(selector.choose(list(scores)))

    position = _asked(selector, chosen)
    if not 0 <= position < len(scores) or scores[position] is None:
        there = [place for place, score in enumerate(scores) if score is not None]
        raise CellError(
            f"The selector '{selector.name}' chose position {position}; expected one that has a score, of {there}."
        )
    return position


def _asked(selector: Selector, question: Callable[[], T]) -> T:
    try:
        return question()
    except Exception as error:
        raise CellError(f"The selector '{selector.name}' failed: {one_line(error)}") from error
