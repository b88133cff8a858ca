"""Runs put in order: experiments, their settings, the methods of each, and what each was measured to be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from cutk.errors import UsageError, suggestion
from cutk.report.code import of_any_code
from cutk.report.naming import compact, distinct, natural, slugs, traits_of, with_options
from cutk.run.records import Attempt, Environment, Failure, Measured, Record, Run, Trained
from cutk.run.summary import Stat, best_on_test, nothing_to_correct, stat

# The references stand in figures and tables under their roles; an unlearner's name always goes with an α.
ORIGINAL, GOLD = "original", "gold"

_MIDDLE = 0.5
_AIMS = ("unlearning", "utility", "")

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def stat_of(values: Iterable[float | None]) -> Stat | None:
    """Return the statistics of the values that there are, None if there are none."""
    return stat([value for value in values if value is not None])


def grouped(items: Iterable[T], key_of: Callable[[T], Key]) -> dict[Key, list[T]]:
    """Return items by their key, both in the order in which they come."""
    groups: dict[Key, list[T]] = {}
    for item in items:
        groups.setdefault(key_of(item), []).append(item)
    return groups


class Point(NamedTuple):
    """One model: a training, or a point of an unlearner's grid.

    ``method`` is the unlearner by a name that no other has, or a reference's role, whose ``alpha`` is None. The
    test-free rule takes what is ``selected``, the test set would take the ``oracle``. ``identities`` are each metric's
    identity by its name in the report, and ``anchor`` is its address on the page.
    """

    run: Run
    attempt: Attempt
    position: int
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


def span(sizes: Sequence[int]) -> str:
    """Return numbers as the range they lie in.

    >>> span([12, 10, 11]), span([10])
    ('10–12', '10')
    """
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low}–{high}"


def identified(points: Sequence[Point]) -> float | None:
    r"""Return \|S_f\|, averaged over the seeds of a method at one α; None of none."""
    return statistics.fmean(point.run.labels.identified or 0 for point in points) if points else None


@dataclass(eq=False)
class Setting:
    r"""One manipulation with its options, and every model that was measured under it.

    ``name`` is the manipulation's, with its options where neither it nor ``size``, \|S_m\| or its range over the seeds,
    tells it from others; ``title`` and ``heading`` are both, in one line and in two. ``runs`` hold the method's name,
    and ``identities`` each metric's identity by its name. ``taken`` are the points that are selected, and where
    ``oracle`` says so those that the test set would take.
    """

    manipulation: str
    name: str
    options: dict[str, Any]
    manipulated: list[int]
    runs: list[tuple[str, Run]]
    failures: list[Failure]
    identities: Mapping[str, str]
    oracle: bool

    def __post_init__(self) -> None:
        self.size = span(self.manipulated)
        self.title, self.heading = (f"{self.name}{between}{self.size} manipulated" for between in (", ", "\n"))
        self.methods = sorted({name for name, run in self.runs if run.unlearner is not None}, key=natural)
        self.seeds = sorted({run.labels.seed for _, run in self.runs})
        self.taken = [point for method, run in self.runs for point in self._points(method, run, every=False)]
        self.alphas = sorted({point.alpha for point in self.taken if point.alpha is not None})
        self._selected = grouped((p for p in self.taken if p.selected), lambda point: (point.method, point.alpha))

    @cached_property
    def points(self) -> list[Point]:
        """All points of all runs; most of them are parsed when this is first asked for."""
        return [point for method, run in self.runs for point in self._points(method, run, every=True)]

    def _points(self, method: str, run: Run, *, every: bool) -> Iterator[Point]:
        best = best_on_test(run, self.identities.values()) if self.oracle and len(run.attempts) > 1 else None
        about = (method, run.labels.alpha, run.labels.seed)
        wanted = {run.selected} if best is None else {run.selected, best}
        for i in range(len(run.attempts)) if every else sorted(wanted):
            attempt = run.attempts[i]
            if not attempt.error:
                anchor = f"record-{run.key[:16]}-{i}"
                yield Point(run, attempt, i, *about, i == run.selected, i == best, anchor, self.identities)

    @property
    def middle(self) -> float:
        """The α nearest the one at which the paper sets unlearning against utility."""
        return min(self.alphas, key=lambda alpha: abs(alpha - _MIDDLE))

    @property
    def models(self) -> list[tuple[str, float | None]]:
        """The original, each method at each α, gold."""
        return [(ORIGINAL, None), *((method, alpha) for alpha in self.alphas for method in self.methods), (GOLD, None)]

    def selected(self, method: str, alpha: float | None = None) -> list[Point]:
        """Return one point for each seed: what the method's rule took at ``alpha``, or a reference."""
        return self._selected.get((method, alpha), [])

    def measured(self, metric: str, method: str, alpha: float | None = None) -> Stat | None:
        """Return a metric over the seeds."""
        return stat_of(point.value(metric) for point in self.selected(method, alpha))

    def change(self, metric: str, method: str, alpha: float | None = None) -> float | None:
        """Return by how much a metric differs from the original of the same seed, averaged over seeds."""
        before = {point.seed: point.value(metric) for point in self.selected(ORIGINAL)}
        pairs = [(point.value(metric), before.get(point.seed)) for point in self.selected(method, alpha)]
        found = stat([after - start for after, start in pairs if after is not None and start is not None])
        return found and found.mean

    def broken_down(self, metric: str, method: str, alpha: float | None = None) -> dict[str, Stat]:
        """Return each of a metric's several values over the seeds that have it, by its label, in natural order."""
        parts = [point.parts(metric) for point in self.selected(method, alpha)]
        labels = sorted({label for values in parts for label in values}, key=natural)
        return {label: found for label in labels if (found := stat_of(values.get(label) for values in parts))}

    def nothing_to_correct(self, metric: Measured) -> str:
        """Say why there is nothing to correct by this metric, if there isn't."""
        original, gold = (self.measured(metric.name, reference) for reference in (ORIGINAL, GOLD))
        return nothing_to_correct(metric.name, original, gold, metric.higher_is_better)


