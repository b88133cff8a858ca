"""The Python API: what the command line does, as functions.

>>> import cutk
>>> report = cutk.bench(dataset="fake", unlearners=["none"], alphas=[1.0], seeds=1, recipe={"steps": 5}, runs=None)
>>> [(record["role"], record["unlearner"]) for record in report.records]
[('original', None), ('gold', None), ('unlearned', 'none')]
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never

from cutk.errors import CutkError, UsageError, suggestion
from cutk.plugins.registry import Registry, load_registry
from cutk.report.contents import Contents
from cutk.run.cells import Cell
from cutk.run.observer import Observer
from cutk.run.plan import Plan, Setup, layer, over_default, require_types, resolve
from cutk.run.store import Store
from cutk.run.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Report", "bench", "contents_of", "setup_of"]

PathLike = str | os.PathLike[str]
Json = dict[str, Any]


class Report:
    """What a benchmark found.

    Notebooks show it as tables and a figure.

    Args:
        results: what the study gave.
        contents: the same runs as tables and figures.
        runs: the folder that holds them.
        passing: whether that folder goes when the report does.
    """

    def __init__(self, results: Results, contents: Contents, runs: Path, *, passing: bool = False) -> None:
        self._document = results.document()
        self._contents = contents
        self._runs = runs
        self._removal = weakref.finalize(self, shutil.rmtree, runs, ignore_errors=True) if passing else None

    @property
    def plan(self) -> Json:
        """The plan as it was run, with every option settled."""
        return dict(self._document["plan"])

    @property
    def environment(self) -> Json:
        """Versions, device, precision and threads."""
        return dict(self._document["environment"])

    @property
    def records(self) -> list[Json]:
        """One for each model, as ``cutk bench --json`` prints it.

        Its ``role`` is ``original``, ``gold`` or ``unlearned``; the first two have neither an unlearner nor an α.
        """
        return list(self._document["records"])

    @property
    def failures(self) -> list[Json]:
        """One for each cell, grid point, metric or summary that gave no number, with its ``reason``."""
        return list(self._document["failures"])

    @property
    def summaries(self) -> list[Json]:
        """Summaries over α, such as α*, for each manipulation and unlearner."""
        return list(self._document["summaries"])

    def document(self) -> Json:
        """Return everything as one document: what ``cutk bench --json`` prints."""
        return self._document

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each record: its labels, its metrics by name, and its options as JSON.

        Raises:
            CutkError: if pandas isn't installed; the message says where the results are.
        """
        try:
            import pandas as pd
        except ImportError:
            raise CutkError(
                "A data frame needs pandas: pip install 'cutk[pandas]'. Nothing is lost: the same "
                f"cutk.bench(…, runs='{self.keep()}') reads what was computed."
            ) from None
        rows = []
        for record in self.records:
            labels = {name: value for name, value in record.items() if name not in ("metrics", "breakdowns")}
            rows.append({**labels, "options": json.dumps(record["options"]), **record["metrics"]})
        return pd.DataFrame(rows)

    def keep(self) -> Path:
        """Return the folder that holds the runs, which stays from now on even if it was to go with this report."""
        if self._removal is not None:
            self._removal.detach()
        return self._runs

    def html(self) -> str:
        """Return the page that ``cutk report --html`` writes."""
        return self._contents.html()

    def _repr_html_(self) -> str:
        return self._contents.excerpt()

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


def contents_of(study: Study, results: Results) -> Contents:
    """Return what a report shows of a study: its metrics, in the order of its plan, and its summaries."""
    setup = study.setup
    names: dict[str, str] = {}
    for composed in setup.manipulations:
        names |= study.names(composed.name)
    return Contents(
        results.runs,
        {summary.name: summary.make for summary in setup.summaries},
        metrics=names,
        oracle=setup.plan.oracle,
        failures=[failure for failure in results.failures if failure.what == "cell"],
    )


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
    require_types(entries)
    content = layer(over_default(given, registry), entries)
    if not content.get("unlearners"):
        raise UsageError("Which unlearner? Give unlearners=[NAME, …], or unlearners=['all'].")
    return resolve(Plan.parse(content), registry)


def _listed(value: Any) -> Any:
    """Let one stand for a list of one; what is neither is refused with the plan's other entries."""
    if isinstance(value, str | int | float):
        return [value]
    return list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else value


