"""Everything that a report shows of some runs, each part made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from cutk.components import Summary
from cutk.errors import UsageError, suggestion
from cutk.options import parse_options
from cutk.plugins.registry import Registry
from cutk.report.code import several
from cutk.report.experiments import Experiment, experiments_of, grouped
from cutk.report.sheets import Sheet, sheets_of, tidy
from cutk.run.records import Failure, Run
from cutk.run.summary import Summarised, summarise

if TYPE_CHECKING:
    from cutk.report.panels import Drawing

Summaries = Mapping[str, Callable[[], Summary]]


def installed_summaries(registry: Registry, warn: Callable[[str], None] = lambda _: None) -> Summaries:
    """Return what makes each installed summary with its default options, by name."""
    found: dict[str, Callable[[], Summary]] = {}
    for entry in registry.of_kind("summary"):
        component: Any = entry.component
        try:
            found[entry.name] = partial(component, parse_options(component.Options, {}, entry.name))
        except UsageError as error:
            warn(f"summary left out: {error}")
    return found


class Contents:
    """What a report shows of runs (see ``experiments_of``), with what makes each summary, by name.

    ``failures`` are cells that gave no run. Figures of curves stress the unlearners that are ``highlighted``.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        summaries: Summaries,
        datasets: Collection[str] = (),
        manipulations: Collection[str] = (),
        metrics: Mapping[str, str] | None = None,
        *,
        unlearners: Collection[str] = (),
        highlighted: Collection[str] = (),
        oracle: bool = False,
        any_code: bool = False,
        failures: Sequence[Failure] = (),
    ) -> None:
        how: Any = {"unlearners": unlearners, "oracle": oracle, "any_code": any_code}
        self.experiments = experiments_of(runs, datasets, manipulations, metrics, **how)
        self._highlighted = self._found(highlighted)
        self.failures = list(failures)
        self._makers = summaries

    @property
    def versions(self) -> dict[str, list[str]]:
        """The code of each component of which several versions are shown as one, by its name."""
        return several(run for e in self.experiments for run in e.runs)

    def _found(self, highlighted: Collection[str]) -> set[str]:
        """Return the methods of these names, each of which may be several that differ in their options."""
        methods = {method for experiment in self.experiments for method in experiment.methods}
        names = {method: method.partition(" [")[0] for method in methods}
        for name in highlighted:
            if name not in names.values():
                there = sorted(set(names.values()))
                raise UsageError(
                    f"No unlearner '{name}' to highlight.{suggestion(name, there)} There are: {', '.join(there)}."
                )
        return {method for method, name in names.items() if name in highlighted}

    @cached_property
    def _summarised(self) -> list[tuple[list[Summarised], list[Failure]]]:
        return [
            summarise(self._makers, e.records(), e.metrics.values(), failed=self._failed(e)) for e in self.experiments
        ]

    def _failed(self, experiment: Experiment) -> set[tuple[str, str, float]]:
        """Return where an experiment's methods gave no model, as its records call manipulations and methods.

        A failure knows no options: where several settings or methods have its names, it isn't told whose it is.
        """
        of = (experiment.dataset, experiment.model)
        if sum(of == (other.dataset, other.model) for other in self.experiments) > 1:
            return set()
        settings = grouped(experiment.settings, lambda setting: setting.manipulation)
        methods = grouped(experiment.methods, lambda method: method.partition(" [")[0])
        found = set()
        for f in self.failures:
            if f.what != "cell" or (f.dataset, f.model) != of or f.unlearner is None or f.alpha is None:
                continue
            theirs, names = settings.get(f.manipulation, []), methods.get(f.unlearner, [])
            # One at an α that nobody has may be of an earlier plan.
            if len(theirs) == len(names) == 1 and (f.alpha in theirs[0].alphas or len(methods) == 1):
                found.add((theirs[0].title, names[0], f.alpha))
        return found

    @property
    def summaries(self) -> list[list[Summarised]]:
        """The summaries of each experiment's methods, each manipulation under its setting's title."""
        return [found for found, _ in self._summarised]

    @property
    def failed_summaries(self) -> list[Failure]:
        """The summaries that gave no number."""
        return [failure for _, failed in self._summarised for failure in failed]

    @cached_property
    def sheets(self) -> list[list[Sheet]]:
        """The tables of each experiment."""
        kinds = {name: type(make()) for name, make in self._makers.items()}
        return [sheets_of(e, found, kinds) for e, found in zip(self.experiments, self.summaries, strict=True)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row for each number."""
        for experiment, found in zip(self.experiments, self.summaries, strict=True):
            yield from tidy(experiment, found)

    def figures(self, experiment: Experiment) -> Iterator[Drawing]:
        """Yield an experiment's figures, each drawn when it is asked for."""
        from cutk.report.figures import figures_of  # matplotlib takes a second to import
        from cutk.report.style import marks_for

        methods = [method for one in self.experiments for method in one.methods]
        return figures_of(experiment, marks_for(methods, self._highlighted))

    @cached_property
    def drawings(self) -> list[list[Drawing]]:
        """The figures of each experiment."""
        return [list(self.figures(experiment)) for experiment in self.experiments]
