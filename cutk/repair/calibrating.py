"""Methods on data like the user's: what is registered is planted there, and the bench runs on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cutk.chance import isolated_rng, stream
from cutk.components import Manipulation, Sizes
from cutk.data.samples import Splits
from cutk.errors import Caught, UsageError, one_line
from cutk.options import parse_options
from cutk.plugins.registry import Entry, Registry
from cutk.repair.calibration import Calibration, Trial
from cutk.repair.foresight import per_pass_of
from cutk.repair.own import architecture_of, data_entry, network_entry, splits_of
from cutk.repair.problem import Methods, Problem, Tell
from cutk.repair.verdict import proportion
from cutk.report.estimate import FORWARD, work_of
from cutk.report.naming import duration
from cutk.run.cells import Cell
from cutk.run.chosen import Chosen
from cutk.run.observer import Observer
from cutk.run.plan import Plan, read_preset
from cutk.run.records import Identity, Record
from cutk.run.search import BEYOND
from cutk.run.setup import Setup, resolve
from cutk.run.store import Store
from cutk.run.study import Results, Study

__all__ = ["ALPHA", "Calibrating", "calibrated"]

# What part of the bad samples may be on a list, where nobody says.
ALPHA = 0.5


class _Telling(Observer):
    """Passes on how far each cell is, and what a reader has to know."""

    name = "telling"

    def __init__(self, tell: Tell, observer: Observer) -> None:
        super().__init__()
        self._tell, self._observer = tell, observer

    def progress(self, cell: Cell, done: int, total: int) -> None:
        self._tell(f"planted {cell}", done, total)

    def warning(self, text: str) -> None:
        self._observer.warning(text)

    def error(self, error: BaseException) -> None:
        self._observer.error(error)


def _amount(entry: Entry, count: int, of: int) -> dict[str, Any]:
    """Return the options that have a manipulation spoil so many samples, by what it has for that.

    Its ``count`` if there is one, which may have to be even; else its ``fraction`` or ``rate``.
    """
    fields: Any = entry.component.Options.model_fields
    if "count" in fields:
        for candidate in (count, count + 1):
            with Caught() as caught:
                parse_options(entry.component.Options, {**entry.given, "count": candidate}, entry.name)
            if caught.error is None:
                return {"count": candidate}
    part = next((name for name in ("fraction", "rate") if name in fields), None)
    return {} if part is None else {part: min(1.0, count / of)}


@dataclass(frozen=True)
class _Limited(Chosen):
    """A rule that takes what loses at most so much validation accuracy, which decides a result as its options do."""

    max_accuracy_loss: float

    @cached_property
    def identity(self) -> Identity:
        found = super().identity
        limit = {"max_accuracy_loss": self.max_accuracy_loss}
        return found.model_copy(update={"options": [{**options, **limit} for options in found.options]})


def _needs_a_file(entry: Entry) -> bool:
    """Say whether a manipulation is read from a file, which nobody could have planted without being given it."""
    fields: Any = entry.component.Options.model_fields
    return any(each.annotation in (Path, Path | None) and name not in entry.given for name, each in fields.items())


@dataclass
class Calibrating:
    """A benchmark that is to be run on a user's samples, network and recipe.

    ``fitting`` are its parts, one for each manipulation that fits; ``unfit`` says why others don't. Those that are read
    from a file of the user's own are passed over.

    Raises:
        UsageError: if there are too few samples.
    """

    problem: Problem
    methods: Methods
    registry: Registry
    alpha: float = ALPHA
    fitting: dict[str, Setup] = field(init=False, default_factory=dict)
    unfit: dict[str, str] = field(init=False, default_factory=dict)
    splits: Splits = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise UsageError(f"calibrate: expected a part above 0 and at most 1, such as 0.5, got {self.alpha:g}.")
        task, seed = self.problem.task, self.methods.seed
        try:
            self.splits = splits_of(task, self.problem.classes, self.problem.stands_in, seed)
        except UsageError as error:
            raise UsageError(f"calibrate: too few samples: {one_line(error).rstrip('.')}. Leave it out.") from None
        self.known = len(task.identified)
        # More than half of the samples can't be bad, or the good ones would be the manipulation.
        self.count = max(2, min(round(self.known / self.alpha), len(self.splits.train) // 2))
        self.registry = replace(self.registry, entries=[*self.registry.entries, data_entry(self.splits), self._network])
        for entry in self.registry.of_kind("manipulation"):
            if _needs_a_file(entry):
                continue
            with Caught() as caught:
                self._plan(entry)
            if caught.error is not None:
                wrong = isinstance(caught.error, UsageError)
                self.unfit[entry.name] = one_line(caught.error) if wrong else caught.reason

    @property
    def _network(self) -> Entry:
        made = self.problem.task.original
        with isolated_rng(0), Caught():  # a network that can't be made anew is named where it is needed
            made = self.problem.build()
        return network_entry(self.problem.build, architecture_of(made))

    def _plan(self, entry: Entry) -> None:
        """Keep what is to be run of a manipulation, if it fits; raise what says why it doesn't."""
        preset, methods = read_preset("default", self.registry), self.methods
        metrics = [self.registry.get("metric", name) for name in preset["metrics"]]
        plan = Plan.parse(
            {
                **{name: preset[name] for name in ("identification", "executor")},
                "dataset": "your-data",
                "model": "your-network",
                "manipulations": [entry.name],
                "unlearners": [each.name for each in methods.unlearners],
                "select": methods.selector.name,
                "recipe": {"name": methods.recipe.name},
                "metrics": [one.name for one in metrics if getattr(one.component, "objective", "")],
                "alphas": [min(1.0, self.known / self.count)],
                "seeds": [methods.seed],
                "device": str(methods.device),
                "precision": methods.precision,
                "threads": torch.get_num_threads(),
                "options": {entry.name: _amount(entry, self.count, len(self.splits.train))},
            }
        )
        setup = resolve(plan, self.registry)
        recipe = setup.recipe
        if type(self.problem.recipe) is not methods.recipe.entry.component:  # the user's own, in Python
            mine = replace(recipe.entry, name=self.problem.recipe.name, component=type(self.problem.recipe))
            recipe = replace(recipe, entry=mine, points=(self.problem.recipe.options,))
        else:
            recipe = methods.recipe
        loss = methods.limits.max_accuracy_loss
        selector = _Limited(methods.selector.entry, methods.selector.points, loss)
        setup = replace(setup, unlearners=methods.unlearners, selector=selector, recipe=recipe, max_accuracy_loss=loss)
        made: Manipulation = setup.manipulations[0].parts[0].make()
        if not made.trains:  # for which it would take as long as a training
            made.corrupt(self.splits.train, stream(methods.seed, "manipulation"))
        self.fitting[entry.name] = setup

    # What it costs.

    def passes(self) -> tuple[float, int]:
        """Return what a manipulation costs, in passes over the training samples, and how many methods don't tell.

        Two trainings, each method's grid, and what is measured.
        """
        recipe = self.problem.recipe.options
        sizes = Sizes(len(self.splits.train), self.known, recipe.batch_size, recipe.steps)
        works = [work_of(None, sizes), work_of(None, sizes)]
        works += [work_of(unlearner, sizes) for unlearner in self.methods.unlearners]
        points = sum(len(unlearner.points) for unlearner in self.methods.unlearners)
        asked = points * len(self.splits.validation or ()) + len(works) * 2 * len(self.splits.test)
        return sum(filter(None, works)) + FORWARD * asked / sizes.train, works.count(None)

    def seconds(self, per_pass: float) -> float:
        """Return how long a manipulation takes, given the seconds of a pass over all of the user's samples."""
        return self.passes()[0] * per_pass * len(self.splits.train) / len(self.problem.task.train)

    def forecast(self, per_pass: float) -> str:
        """Say what is planted and how long it takes, given the seconds of a pass over all of the user's samples."""
        each, untold = self.seconds(per_pass), self.passes()[1]
        names = ", ".join(self.fitting)
        more = "more than" if untold else "about"
        trainings = 2 * len(self.fitting)
        return (
            f"Calibration plants {names}: {trainings} trainings and {len(self.fitting) * len(self.methods.unlearners)} "
            f"unlearnings, {more} {duration(each * len(self.fitting))} here, {duration(each)} a manipulation."
        )

    # How it is run.

    def run(self, runs: Path, per_pass: float, seconds: float, observer: Observer, tell: Tell) -> Calibration:
        """Run each part for which there is time, and return what came of them.

        Args:
            runs: the folder that keeps runs, and from which finished ones are read.
            per_pass: the seconds of a pass over all of the user's samples.
            seconds: how long it may take; infinite if it doesn't matter.
            observer: told warnings and errors.
            tell: told how far it is.
        """
        began, store = time.monotonic(), Store(runs)
        each = self.seconds(per_pass)
        trials: list[Trial] = []
        failed: dict[str, str] = {}
        left_out: list[str] = []
        unfit = dict(self.unfit)
        for position, (name, setup) in enumerate(self.fitting.items()):
            tell("calibration", position, len(self.fitting))
            with Caught() as caught:
                study = Study(setup, store, _Telling(tell, observer))
                missing = len(study.cells) - len(study.stored())
                if each * missing / len(study.cells) > seconds - (time.monotonic() - began):
                    left_out.append(name)
                    continue
                results = study.run()
                trials += _trials(study, results, self.known)
                others = [failure for failure in results.failures if not failure.reason.startswith(BEYOND)]
                failed |= {_where(failure.model_dump()): failure.reason for failure in others}
            if isinstance(caught.error, UsageError):
                unfit[name] = one_line(caught.error)
            elif caught.error is not None:
                failed[name] = caught.reason
        tell("calibration", len(self.fitting), len(self.fitting))
        return Calibration(
            train=len(self.splits.train),
            test=len(self.splits.test),
            manipulated=self.count,
            alpha=min(1.0, self.known / self.count),
            seed=self.methods.seed,
            trials=trials,
            unfit=unfit,
            failed=failed,
            left_out=left_out,
            runs=str(runs),
        )


