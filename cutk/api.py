"""The Python API: what the command line does, as functions.

>>> import cutk
>>> report = cutk.bench(dataset="fake", unlearners=["none"], alphas=[1.0], seeds=1, recipe={"steps": 5}, runs=None)
>>> [record["unlearner"] for record in report.records]
['none', 'gold', 'none']
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutk.errors import CutkError, UsageError
from cutk.plugins.registry import Registry, load_registry
from cutk.report.experiments import Experiment, experiments_of
from cutk.report.runs import read_runs
from cutk.report.sheets import Sheet, sheets_of, summarised
from cutk.run.benchmark import Benchmark
from cutk.run.cells import Cell, Observer
from cutk.run.plan import Plan, Setup, layer, over_default, resolve
from cutk.run.records import Record, Results
from cutk.run.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from cutk.report.panels import Drawing

__all__ = ["Report", "bench", "setup_of"]

PathLike = str | os.PathLike[str]


class Report:
    """What a benchmark found.

    Notebooks show it as tables and a figure.

    Args:
        results: the records.
        registry: the plugins that took part.
        experiments: the same runs, put in order for tables and figures.
    """

    def __init__(self, results: Results, registry: Registry, experiments: list[Experiment]) -> None:
        self._results = results
        self._registry = registry
        self._experiments = experiments

    @property
    def plan(self) -> Record:
        """The plan as it was run, with every option settled."""
        return self._results.plan

    @property
    def environment(self) -> Record:
        """Versions, device, precision and threads."""
        return self._results.environment

    @property
    def records(self) -> list[Record]:
        """One for each model; the original and gold stand as ``none`` and ``gold`` with α None."""
        return self._results.records

    @property
    def failures(self) -> list[Record]:
        """One for each cell, grid point or metric that gave no number, with its ``reason``."""
        return self._results.failures

    @property
    def summaries(self) -> list[Record]:
        """Summaries over α, such as α*, for each manipulation and unlearner."""
        return self._results.summaries

    def document(self) -> Record:
        """Return everything as one document: what ``cutk bench --json`` prints."""
        return self._results.document()

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each record: its labels, its metrics by name, and its options as JSON.

        Raises:
            CutkError: if pandas isn't installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise CutkError("A data frame needs pandas: pip install 'cutk[pandas]'") from None
        rows = []
        for record in self.records:
            labels = {name: value for name, value in record.items() if name not in ("metrics", "breakdowns")}
            rows.append({**labels, "options": json.dumps(record["options"]), **record["metrics"]})
        return pd.DataFrame(rows)

    def html(self) -> str:
        """Return the page that ``cutk report --html`` writes."""
        from cutk import __version__
        from cutk.report.page import page

        return page(self._experiments, self._sheets, self._drawings, __version__)

    @cached_property
    def _sheets(self) -> list[list[Sheet]]:
        return [
            sheets_of(experiment, summarised(experiment, self._registry, lambda _: None))
            for experiment in self._experiments
        ]

    @cached_property
    def _drawings(self) -> list[list[Drawing]]:
        from cutk.report.figures import figures_of
        from cutk.report.style import marks_for

        marks = marks_for(method for experiment in self._experiments for method in experiment.methods)
        return [list(figures_of(experiment, marks)) for experiment in self._experiments]

    def _repr_html_(self) -> str:
        from cutk.report.page import excerpt

        return excerpt(self._experiments, self._sheets, self._drawings)

    def __repr__(self) -> str:
        models, failed = len(self.records), len(self.failures)
        return f"<cutk.Report: {models} records" + (f", {failed} failures>" if failed else ">")


class _Telling(Observer):
    """Tells a plain function how many cells are done."""

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        self._tell = tell
        self._done = self._cells = 0

    def started(self, cells: int) -> None:
        self._cells = cells

    def cell_started(self, cell: Cell) -> None:
        self._tell(self._done, self._cells, str(cell))

    def cell_finished(self, cell: Cell, read: bool) -> None:
        self._done += 1
        self._tell(self._done, self._cells, str(cell))

    def cell_failed(self, cell: Cell, reason: str) -> None:
        self._done += 1
        self._tell(self._done, self._cells, f"{cell}: failed: {reason}")


def setup_of(plan: Mapping[str, Any] | PathLike | None, registry: Registry, **entries: Any) -> Setup:
    """Return a plan with every name looked up and every option validated.

    Args:
        plan: a plan, or the name of a preset or of a TOML file; what it doesn't say comes from the preset ``default``.
        registry: where to look names up.
        entries: go over the plan's.

    Raises:
        UsageError: for the first entry, name or option that doesn't fit.
    """
    given = plan if plan is None or isinstance(plan, Mapping) else os.fspath(plan)
    content = layer(over_default(given, registry), entries)
    if not content.get("unlearners"):
        raise UsageError("Which unlearner? Give unlearners=[NAME, …], or unlearners=['all'].")
    return resolve(Plan.parse(content), registry)


def bench(
    plan: Mapping[str, Any] | PathLike | None = None,
    *,
    runs: PathLike | None = "runs",
    plugins: Iterable[PathLike] = (),
    progress: Callable[[int, int, str], None] | None = None,
    **entries: Any,
) -> Report:
    """Measure how well unlearners undo a manipulation.

    Args:
        plan: a plan as in a TOML file, or the name of a preset or of such a file; the preset ``default`` if not given.
        runs: folder in which results are kept and from which finished ones are read; None keeps nothing.
        plugins: Python files whose components may be used without being installed.
        progress: called as ``progress(done, cells, description)``.
        entries: entries of the plan, over what ``plan`` says: ``unlearners=["ssd"]``, ``alphas=[0.1, 1]``, ``seeds=3``,
            ``options={"ssd": {"dampening": 1}}`` and so on.

    Raises:
        UsageError: if the plan can't be carried out as given. A cell that fails raises nothing: see ``failures``.
    """
    registry = load_registry(inline=plugins)
    setup = setup_of(plan, registry, **entries)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()) if runs is None else runs)
        observer = Observer() if progress is None else _Telling(progress)
        results = Benchmark(setup, Store(root), observer).run()
        keys = {record["key"] for record in results.records}
        stored = [run for run in read_runs(root, lambda _: None) if run.key in keys] if keys else []
        return Report(results, registry, experiments_of(stored))
