"""Runs put in order: experiments, their settings, the methods of each, and what each was measured to be."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from cutk.errors import UsageError, suggestion
from cutk.report.naming import compact, natural, slugs, told_apart, traits_of
from cutk.report.runs import Measured, StoredRun, Training
from cutk.run.records import GOLD, ORIGINAL, Reading, Record, records_of
from cutk.run.unlearning import Attempt

__all__ = ["SHOWN", "Experiment", "Point", "Setting", "Stat", "anchor", "experiments_of", "stat"]

# What a figure or a table calls the reference rows.
SHOWN = {ORIGINAL: "original", GOLD: "gold"}

_MIDDLE = 0.5


class Stat(NamedTuple):
    """A mean, the sample standard deviation (None for a single value), and how many values they are over."""

    mean: float
    sd: float | None
    n: int


def stat(values: Sequence[float]) -> Stat | None:
    """Return the statistics of ``values``, None if there are none.

    >>> stat([1.0, 3.0])
    Stat(mean=2.0, sd=1.4142135623730951, n=2)
    """
    if not values:
        return None
    return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Point:
    """One model: a training, or a point of an unlearner's grid.

    Attributes:
        record: the same as ``cutk bench`` makes of it, with the method's name in this report as ``unlearner``.
        attempt: how it came about.
        anchor: its address on the page.
    """

    record: Record
    attempt: Attempt
    anchor: str

    @property
    def alpha(self) -> float | None:
        """The identified fraction, None for the references."""
        alpha: float | None = self.record["alpha"]
        return alpha

    @property
    def method(self) -> str:
        """The unlearner, told apart from others of its name."""
        return str(self.record["unlearner"])

    @property
    def seed(self) -> int:
        """Which repetition it belongs to."""
        return int(self.record["seed"])

    @property
    def selected(self) -> bool:
        """Say whether it is what the test-free rule took."""
        return bool(self.record["selected"])

    def value(self, metric: str) -> float | None:
        """Return a metric's value, None if it has none."""
        number: float | None = self.record["metrics"].get(metric)
        return number


@dataclass
class Setting:
    r"""One manipulation with its options, and every model that was measured under it.

    Attributes:
        manipulation: its name.
        name: the name, told apart from others in the experiment by its options where \|S_m\| doesn't do it.
        options: of the manipulation.
        manipulated: the sizes of S_m, which may differ from seed to seed.
        runs: the method's name and the run.
        points: every model.
        failures: what gave no number.
    """

    manipulation: str
    name: str
    options: dict[str, Any]
    manipulated: list[int]
    runs: list[tuple[str, StoredRun]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)

    @property
    def size(self) -> str:
        r"""\|S_m\|, or its range."""
        low, high = min(self.manipulated), max(self.manipulated)
        return str(low) if low == high else f"{low}–{high}"

    @property
    def title(self) -> str:
        """The name with the size of S_m."""
        return f"{self.name}, {self.size} manipulated"

    @property
    def heading(self) -> str:
        """The same in two lines."""
        return f"{self.name}\n{self.size} manipulated"

    @property
    def middle(self) -> float:
        """The α nearest the one at which the paper sets unlearning against utility."""
        return min(self.alphas, key=lambda alpha: abs(alpha - _MIDDLE))

    @property
    def methods(self) -> list[str]:
        """The unlearners, by name."""
        return sorted({name for name, run in self.runs if run.unlearner is not None}, key=natural)

    @property
    def alphas(self) -> list[float]:
        """Every identified fraction that there is, ascending."""
        return sorted({point.alpha for point in self.points if point.alpha is not None})

    @property
    def seeds(self) -> list[int]:
        """Every seed that there is, ascending."""
        return sorted({run.labels.seed for _, run in self.runs})

    @cached_property
    def _selected(self) -> dict[tuple[str, float | None], list[Point]]:
        found: dict[tuple[str, float | None], list[Point]] = {}
        for point in self.points:
            if point.selected:
                found.setdefault((point.method, point.alpha), []).append(point)
        return found

    def selected(self, method: str, alpha: float | None = None) -> list[Point]:
        """Return one point for each seed: what the method's rule took at ``alpha``, or a reference."""
        return self._selected.get((method, alpha), [])

    def measured(self, metric: str, method: str, alpha: float | None = None) -> Stat | None:
        """Return a metric over the seeds."""
        values = (point.value(metric) for point in self.selected(method, alpha))
        return stat([value for value in values if value is not None])

    def broken_down(self, breakdown: str, method: str, alpha: float | None = None) -> dict[str, Stat]:
        """Return each value of a breakdown over the seeds, by its label."""
        by_label: dict[str, list[float]] = {}
        for point in self.selected(method, alpha):
            for label, value in point.record["breakdowns"].get(breakdown, {}).items():
                by_label.setdefault(label, []).append(value)
        return {label: found for label, values in by_label.items() if (found := stat(values)) is not None}

    def identified(self, alpha: float) -> float:
        r"""Return \|S_f\|, averaged over seeds."""
        return statistics.fmean(p.record["identified"] for p in self.points if p.alpha == alpha)


