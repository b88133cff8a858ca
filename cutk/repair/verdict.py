"""Counts with their intervals, and what they come to in plain words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from cutk.errors import conjoined

__all__ = [
    "STATUSES",
    "Proportion",
    "Status",
    "improved",
    "lagging",
    "percent",
    "points",
    "proportion",
    "told_classes",
    "wilson",
]

Status = Literal["repaired", "in part", "not repaired"]
STATUSES: tuple[Status, ...] = get_args(Status)  # the best first
# The two-sided 95 % quantile of the normal distribution.
_Z = 1.959963984540054


def wilson(count: float, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion: of ``of`` trials, at least one, ``count`` came out.

    Wilson, JASA 1927: unlike the textbook's, it stays within 0 … 1 and holds where all or none came out.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    share, z2 = count / of, _Z * _Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def improved(righted: int, wronged: int) -> bool:
    """Say whether samples are better predicted than before: ``righted`` of them are right now, ``wronged`` no more.

    One-sided sign test at 5 %: what stayed as it was says nothing.

    >>> improved(5, 0), improved(4, 0), improved(12, 8)
    (True, False, False)
    """
    n, log = righted + wronged, math.lgamma
    terms = (log(n + 1) - log(k + 1) - log(n - k + 1) - n * math.log(2) for k in range(righted, n + 1))
    return sum(map(math.exp, terms)) <= 0.05


class Proportion(BaseModel):
    """So many of so many, with the 95 % interval of the proportion."""

    model_config = ConfigDict(frozen=True)

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The proportion, 0 to 1."""
        return self.count / self.of

    @property
    def percent(self) -> str:
        """The proportion as people read it."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """Its interval as people read it."""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"


def proportion(count: int, of: int) -> Proportion | None:
    """Return a proportion, None of nothing."""
    if not of:
        return None
    low, high = wilson(count, of)
    return Proportion(count=count, of=of, low=low, high=high)


def percent(value: float) -> str:
    """Return a fraction as people read it.

    >>> percent(0.971)
    '97.1 %'
    """
    return f"{100 * value:.1f} %"


def points(loss: float) -> str:
    """Return a loss of accuracy as people say it.

    >>> points(0.01), points(0.025)
    ('1 point', '2.5 points')
    """
    return f"{100 * loss:g} point{'' if round(100 * loss, 9) == 1 else 's'}"


def _pooled(classes: Mapping[str, Proportion], names: Collection[str]) -> Proportion | None:
    mine = [classes[name] for name in names if name in classes]
    return proportion(sum(p.count for p in mine), sum(p.of for p in mine))


def lagging(
    before: Mapping[str, Proportion], after: Mapping[str, Proportion], concerned: Sequence[str]
) -> tuple[Proportion, Proportion, Proportion] | None:
    """Say whether the classes ``concerned`` stay behind the others on validation samples: damage that is left, or new.

    Returns:
        What is right of them before and after, and of the other classes after; None where the intervals of the last
        two meet, or there is nothing to compare.
    """
    others = [name for name in after if name not in concerned]
    was, now, rest = _pooled(before, concerned), _pooled(after, concerned), _pooled(after, others)
    if was is None or now is None or rest is None or now.high >= rest.low:
        return None
    return was, now, rest


def told_classes(names: Sequence[str], most: int = 5) -> str:
    """Return classes by name as a sentence lists them.

    >>> told_classes(["a", "b", "c"])
    "'a', 'b' and 'c'"
    """
    quoted = [f"'{name}'" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(quoted)} and {len(names) - most} more"
    return conjoined(quoted)