def calibrated(
    problem: Problem,
    methods: Methods,
    registry: Registry,
    alpha: float,
    runs: Path | None,
    seconds: float,
    observer: Observer,
    tell: Tell,
) -> Calibration:
    """Run a calibration for as many ``seconds``; without a folder its runs go once it is over."""
    plan = Calibrating(problem, methods, registry, alpha)
    with TemporaryDirectory(prefix="cutk-") if runs is None else nullcontext(str(runs)) as folder:
        found = plan.run(Path(folder), per_pass_of(problem), seconds, observer, tell)
    return found if runs is not None else found.model_copy(update={"runs": ""})


def _where(failure: dict[str, Any]) -> str:
    parts = (failure.get("manipulation"), failure.get("unlearner") or failure.get("role"), failure.get("metric"))
    return ", ".join(str(part) for part in parts if part)


def _trials(study: Study, results: Results, identified: int) -> Iterator[Trial]:
    """Yield what is known of each method on a study's one manipulation and seed, of ``identified`` samples told."""
    (composed,), (seed,) = study.setup.manipulations, study.setup.plan.seed_list
    aims = {m.entry.component.objective: m.name for m in study.setup.metrics}  # type: ignore[attr-defined]
    about = len(study.worker.scenario(composed.name, seed).truth.affected)
    trained = {record.role: record for record in results.records if record.unlearner is None}
    # Where the limits leave nothing, the original stays.
    beyond = {each.unlearner for each in results.failures if each.reason.startswith(BEYOND)}
    tried = {record.unlearner: record for record in results.records if record.unlearner is not None}
    found = {each.name: tried.get(each.name, trained.get("original")) for each in study.setup.unlearners}

    def aimed(record: Record) -> Any:
        value = record.metrics.get(aims["unlearning"])
        return None if value is None else proportion(round(value * about), about)

    for name, record in found.items():
        values = [aimed(one) for one in (trained.get("original"), record, trained.get("gold")) if one]
        if record is None or (name not in tried and name not in beyond) or len(values) < 3 or None in values:
            continue
        original, corrected, gold = values
        yield Trial(
            manipulation=composed.name,
            unlearner=name,
            manipulated=record.manipulated,
            identified=identified if record.identified is None else record.identified,
            original=original,
            corrected=corrected,
            gold=gold,
            retain=record.metrics.get(aims["utility"]),
            retain_before=trained["original"].metrics.get(aims["utility"]),
            kept=name in beyond,
            seconds=record.seconds if name in tried else None,
        )