@dataclass
class Experiment:
    """Everything that shares data, model, recipe, precision and device.

    Attributes:
        name: dataset and model, told apart from other experiments by what differs.
        slug: the same for files and addresses.
        dataset: its name.
        model: its name.
        training: what decides its trainings; the manipulation is the settings' own.
        settings: by manipulation and size of S_m.
        metrics: every metric with values, the two objectives first.
        breakdowns: the same for metrics that are several numbers.
        environments: each machine and set of versions that took part.
    """

    name: str
    slug: str
    dataset: str
    model: str
    training: Training
    settings: list[Setting]
    metrics: dict[str, Measured]
    breakdowns: dict[str, Measured]
    environments: list[dict[str, Any]]

    @property
    def methods(self) -> list[str]:
        """The unlearners of all settings, by name."""
        return sorted({method for setting in self.settings for method in setting.methods}, key=natural)

    def objectives(self, aim: str) -> list[str]:
        """Return the metrics that measure one of the two aims: ``unlearning`` or ``utility``."""
        return [name for name, metric in self.metrics.items() if metric.objective == aim]


def experiments_of(
    runs: Sequence[StoredRun], datasets: Collection[str] = (), manipulations: Collection[str] = ()
) -> list[Experiment]:
    """Put runs in order.

    Args:
        runs: all that were read.
        datasets: the ones to report, all if empty.
        manipulations: likewise.

    Raises:
        UsageError: if no run is of such a dataset or manipulation.
    """
    runs = _only(runs, "dataset", datasets, lambda run: run.labels.dataset)
    runs = _only(runs, "manipulation", manipulations, lambda run: run.labels.manipulation)
    groups = _grouped(runs, lambda run: _canonical(run.training.model_dump(exclude={"manipulation"})))
    names = {key: f"{group[0].labels.dataset}, {group[0].labels.model}" for key, group in groups.items()}
    traits = {key: _training_traits(group[0].training) for key, group in groups.items()}
    told = told_apart(names, traits, last=("provider", "source", "data"))
    addresses = slugs(told.values())
    experiments = [_experiment(told[key], addresses[told[key]], group) for key, group in groups.items()]
    return sorted(experiments, key=lambda experiment: natural(experiment.name))


def _only(
    runs: Sequence[StoredRun], what: str, wanted: Collection[str], name_of: Callable[[StoredRun], str]
) -> Sequence[StoredRun]:
    there = sorted({name_of(run) for run in runs})
    for name in wanted:
        if name not in there:
            raise UsageError(
                f"No run is of the {what} '{name}'.{suggestion(name, there)} The runs are of: {', '.join(there)}."
            )
    return [run for run in runs if name_of(run) in wanted] if wanted else runs


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _grouped(runs: Iterable[StoredRun], key_of: Callable[[StoredRun], str]) -> dict[str, list[StoredRun]]:
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(key_of(run), []).append(run)
    return groups


def _training_traits(training: Training) -> dict[str, str]:
    model = {name: text for name, text in traits_of(training.model).items() if name != "points"}
    return {
        **model,
        **{name: compact(value) for name, value in training.recipe.items()},
        "precision": training.precision,
        "device": training.device,
        "validation_fraction": compact(training.validation_fraction),
        "data": training.data[:8],
    }