@dataclass
class Experiment:
    """Everything that shares data, model, recipe, precision, device and threads: what decides its trainings.

    ``name`` is dataset and model, and what differs from other experiments of the same; ``metrics`` are those with
    values, the two objectives first, and ``breakdowns`` those that are several numbers.
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
    def runs(self) -> Iterator[Run]:
        """All that it holds."""
        return (run for setting in self.settings for _, run in setting.runs)

    @property
    def methods(self) -> list[str]:
        """The unlearners of all settings, by name."""
        return sorted({method for setting in self.settings for method in setting.methods}, key=natural)

    def objectives(self, aim: str) -> list[Measured]:
        """Return the metrics that measure one of the two aims: ``unlearning`` or ``utility``."""
        return [metric for metric in self.metrics.values() if metric.objective == aim]

    def caution(self, setting: Setting) -> str:
        """Say that there is nothing to correct in a setting, if there isn't."""
        aims = self.objectives("unlearning")
        return setting.nothing_to_correct(aims[0]) if aims else ""

    def records(self) -> list[Record]:
        """Return the selected models as lines of a table, each manipulation under its setting's title."""
        return [p.record(setting.title) for setting in self.settings for p in setting.taken if p.selected]


def experiments_of(
    runs: Iterable[Run],
    datasets: Collection[str] = (),
    manipulations: Collection[str] = (),
    metrics: Mapping[str, str] | None = None,
    *,
    unlearners: Collection[str] = (),
    oracle: bool = False,
    any_code: bool = False,
) -> list[Experiment]:
    """Put runs in order: those of some datasets and manipulations, or of all; a ``UsageError`` if there are none.

    Where ``unlearners`` are named, their runs stay, and the original and gold.
    ``metrics`` are the ones to show, names by identity, in an order of their own if not given. ``oracle`` says whether
    the grid point that is best on the test set is told, ``any_code`` that components which differ in their code alone
    are one.
    """
    runs = _only(sorted(runs, key=_order), "dataset", datasets, lambda run: run.labels.dataset)
    runs = _only(runs, "manipulation", manipulations, lambda run: run.labels.manipulation)
    trainings = [run for run in runs if run.unlearner is None]
    runs = _only(runs, "unlearner", unlearners, lambda run: run.labels.unlearner or "")
    runs = sorted([*trainings, *runs], key=_order) if unlearners else runs
    runs = of_any_code(runs) if any_code else runs
    without: Any = {"role", "corruption", "manipulation", "seed"}
    groups = grouped(runs, lambda run: run.trained.model_dump_json(exclude=without))
    names = {key: f"{group[0].labels.dataset}, {group[0].labels.model}" for key, group in groups.items()}
    named = distinct(names, {key: _traits_of(group[0].trained) for key, group in groups.items()})
    addresses = slugs(named.values())
    found = [_experiment(named[key], addresses[named[key]], group, metrics, oracle) for key, group in groups.items()]
    return sorted(found, key=lambda experiment: natural(experiment.name))


