"""Runs put in order: experiments, their settings, the methods of each, and what each was measured to be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from cutk.errors import UsageError, suggestion
from cutk.report.naming import compact, listed, natural, slugs, told_apart, traits_of
from cutk.run.records import Attempt, Environment, Failure, Identity, Measured, Record, Run, Trained
from cutk.run.summary import Stat, best_on_test, nothing_to_correct, stat

__all__ = ["GOLD", "ORIGINAL", "Experiment", "Point", "Setting", "experiments_of"]

# The references stand in figures and tables under their roles; an unlearner's name always goes with an α.
ORIGINAL, GOLD = "original", "gold"

_MIDDLE = 0.5
# Traits that say less to a person than the others.
_LAST = ("points", "provider", "source", "data")


class Point(NamedTuple):
    """One model: a training, or a point of an unlearner's grid.

    Attributes:
        run: which it is from.
        position: which of the run's attempts it is.
        attempt: how it came about.
        method: the unlearner, told apart from others of its name; a reference's role.
        alpha: the identified fraction, None for the references.
        seed: which repetition it belongs to.
        selected: whether it is what the test-free rule took.
        oracle: whether it is the one that is best on the test set.
        anchor: its address on the page.
        identities: each metric's identity, by its name in the report.
    """

    run: Run
    position: int
    attempt: Attempt
    method: str
    alpha: float | None
    seed: int
    selected: bool
    oracle: bool
    anchor: str
    identities: Mapping[str, str]

    def value(self, metric: str) -> float | None:
        """Return a metric's value, None if it has none."""
        value = self.attempt.metrics.get(self.identities.get(metric, ""))
        return None if isinstance(value, dict) else value

    def parts(self, metric: str) -> dict[str, float]:
        """Return the values of a metric that is several numbers, by their labels."""
        value = self.attempt.metrics.get(self.identities.get(metric, ""))
        return value if isinstance(value, dict) else {}

    def record(self, manipulation: str) -> Record:
        """Return it as a line of a table, with the names that the method and the setting have in the report."""
        record = self.run.record_of(self.position, {identity: name for name, identity in self.identities.items()})
        unlearner = None if self.alpha is None else self.method
        return record.model_copy(update={"unlearner": unlearner, "manipulation": manipulation})


@dataclass(eq=False)
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
        size: \|S_m\|, or its range.
        title, heading: the name with the size, in one line and in two.
        methods: the unlearners, by name.
        alphas, seeds: all that there are, ascending.
    """

    manipulation: str
    name: str
    options: dict[str, Any]
    manipulated: list[int]
    runs: list[tuple[str, Run]]
    points: list[Point]
    failures: list[Failure]

    def __post_init__(self) -> None:
        low, high = min(self.manipulated), max(self.manipulated)
        self.size = str(low) if low == high else f"{low}–{high}"
        self.title, self.heading = (f"{self.name}{between}{self.size} manipulated" for between in (", ", "\n"))
        self.methods = sorted({name for name, run in self.runs if run.unlearner is not None}, key=natural)
        self.alphas = sorted({point.alpha for point in self.points if point.alpha is not None})
        self.seeds = sorted({run.labels.seed for _, run in self.runs})
        self._selected: dict[tuple[str, float | None], list[Point]] = {}
        for point in self.points:
            if point.selected:
                self._selected.setdefault((point.method, point.alpha), []).append(point)

    @property
    def middle(self) -> float:
        """The α nearest the one at which the paper sets unlearning against utility."""
        return min(self.alphas, key=lambda alpha: abs(alpha - _MIDDLE))

    def selected(self, method: str, alpha: float | None = None) -> list[Point]:
        """Return one point for each seed: what the method's rule took at ``alpha``, or a reference."""
        return self._selected.get((method, alpha), [])

    def measured(self, metric: str, method: str, alpha: float | None = None) -> Stat | None:
        """Return a metric over the seeds."""
        return stat([value for p in self.selected(method, alpha) if (value := p.value(metric)) is not None])

    def change(self, metric: str, method: str, alpha: float | None = None) -> float | None:
        """Return by how much a metric differs from the original of the same seed, averaged over seeds."""
        before = {point.seed: point.value(metric) for point in self.selected(ORIGINAL)}
        pairs = [(point.value(metric), before.get(point.seed)) for point in self.selected(method, alpha)]
        found = stat([after - start for after, start in pairs if after is not None and start is not None])
        return found and found.mean

    def broken_down(self, metric: str, method: str, alpha: float | None = None) -> dict[str, Stat]:
        """Return each of a metric's several values over the seeds that have it, by its label, in natural order."""
        by_label: dict[str, list[float]] = {}
        for point in self.selected(method, alpha):
            for label, value in point.parts(metric).items():
                by_label.setdefault(label, []).append(value)
        return {label: found for label in sorted(by_label, key=natural) if (found := stat(by_label[label]))}

    @cached_property
    def identified(self) -> dict[float, float]:
        r"""\|S_f\| at each α, averaged over seeds."""
        sizes: dict[float, list[int]] = {}
        for _, run in self.runs:
            if run.labels.alpha is not None:
                sizes.setdefault(run.labels.alpha, []).append(run.labels.identified or 0)
        return {alpha: statistics.fmean(found) for alpha, found in sizes.items()}

    def nothing_to_correct(self, metric: Measured) -> str:
        """Say why there is nothing to correct by this metric, if there isn't."""
        original, gold = (self.measured(metric.name, reference) for reference in (ORIGINAL, GOLD))
        return nothing_to_correct(metric.name, original, gold, metric.higher_is_better)


