"""The records of a benchmark, looked up: what :mod:`statements` and :mod:`published` say is said of these."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cutk.run.store import Store

POISONING, CONFUSION = "badnet", "interclass-confusion"
METHODS = ("rewod", "cf", "ssd", "badt", "scrub")
# What is said of a method is said of these as well, where they were measured.
VARIANTS = ("scrub:step",)
CORRECTED, RETAIN, PASSES = "corrected_accuracy", "retain_accuracy", "passes"
# A method has recovered where its corrected accuracy is at least this part of gold's (paper, section 2.2).
PART = 0.9
BEFORE_MOST = 0.8
# What is said of all smaller fractions takes at least one from here on.
MIDDLE = 0.5


def _read(path: Path) -> Iterable[dict[str, Any]]:
    if path.is_dir():
        return (run.record.model_dump() for run in Store(path).runs())
    return json.loads(path.read_text(encoding="utf-8"))["records"]


class Claim(NamedTuple):
    """A quantity that is positive where a statement is true, for each seed."""

    what: str
    values: list[float]


class Results:
    """The selected records of a benchmark, looked up by manipulation, method, α and seed.

    ``methods`` are the paper's, measured or not, and variants of them that were measured, ``others`` those of no
    paper's statement, and ``fractions`` and ``seeds`` all that there are. Of a part (:meth:`over`) ``alphas`` and
    ``seeds`` are those at which all was measured.
    """

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        chosen = [record for record in records if record["selected"]]
        self.records = {(r["manipulation"], r["unlearner"] or r["role"], r["alpha"], r["seed"]): r for r in chosen}
        self.fractions = self.alphas = sorted({r["alpha"] for r in chosen if r["alpha"] is not None})
        self.seeds = sorted({r["seed"] for r in chosen})
        names = {r["unlearner"] for r in chosen if r["unlearner"]}
        self.others = sorted(names - {*METHODS, *VARIANTS})
        self.methods = [*METHODS, *(variant for variant in VARIANTS if variant in names)]
        self.core = self.over(*(method for method in METHODS if method in names))

    def over(self, *methods: str) -> Results:
        """Return the seeds with the most fractions for all of these methods, at the fractions that all of them have."""
        complete = {
            seed: {a for a in self.fractions if all(self.has(m, a, seed) for m in methods)} for seed in self.seeds
        }
        most = max(map(len, complete.values()))
        part = copy.copy(self)
        part.seeds = [seed for seed, found in complete.items() if len(found) == most]
        part.alphas = [a for a in self.fractions if all(a in complete[seed] for seed in part.seeds)]
        return part

    @classmethod
    def of(cls, *paths: Path) -> Results:
        """Read runs folders, or what ``cutk bench --json`` printed, each of other seeds."""
        return cls(record for path in paths for record in _read(path))

    def has(self, method: str, alpha: float, seed: int) -> bool:
        """Say whether a method was measured under both manipulations."""
        return all((m, method, alpha, seed) in self.records for m in (POISONING, CONFUSION))

    def has_any(self, method: str) -> bool:
        """Say whether there is any record of a method."""
        return any(name == method for _, name, *_ in self.records)

    def value(self, manipulation: str, method: str, alpha: float | None, seed: int, metric: str = CORRECTED) -> float:
        """Return one measured value."""
        return float(self.records[manipulation, method, alpha, seed]["metrics"][metric])

    def curve(
        self, manipulation: str, method: str, seed: int, metric: str = CORRECTED, below: float = 2.0
    ) -> list[float]:
        """Return the metric at each α below a limit; a ``LookupError`` if what is there doesn't come near it."""
        alphas = [a for a in self.alphas if a < below - 1e-9]
        least = 0.0 if below > 1 else BEFORE_MOST if below > BEFORE_MOST else MIDDLE
        if not alphas or alphas[-1] < least:
            raise LookupError
        return [self.value(manipulation, method, a, seed, metric) for a in alphas]

    def each(self, what: str, quantity: Callable[[int], float]) -> Claim:
        """Return a claim from what it comes to for each seed for which all that it takes was measured."""
        values = []
        for seed in self.seeds:
            with suppress(LookupError):
                values.append(quantity(seed))
        return Claim(what, values)

    def retained(self, manipulation: str, method: str, seed: int) -> float:
        """Return by how much a method changes the retain accuracy, on average over α."""
        after = statistics.fmean(self.curve(manipulation, method, seed, RETAIN))
        return after - self.value(manipulation, "original", None, seed, RETAIN)

    def bar(self, manipulation: str, seed: int) -> float:
        """Return the corrected accuracy from which on a method has recovered."""
        return PART * self.value(manipulation, "gold", None, seed)

    def mean(self, manipulation: str, method: str) -> str:
        """Return a method's mean curve over these seeds, for people to read."""
        texts = []
        for alpha in self.fractions:
            found = [self.records.get((manipulation, method, alpha, seed)) for seed in self.seeds]
            values = [record["metrics"][CORRECTED] for record in found if record]
            texts.append(f"{statistics.fmean(values):.2f}" if len(values) == len(self.seeds) else "–")
        return " ".join(texts)
