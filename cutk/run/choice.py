"""What a selector says of candidates, taken at its word only where that can be a choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from cutk.components import Score, Selector
from cutk.errors import CellError, one_line
from cutk.options import shown

__all__ = ["choice_of", "value_of"]

T = TypeVar("T")


def value_of(selector: Selector, score: Score) -> float:
    """Return how good a candidate is.

    A CellError names the selector where it fails, and where its value is no finite number: nothing compares with NaN.
    """
    value = _asked(selector, lambda: selector.value(score))
    with suppress(TypeError, ValueError, RuntimeError):  # of a tensor with several numbers
        if not isinstance(value, bool | str) and math.isfinite(number := float(value)):
            return number
    raise CellError(f"The selector '{selector.name}' gave {shown(value)} as a value; expected a finite number.")


def choice_of(selector: Selector, scores: Sequence[Score | None]) -> int:
    """Return the position that a selector chooses; a CellError names it where it fails or nothing is there."""
    chosen = _asked(selector, lambda: selector.choose(list(scores)))
    there = [position for position, score in enumerate(scores) if score is not None]
    with suppress(TypeError, ValueError, RuntimeError):
        if not isinstance(chosen, bool) and chosen in there:
            return int(chosen)
    raise CellError(
        f"The selector '{selector.name}' chose {shown(chosen)}; expected the position of a candidate that has a score, "
        f"one of {there}."
    )


def _asked(selector: Selector, question: Callable[[], T]) -> T:
    try:
        return question()
    except Exception as error:
        raise CellError(f"The selector '{selector.name}' failed: {one_line(error)}") from error