@dataclass
class Experiment:
    """Everything that shares data, model, recipe, precision, device and threads.

    Attributes:
        name: dataset and model, told apart from other experiments by what differs.
        slug: the same for files and addresses.
        dataset: its name.
        model: its name.
        training: what decides its trainings; manipulation and seed are the settings' own.
        settings: by manipulation and size of S_m.
        metrics: every metric with values, the two objectives first.
        breakdowns: the same for metrics that are several numbers.
        environments: each machine and set of versions that took part.
    """

    name: str
    slug: str
    dataset: str
    model: str
    training: Trained
    settings: list[Setting]
    metrics: dict[str, Measured]
    breakdowns: dict[str, Measured]
    environments: list[Environment]

    @property
    def methods(self) -> list[str]:
        """The unlearners of all settings, by name."""
        return sorted({method for setting in self.settings for method in setting.methods}, key=natural)

    def objectives(self, aim: str) -> list[str]:
        """Return the metrics that measure one of the two aims: ``unlearning`` or ``utility``."""
        return [name for name, metric in self.metrics.items() if metric.objective == aim]

    def caution(self, setting: Setting) -> str:
        """Say that there is nothing to correct in a setting, if there isn't."""
        aims = self.objectives("unlearning")
        return setting.nothing_to_correct(self.metrics[aims[0]]) if aims else ""

    def records(self) -> list[Record]:
        """Return the selected models as lines of a table, each manipulation under its setting's title."""
        return [p.record(setting.title) for setting in self.settings for p in setting.points if p.selected]


def experiments_of(
    runs: Iterable[Run],
    datasets: Collection[str] = (),
    manipulations: Collection[str] = (),
    metrics: Mapping[str, str] | None = None,
    *,
    oracle: bool = False,
) -> list[Experiment]:
    """Put runs in order.

    Args:
        runs: all that were read.
        datasets: the ones to report, all if empty.
        manipulations: likewise.
        metrics: the ones to show in their order, names by identity; all of them in an order of their own if not given.
        oracle: whether the grid point that is best on the test set is told.

    Raises:
        UsageError: if no run is of such a dataset or manipulation.
    """
    runs = _only(sorted(runs, key=_order), "dataset", datasets, lambda run: run.labels.dataset)
    runs = _only(runs, "manipulation", manipulations, lambda run: run.labels.manipulation)
    without: Any = {"role", "corruption", "manipulation", "seed"}
    groups = _grouped(runs, lambda run: run.trained.model_dump_json(exclude=without))
    names = {key: f"{group[0].labels.dataset}, {group[0].labels.model}" for key, group in groups.items()}
    told = told_apart(names, {key: _traits_of(group[0].trained) for key, group in groups.items()}, _LAST)
    addresses = slugs(told.values())
    experiments = [
        _experiment(told[key], addresses[told[key]], group, metrics, oracle) for key, group in groups.items()
    ]
    return sorted(experiments, key=lambda experiment: natural(experiment.name))


def _order(run: Run) -> tuple[Any, ...]:
    of = run.labels
    return (of.dataset, of.model, of.manipulation, of.unlearner or "", of.alpha or 0, of.seed, run.key)


def _only(runs: list[Run], what: str, wanted: Collection[str], name_of: Callable[[Run], str]) -> list[Run]:
    there = sorted({name_of(run) for run in runs})
    for name in wanted:
        if name not in there:
            raise UsageError(
                f"No run is of the {what} '{name}'.{suggestion(name, there)} The runs are of: {', '.join(there)}."
            )
    return [run for run in runs if name_of(run) in wanted] if wanted else runs


