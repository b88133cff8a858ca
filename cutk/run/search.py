"""Hyperparameter search without the test set: the points of a grid, and the rule that picks one."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutk.components import Unlearner

__all__ = ["Score", "expand_grid", "pin", "search_points", "select"]

Point = dict[str, Any]


def expand_grid(grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[Point]:
    """List the points of a grid, in its order.

    >>> expand_grid({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    >>> expand_grid({})
    [{}]
    """
    if isinstance(grid, Mapping):
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [dict(point) for point in grid] or [{}]


def pin(points: Sequence[Point], name: str, values: Sequence[Any]) -> list[Point]:
    """Restrict one option to ``values``, as a user asked.

    For each value, the points that have it stay. If none has it, every point takes it; of points that become equal
    by this, the first stays.

    >>> pin([{"a": 1, "b": 1}, {"a": 2, "b": 2}], "a", [2])
    [{'a': 2, 'b': 2}]
    >>> pin([{"a": 1, "b": 1}, {"a": 2, "b": 1}], "a", [7])
    [{'a': 7, 'b': 1}]
    """
    result: dict[str, Point] = {}
    for value in values:
        having = [point for point in points if name in point and point[name] == value]
        for point in having or [{**point, name: value} for point in points]:
            result.setdefault(json.dumps(point, sort_keys=True, default=str), point)
    return list(result.values())


def search_points(unlearner: type[Unlearner], given: Mapping[str, Sequence[Any]], search: str) -> list[Point]:
    """Return the options to try: the unlearner's grid (``grid``) or its defaults (``default``), as ``given`` pins them.

    Args:
        unlearner: the component class.
        given: for each option that the user set, the validated values.
        search: ``grid``, ``default``, or ``random:N`` for N points of the grid as pinned, drawn without replacement
            and the same ones every time; fewer if it has fewer.
    """
    points = [{}] if search == "default" else expand_grid(unlearner.grid)
    for name, values in given.items():
        points = pin(points, name, values)
    kind, _, count = search.partition(":")
    if kind == "random" and int(count) < len(points):
        drawn = random.Random(0).sample(range(len(points)), int(count))  # noqa: S311  # no secret
        points = [points[position] for position in sorted(drawn)]
    return points


@dataclass(frozen=True)
class Score:
    """What a developer can measure without the test set.

    Attributes:
        validation_accuracy: on the clean held-out samples.
        changed_fraction: of S_f, how many are predicted otherwise than by the original model.
    """

    validation_accuracy: float
    changed_fraction: float

    @property
    def value(self) -> float:
        """½ · validation accuracy + ½ · changed fraction (paper, section 3.2)."""
        return 0.5 * self.validation_accuracy + 0.5 * self.changed_fraction


def select(scores: Sequence[Score | None]) -> int:
    """Return the position of the best score; a None stands for a point that failed.

    Among equal scores the higher validation accuracy wins, then the earlier point.

    Raises:
        ValueError: if no point has a score.
    """
    ranked = [
        (score.value, score.validation_accuracy, -position)
        for position, score in enumerate(scores)
        if score is not None
    ]
    if not ranked:
        raise ValueError("Expected at least one scored point, got none.")
    return -max(ranked)[2]