def _experiment(name: str, address: str, runs: list[StoredRun]) -> Experiment:
    metrics = _metrics(runs)
    groups = _grouped(runs, lambda run: _canonical(run.training.manipulation.model_dump()))
    sizes = {key: sorted({run.labels.manipulated for run in group}) for key, group in groups.items()}
    # The size tells settings apart wherever they are shown, so that only those of one size need more than that.
    ids = {key: f"{group[0].labels.manipulation}\n{sizes[key]}" for key, group in groups.items()}
    traits = {key: traits_of(group[0].training.manipulation) for key, group in groups.items()}
    told = {key: text.replace(f"\n{sizes[key]}", "") for key, text in told_apart(ids, traits, ("provider",)).items()}
    settings = [_setting(told[key], group, metrics) for key, group in groups.items()]
    settings.sort(key=lambda s: (natural(s.manipulation), s.manipulated, natural(s.name)))
    _name_methods(settings)

    def having(part: str) -> dict[str, Measured]:
        there = {name for s in settings for p in s.points for name in p.record[part]}
        found = {metric.name: metric for metric in metrics.values() if metric.name in there}
        return dict(sorted(found.items(), key=lambda item: _rank(item[1])))

    environments = [json.loads(text) for text in dict.fromkeys(_canonical(run.environment) for run in runs)]
    first = runs[0]
    return Experiment(
        name,
        address,
        first.labels.dataset,
        first.labels.model,
        first.training,
        settings,
        having("metrics"),
        having("breakdowns"),
        environments,
    )


def _rank(metric: Measured) -> tuple[int, bool, tuple[Any, ...]]:
    aims = ("unlearning", "utility", "")
    return (
        aims.index(metric.objective) if metric.objective in aims else 2,
        not metric.is_fraction,
        natural(metric.name),
    )


def _metrics(runs: Iterable[StoredRun]) -> dict[str, Measured]:
    """Return every metric by its identity, named apart from others of its name (another version, other options)."""
    found: dict[str, Measured] = {}
    for run in runs:
        found |= run.measured
    names = told_apart(
        {identity: metric.name for identity, metric in found.items()},
        {identity: {"identity": identity[:6]} for identity in found},
    )
    return {identity: metric.model_copy(update={"name": names[identity]}) for identity, metric in found.items()}


def _setting(name: str, runs: list[StoredRun], metrics: dict[str, Measured]) -> Setting:
    reading = Reading({identity: metric.model_dump() for identity, metric in metrics.items()}, every=True)
    sizes = sorted({run.labels.manipulated for run in runs})
    options = runs[0].training.manipulation.options[0] if runs[0].training.manipulation.options else {}
    setting = Setting(runs[0].labels.manipulation, name, options, sizes)
    for run in runs:
        records, failures = records_of(run.model_dump(), reading)
        setting.runs.append((run.labels.unlearner, run))
        setting.failures += failures
        positions = [position for position, attempt in enumerate(run.attempts) if not attempt.error]
        setting.points += [
            Point(record, run.attempts[position], anchor(run, position))
            for position, record in zip(positions, records, strict=True)
        ]
    return setting


def anchor(run: StoredRun, position: int) -> str:
    """Return the address of one model on the page."""
    return f"record-{run.key[:16]}-{position}"


def _name_methods(settings: Sequence[Setting]) -> None:
    """Give every unlearner of an experiment a name of its own, the same in all settings."""
    chosen = {
        _canonical(run.unlearner.model_dump()): (run.labels.unlearner, traits_of(run.unlearner))
        for setting in settings
        for _, run in setting.runs
        if run.unlearner is not None
    }
    names = told_apart(
        {key: name for key, (name, _) in chosen.items()},
        {key: traits for key, (_, traits) in chosen.items()},
        last=("points", "provider", "source"),
    )

    def name_of(run: StoredRun) -> str:
        return (
            names[_canonical(run.unlearner.model_dump())]
            if run.unlearner
            else SHOWN.get(run.labels.unlearner, run.labels.unlearner)
        )

    for setting in settings:
        by_key = {run.key: name_of(run) for _, run in setting.runs}
        setting.runs = [(by_key[run.key], run) for _, run in setting.runs]
        for point in setting.points:
            point.record["unlearner"] = by_key[point.record["key"]]