def _order(run: Run) -> tuple[Any, ...]:
    of = run.labels
    return (of.dataset, of.model, of.manipulation, of.unlearner or "", of.alpha or 0, of.seed, run.key)


def _only(runs: list[Run], what: str, wanted: Collection[str], name_of: Callable[[Run], str]) -> list[Run]:
    there = sorted({name_of(run) for run in runs} - {""})
    for name in wanted:
        if name not in there:
            raise UsageError(
                f"No run is of the {what} '{name}'.{suggestion(name, there)} The runs are of: {', '.join(there)}."
            )
    return [run for run in runs if name_of(run) in wanted] if wanted else runs


def _traits_of(training: Trained) -> dict[str, str]:
    return {
        **{name: text for name, text in traits_of(training.model).items() if name != "points"},
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
    names = shown or distinct(
        {identity: metric.name for identity, metric in found.items()},
        {identity: {"identity": identity[:6]} for identity in found},
    )
    identities = {name: identity for identity, name in names.items() if identity in found}
    metrics = [found[identity].model_copy(update={"name": name}) for name, identity in identities.items()]
    if not shown:
        metrics.sort(key=lambda m: (_AIMS.index(m.objective), not m.is_fraction, natural(m.name)))
    values = [(identity, value) for run in runs for identity, value in run.chosen.metrics.items() if value is not None]
    several = {identity for identity, value in values if isinstance(value, dict)}
    single = {identity for identity, value in values if not isinstance(value, dict)}
    return Experiment(
        name,
        address,
        runs[0].labels.dataset,
        runs[0].labels.model,
        runs[0].trained,
        _settings(runs, identities, oracle),
        {metric.name: metric for metric in metrics if identities[metric.name] in single},
        {metric.name: metric for metric in metrics if identities[metric.name] in several},
        list({run.environment.model_dump_json(): run.environment for run in runs}.values()),
    )


def _settings(runs: list[Run], identities: Mapping[str, str], oracle: bool) -> list[Setting]:
    groups = grouped(runs, lambda run: "\n".join(part.model_dump_json() for part in run.trained.manipulation))
    sizes = {key: sorted({run.labels.manipulated for run in group}) for key, group in groups.items()}
    options: dict[str, dict[str, Any]] = {}
    traits: dict[str, dict[str, str]] = {}
    for key, group in groups.items():
        options[key], traits[key], parts = {}, {}, group[0].trained.manipulation
        for part in parts:
            prefix = f"{part.name}." if len(parts) > 1 else ""
            options[key] |= {f"{prefix}{name}": value for point in part.options[:1] for name, value in point.items()}
            traits[key] |= traits_of(part, prefix)
    # The size tells settings apart wherever they are shown, so that only those of one size need more than that.
    shown = {key: f"\n{span(sizes[key])}" for key in groups}
    ids = {key: f"{group[0].labels.manipulation}{shown[key]}" for key, group in groups.items()}
    named = {key: text.replace(shown[key], "") for key, text in distinct(ids, traits).items()}
    methods, names = _methods(runs), {identity: name for name, identity in identities.items()}
    settings = []
    for key, group in groups.items():
        mine = [(methods[run.key], run) for run in group]
        failures = [failure for run in group for failure in run.failures(names)]
        about = (group[0].labels.manipulation, named[key], options[key], sizes[key])
        settings.append(Setting(*about, mine, failures, identities, oracle))
    return sorted(settings, key=lambda s: (natural(s.manipulation), s.manipulated, natural(s.name)))


def _methods(runs: Iterable[Run]) -> dict[str, str]:
    """Return a name of its own for every unlearner of an experiment, by run; the same in all settings."""
    names: dict[str, str] = {}
    traits: dict[str, dict[str, str]] = {}
    of_run: dict[str, str] = {}
    for run in runs:
        how = run.decided_by
        if isinstance(how, Trained):
            of_run[run.key] = run.labels.role
            continue
        identity = "\n".join(part.model_dump_json() for part in (how.unlearner, how.identification, how.selector))
        of_run[run.key] = identity
        if identity not in names:
            names[identity] = run.labels.unlearner or how.unlearner.name
            traits[identity] = traits_of(how.unlearner)
            for what, part in (("identification", how.identification), ("select", how.selector)):
                traits[identity][what] = with_options(part)
                traits[identity][f"{what} provider"] = part.provider
                traits[identity][f"{what} source"] = part.source[:6]
    named = distinct(names, traits)
    return {key: named.get(identity, identity) for key, identity in of_run.items()}