def bench(
    plan: Mapping[str, Any] | PathLike | None = None,
    *,
    dataset: str | None = None,
    manipulations: Sequence[str] | str | None = None,
    identification: str | None = None,
    model: str | None = None,
    unlearners: Sequence[str] | str | None = None,
    select: str | None = None,
    metrics: Sequence[str] | str | None = None,
    summaries: Sequence[str] | str | None = None,
    alphas: Sequence[float] | float | None = None,
    seeds: int | Sequence[int] | None = None,
    search: str | None = None,
    evaluate: Literal["selected", "all"] | None = None,
    oracle: bool | None = None,
    validation_fraction: float | None = None,
    device: str | None = None,
    precision: str | None = None,
    recipe: Mapping[str, Any] | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    runs: PathLike | None = "runs",
    plugins: Iterable[PathLike] | PathLike = (),
    progress: Callable[[int, int, str], None] | None = None,
    **unknown: Never,
) -> Report:
    """Measure how well unlearners undo a manipulation.

    What isn't given comes from ``plan``, and what that doesn't say from the preset ``default``. Where several names or
    numbers are expected, one may stand alone.

    Args:
        plan: a plan as in a TOML file, or the name of a preset or of such a file.
        dataset: the data's name, as ``cutk plugins list`` shows it.
        manipulations: what goes wrong with them; parts joined by + go wrong together.
        identification: how samples are found.
        model: the network's name; the one that suits the dataset if no plan says otherwise.
        unlearners: the methods, or ``all``.
        select: the rule that chooses among the points of a grid.
        metrics: what is measured, in place of what the plan measures.
        summaries: the same over all α.
        alphas: identified fractions, in (0, 1].
        seeds: how many, counted from 0, or which.
        search: ``grid``, ``default``, or ``random:N``.
        evaluate: measure the ``selected`` point of a grid alone, or ``all`` of them.
        oracle: whether to record the point that is best on the test set, too.
        validation_fraction: of the training set, in [0, 1), where the dataset brings no validation samples.
        device: such as ``cpu`` or ``cuda:1``; ``auto`` asks the machine.
        precision: ``fp32``, ``bf16`` or ``auto``.
        recipe: the name of a recipe, or its options, with its ``name`` among them if it isn't the plan's.
        options: of components by name: ``{"ssd": {"dampening": 1}}``.
        runs: folder in which results are kept and from which finished ones are read; with None they go with the report.
        plugins: Python files whose components may be used without being installed.
        progress: called as ``progress(done, cells, description)``.
        unknown: nothing; a name that is none of these is refused.

    Raises:
        UsageError: if the plan can't be carried out as given. A cell that fails raises nothing: see ``failures``.
    """
    if unknown:
        name = next(iter(unknown))
        raise UsageError(f"cutk.bench() has no argument '{name}'.{suggestion(name, _ENTRIES)} See: help(cutk.bench)")
    given = {
        "dataset": dataset,
        "manipulations": _listed(manipulations),
        "identification": identification,
        "model": model,
        "unlearners": _listed(unlearners),
        "select": select,
        "metrics": _listed(metrics),
        "summaries": _listed(summaries),
        "alphas": _listed(alphas),
        "seeds": seeds,
        "search": search,
        "evaluate": evaluate,
        "oracle": oracle,
        "validation_fraction": validation_fraction,
        "device": device,
        "precision": precision,
        "recipe": {"name": recipe} if isinstance(recipe, str) else recipe,
        "options": options,
    }
    files = [plugins] if isinstance(plugins, str | os.PathLike) else list(plugins)
    inline = [Path(file).expanduser().absolute() for file in files]
    registry = load_registry(inline=files)
    setup = setup_of(plan, registry, **{name: value for name, value in given.items() if value is not None})
    # A method may change the current folder.
    root = Path(tempfile.mkdtemp(prefix="cutk-") if runs is None else runs).expanduser().absolute()
    try:
        observer = Observer() if progress is None else _Telling(progress)
        study = Study(setup, Store(root), observer, inline=inline)
        results = study.run()
        return Report(results, contents_of(study, results), root, passing=runs is None)
    except BaseException:
        if runs is None:
            shutil.rmtree(root, ignore_errors=True)
        raise


_ENTRIES = [*Plan.model_fields, "runs", "plugins", "progress"]
