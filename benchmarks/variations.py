"""Plans that differ from one another in a row's part: computed, kept as evidence, and found again among its records.

:mod:`robustness` and :mod:`ablation` are made of these.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evidence import lacking, public, put, replace, settled

import cutk
from cutk.plugins.registry import load_registry
from cutk.run.keys import kind_of
from cutk.run.records import Run
from cutk.run.setup import Setup
from cutk.run.store import Store


class Variations(NamedTuple):
    """One preset and what its variations have in common, and what each asks besides, by what its row says."""

    preset: str
    common: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    plugins: tuple[Path, ...] = ()
    alike: tuple[Mapping[str, Any], ...] = ()  # other code that gives the same, as evidence.toml has it

    def beginning(self, names: Sequence[str] | None) -> Variations:
        """Return those alone whose names begin with one of these; all, if none are given, and refuse to have none."""
        wanted = tuple(names or [""])
        rows = {name: row for name, row in self.rows.items() if name.startswith(wanted)}
        if not rows:
            raise SystemExit(f"No row begins with {' or '.join(wanted)}. Expected one of: {', '.join(self.rows)}.")
        return self._replace(rows=rows)

    def setups(self) -> dict[str, Setup]:
        """Return the plan of each row, settled."""
        registry = load_registry(inline=self.plugins)
        return {name: settled(self.preset, {**self.common, **row}, registry) for name, row in self.rows.items()}

    def compute(self, runs: Path, **suggested: Mapping[str, Any]) -> None:
        """Compute what isn't in a runs folder; ``suggested`` are options by component, such as where data lie."""
        for name, row in self.rows.items():
            asked = {**self.common, **row}
            report = cutk.bench(self.preset, runs=runs, plugins=self.plugins, suggests=suggested, **asked)
            for failure in report.failures:
                print(f"<!-- {name}, {failure['unlearner']}: {failure['reason']} -->", flush=True)
            print(f"<!-- {name}: done -->", flush=True)

    def belonging(self, runs: Iterable[Run]) -> Iterator[tuple[str, Run]]:
        """Yield the runs of each row, as they are published; an original and its gold belong to several rows."""
        runs = list(runs)
        for name, setup in self.setups().items():
            yield from ((name, public(run, setup)) for run in runs if not lacking(run, setup, self.alike))


def drop(studies: Iterable[Variations], folder: Path) -> None:
    """Take out of a folder of evidence what belongs to no row any more."""
    kept = Store(folder / "runs").runs()
    belonging = {run.key for study in studies for _, run in study.belonging(kept)}
    for run in kept:
        if run.key not in belonging:
            shutil.rmtree(folder / "runs" / kind_of(run) / run.key)


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Return a mean with the standard deviation: ``0.962 ±0.004``."""
    spread = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}" if values else "–"


def parser(text: str, runs: str) -> argparse.ArgumentParser:
    """Return a command line that says where runs are computed, or which evidence is shown, and where it is kept."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    where = made.add_mutually_exclusive_group()
    where.add_argument("--runs", type=Path, default=Path(runs), help="a runs folder, in which what lacks is computed")
    where.add_argument("--of", type=Path, help="a folder of evidence, whose records are shown")
    made.add_argument("--keep", type=Path, help="a folder of evidence, into which the records are put")
    return made


def conclude(
    arguments: argparse.Namespace,
    chosen: Sequence[Variations],
    every: Sequence[Variations],
    mark: str,
    tables: Callable[[Sequence[Run], Sequence[Variations]], str],
) -> None:
    """Print the tables of those that are chosen, and keep these and show all that is kept, if that is asked."""
    runs = Store(arguments.runs if arguments.of is None else arguments.of / "runs").runs()
    print(tables(runs, chosen))
    if arguments.keep is not None:
        for study in chosen:
            for _, run in study.belonging(runs):
                put(run, arguments.keep)
        drop(every, arguments.keep)
        replace(arguments.keep / "README.md", mark, tables(Store(arguments.keep / "runs").runs(), every))
