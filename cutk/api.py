"""The Python API: what the command line does, as functions.

>>> import cutk
>>> report = cutk.bench(dataset="fake", unlearners=["none"], alphas=[1.0], seeds=1, recipe={"steps": 5}, runs=None)
>>> [(record["role"], record["unlearner"]) for record in report.records]
[('original', None), ('gold', None), ('unlearned', 'none')]
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Never

import torch

from cutk.errors import UsageError, suggestion
from cutk.machine import cudnn_put_back
from cutk.plugins.registry import load_registry
from cutk.report.benchmark import Report, contents_of
from cutk.run.cells import Cell
from cutk.run.observer import Observer
from cutk.run.plan import Plan, layer, over_default, require_types
from cutk.run.records import Run
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk.run.study import Study

__all__ = ["Report", "bench"]

PathLike = str | os.PathLike[str]


class _Telling(Observer):
    """Tells a plain function how many cells are done."""

    name = "function"

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._done = self._cells = 0

    def started(self, cells: int) -> None:
        self._cells = cells

    def cell_started(self, cell: Cell) -> None:
        self._tell(self._done, self._cells, str(cell))

    def cell_finished(self, cell: Cell, run: Run, read: bool) -> None:
        self._done += 1
        self._tell(self._done, self._cells, str(cell))

    def cell_failed(self, cell: Cell, reason: str) -> None:
        self._done += 1
        self._tell(self._done, self._cells, f"{cell}: failed: {reason}")


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
    detector: str | None = None,
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
    threads: int | Literal["auto"] | None = None,
    isolate: bool | None = None,
    executor: str | None = None,
    observers: Sequence[str] | str | None = None,
    recipe: Mapping[str, Any] | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    suggests: Mapping[str, Mapping[str, Any]] | None = None,
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
        detector: who finds more of S_m before each unlearner begins; ``ssd+NAME`` names one for that unlearner alone.
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
        threads: of each worker; ``auto`` takes as many as pay off.
        isolate: whether each method works in a process that never had what only the evaluator knows.
        executor: where cells are computed: ``serial``, ``processes:4``.
        observers: who is told how it goes, besides ``progress``.
        recipe: the name of a recipe, or its options, with its ``name`` among them if it isn't the plan's.
        options: of components by name: ``{"ssd": {"dampening": 1}}``.
        suggests: likewise, of components that needn't be in the plan; ``options`` overrule them.
        runs: folder in which results are kept and from which finished ones are read; with None they go with the report.
        plugins: Python files whose components may be used without being installed.
        progress: called as ``progress(done, cells, description)``.
        unknown: nothing; a name that is none of these is refused.

    Raises:
        UsageError: if the plan can't be carried out as given. A cell that fails raises nothing: see ``failures``.
    """
    arguments = dict(locals())  # among which is every entry of a plan
    if unknown:
        name = next(iter(unknown))
        raise UsageError(f"cutk.bench() has no argument '{name}'.{suggestion(name, _ENTRIES)} See: help(cutk.bench)")
    given = {name: value for name, value in arguments.items() if value is not None and name in Plan.model_fields}
    for name in ("manipulations", "unlearners", "metrics", "summaries", "observers", "alphas"):
        if name in given:
            given[name] = _listed(given[name])
    if isinstance(recipe, str):
        given["recipe"] = {"name": recipe}
    files = [plugins] if isinstance(plugins, str | os.PathLike) else list(plugins)
    inline = [Path(file).expanduser().absolute() for file in files]
    registry = load_registry(inline=files)
    require_types(given)
    base = plan if plan is None or isinstance(plan, Mapping) else os.fspath(plan)
    content = layer(over_default(base, registry), given)
    if not content.get("unlearners"):
        raise UsageError("Which unlearner? Give unlearners=[NAME, …], or unlearners=['all'].")
    setup = resolve(Plan.parse(content), registry)
    # A method may change the current folder.
    root = Path(tempfile.mkdtemp(prefix="cutk-") if runs is None else runs).expanduser().absolute()
    threads_before = torch.get_num_threads()
    try:
        observer = Observer() if progress is None else _Telling(progress)
        with cudnn_put_back():
            study = Study(setup, Store(root), observer, inline=inline)
            results = study.run()
            return Report(results, contents_of(study, results), root, passing=runs is None)
    except BaseException:
        if runs is None:
            shutil.rmtree(root, ignore_errors=True)
        raise
    finally:
        torch.set_num_threads(threads_before)


_ENTRIES = [*Plan.model_fields, "runs", "plugins", "progress"]