def _grouped(runs: Iterable[Run], key_of: Callable[[Run], str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key_of(run), []).append(run)
    return groups


def _traits_of(training: Trained) -> dict[str, str]:
    return {
        **{name: text for name, text in traits_of(training.model).items() if not name.endswith("points")},
        "recipe": training.recipe.name,
        **{name: compact(value) for point in training.recipe.options[:1] for name, value in point.items()},
        "precision": training.precision,
        "device": training.device,
        "threads": str(training.threads),
        "validation_fraction": compact(training.validation_fraction),
        "recipe provider": training.recipe.provider,
        "recipe source": training.recipe.source[:6],
        "data": training.data[:8],
    }


def _experiment(name: str, address: str, runs: list[Run], shown: Mapping[str, str] | None, oracle: bool) -> Experiment:
    found: dict[str, Measured] = {}
    for run in runs:
        found |= run.measured
    names = shown or told_apart(
        {identity: metric.name for identity, metric in found.items()},
        {identity: {"identity": identity[:6]} for identity in found},
    )
    identities = {name: identity for identity, name in names.items() if identity in found}
    metrics = [found[identity].model_copy(update={"name": name}) for name, identity in identities.items()]
    groups = _grouped(runs, lambda run: "\n".join(part.model_dump_json() for part in run.trained.manipulation))
    sizes = {key: sorted({run.labels.manipulated for run in group}) for key, group in groups.items()}
    # The size tells settings apart wherever they are shown, so that only those of one size need more than that.
    ids = {key: f"{group[0].labels.manipulation}\n{sizes[key]}" for key, group in groups.items()}
    traits = {key: _traits_of_all(group[0].trained.manipulation) for key, group in groups.items()}
    told = {key: text.replace(f"\n{sizes[key]}", "") for key, text in told_apart(ids, traits, _LAST).items()}
    methods = _methods(runs)
    settings = [_setting(told[key], group, sizes[key], methods, identities, oracle) for key, group in groups.items()]
    settings.sort(key=lambda s: (natural(s.manipulation), s.manipulated, natural(s.name)))
    kinds: dict[type, set[str]] = {dict: set(), float: set()}
    for run in runs:
        for identity, value in run.chosen.metrics.items():
            if value is not None:
                kinds[dict if isinstance(value, dict) else float].add(identity)

    def having(kind: type) -> dict[str, Measured]:
        mine = [metric for metric in metrics if identities[metric.name] in kinds[kind]]
        return {metric.name: metric for metric in (mine if shown else sorted(mine, key=_rank))}

    labels, training = runs[0].labels, runs[0].trained
    environments = list({run.environment.model_dump_json(): run.environment for run in runs}.values())
    about = (name, address, labels.dataset, labels.model, training)
    return Experiment(*about, settings, having(float), having(dict), environments)


def _rank(metric: Measured) -> tuple[int, bool, tuple[Any, ...]]:
    aims = ("unlearning", "utility", "")
    return aims.index(metric.objective), not metric.is_fraction, natural(metric.name)


def _traits_of_all(parts: Sequence[Identity]) -> dict[str, str]:
    """Return the traits of everything that was composed, under their names where it is more than one."""
    return {n: t for part in parts for n, t in traits_of(part, f"{part.name}." if len(parts) > 1 else "").items()}


def _methods(runs: Iterable[Run]) -> dict[str, str]:
    """Return a name of its own for every unlearner of an experiment, by run; the same in all settings."""
    chosen: dict[str, tuple[str, dict[str, str]]] = {}
    of_run: dict[str, str] = {}
    for run in runs:
        how = run.decided_by
        if isinstance(how, Trained):
            of_run[run.key] = run.labels.role
            continue
        parts = (how.unlearner, how.identification, how.selector)
        identity = "\n".join(part.model_dump_json() for part in parts)
        if identity not in chosen:
            traits = traits_of(how.unlearner)
            for what, part in (("identification", how.identification), ("select", how.selector)):
                options = listed(part.options[0]) if part.options else ""
                traits |= {what: f"{part.name} ({options})" if options else part.name}
                traits |= {f"{what} provider": part.provider, f"{what} source": part.source[:6]}
            chosen[identity] = (run.labels.unlearner or how.unlearner.name, traits)
        of_run[run.key] = identity
    names = told_apart({k: name for k, (name, _) in chosen.items()}, {k: t for k, (_, t) in chosen.items()}, _LAST)
    return {key: names.get(identity, identity) for key, identity in of_run.items()}


def _setting(
    name: str, runs: list[Run], sizes: list[int], methods: Mapping[str, str], ids: Mapping[str, str], oracle: bool
) -> Setting:
    parts = runs[0].trained.manipulation
    options = {
        f"{part.name}.{option}" if len(parts) > 1 else option: value
        for part in parts
        for point in part.options[:1]
        for option, value in point.items()
    }
    names = {identity: shown for shown, identity in ids.items()}
    points = []
    for run in runs:
        labels = run.labels
        best = best_on_test(run, names) if oracle and len(run.attempts) > 1 else None
        for i, attempt in enumerate(run.attempts):
            if not attempt.error:
                about = (methods[run.key], labels.alpha, labels.seed, i == run.selected, i == best)
                points.append(Point(run, i, attempt, *about, f"record-{run.key[:16]}-{i}", ids))
    failures = [failure for run in runs for failure in run.failures(names)]
    named = [(methods[run.key], run) for run in runs]
    return Setting(runs[0].labels.manipulation, name, options, sizes, named, points, failures)
