"""A plan with every name looked up, every option validated, and the components that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cutk.components import Dataset, Unlearner
from cutk.errors import UsageError
from cutk.options import alternatives, parse_options
from cutk.plugins.checks import require_libraries
from cutk.plugins.registry import Entry, Registry
from cutk.problem.expansion import OF_DETECTOR
from cutk.run.chosen import Chosen, providers_of
from cutk.run.plan import Plan
from cutk.run.search import search_points

__all__ = ["Composed", "Setup", "choose", "require_said_once", "resolve"]


class Composed(NamedTuple):
    """Manipulations that are applied one after the other, and their names joined by +; mostly there is one."""

    name: str
    parts: tuple[Chosen, ...]


@dataclass(frozen=True)
class Setup:
    """A plan with every name looked up and every option validated.

    ``max_accuracy_loss`` says how much validation accuracy a method may cost, if that is limited; a method of which no
    point keeps within it fails. ``selector`` has to name it among what decides a result.
    """

    plan: Plan
    dataset: Chosen
    manipulations: tuple[Composed, ...]
    identification: Chosen
    model: Chosen
    recipe: Chosen
    unlearners: tuple[Chosen, ...]
    selector: Chosen
    metrics: tuple[Chosen, ...]
    summaries: tuple[Chosen, ...]
    executor: Chosen
    observers: tuple[Chosen, ...]
    max_accuracy_loss: float | None = None

    @property
    def _chosen(self) -> list[Chosen]:
        one = (self.dataset, self.identification, self.model, self.recipe, self.selector, self.executor)
        parts = (part for composed in self.manipulations for part in composed.parts)
        several = (*self.unlearners, *self.metrics, *self.summaries, *self.observers)
        return list(dict.fromkeys((*one, *parts, *several)))

    @property
    def computes_here(self) -> bool:
        """Whether it is the study's own process that computes."""
        return bool(self.executor.entry.component.here)  # type: ignore[attr-defined]

    def providers(self) -> dict[str, str]:
        """Return the version of each distribution that takes part."""
        return providers_of(self._chosen)

    def as_run(self) -> dict[str, Any]:
        """Return the plan as it is run, with every option settled."""
        return {
            **self.plan.model_dump(mode="json"),
            "seeds": list(self.plan.seed_list),
            "model": self.model.name,
            "recipe": {"name": self.recipe.name, **self.recipe.settled},
            "unlearners": [unlearner.name for unlearner in self.unlearners],
            "options": {chosen.name: chosen.settled for chosen in self._chosen if chosen is not self.recipe},
        }


def resolve_content(content: Mapping[str, Any], registry: Registry) -> Setup:
    """Settle what a plan says, with every unlearner where it names none; errors are those of ``resolve``."""
    return resolve(Plan.parse(content if content.get("unlearners") else {**content, "unlearners": ["all"]}), registry)


def resolve(plan: Plan, registry: Registry) -> Setup:
    """Look up every name in ``plan`` and validate every option.

    A component's own defaults give way to what the dataset suggests, then the plan, and last to what the plan says.

    Raises:
        UsageError: for the first name or option that doesn't fit.
    """
    dataset: Any = registry.get("dataset", plan.dataset).component
    model = plan.model or dataset.model
    if not model:
        raise UsageError(f"Dataset '{plan.dataset}' suggests no model. Choose one with --model.")
    recipe = plan.recipe.get("name")
    if not isinstance(recipe, str):
        raise UsageError(f'Recipe: expected the name of one, as in recipe = {{name = "…"}}, got {recipe!r}.')
    unlearners: Iterable[str] = plan.unlearners
    if "all" in unlearners:
        unlearners = [entry.name for entry in registry.of_kind("unlearner")]
    if plan.detector:
        unlearners = [name if "+" in name else f"{name}+{plan.detector}" for name in unlearners]
    # A summary is asked for as a metric is, since to people it is one.
    over_alpha = {entry.name for entry in registry.of_kind("summary")} - {e.name for e in registry.of_kind("metric")}
    names: dict[str, Iterable[str]] = {
        "dataset": [plan.dataset],
        "manipulation": [part for name in plan.manipulations for part in name.split("+")],
        "identification": [plan.identification],
        "model": [model],
        "recipe": [recipe],
        "unlearner": unlearners,
        "selector": [plan.select],
        "metric": [name for name in plan.metrics if name not in over_alpha],
        "summary": [*plan.summaries, *(name for name in plan.metrics if name in over_alpha)],
        "executor": [plan.executor],
        "observer": plan.observers,
    }
    entries = {kind: [registry.get(kind, name) for name in dict.fromkeys(those)] for kind, those in names.items()}
    parts = [part for those in entries.values() for entry in those for part in (entry, *entry.parts)]
    used = {name for part in parts for name in (part.name, part.family)}
    for name in plan.options:
        if name not in used:
            registry.find(name)  # a name that nobody has gets the better message
            raise UsageError(
                f"Options for '{name}' are given, but the plan does not use it. It uses: {', '.join(sorted(used))}."
            )
    require_said_once(parts, plan.options)
    for name in plan.suggests:
        registry.find(name)  # a name that nobody has is refused, whether or not it is used
    # Two spellings may mean one component.
    chosen = {kind: {entry.name: choose(entry, plan, dataset) for entry in those} for kind, those in entries.items()}

    def of(kind: str) -> tuple[Chosen, ...]:
        return tuple(chosen[kind].values())

    def composed(name: str) -> Composed:
        parts = tuple(chosen["manipulation"][registry.get("manipulation", part).name] for part in name.split("+"))
        if len(set(parts)) < len(parts):
            raise UsageError(f"Manipulation '{name}': expected each part once.")
        return Composed("+".join(part.name for part in parts), parts)

    if plan.oracle and not any(getattr(metric.entry.component, "objective", "") for metric in of("metric")):
        raise UsageError("The oracle row is best in the plan's objectives, and its metrics include none.")
    for summary in entries["summary"]:
        _require_metrics(summary, registry)
    kinds = ("dataset", "identification", "model", "recipe", "selector", "executor")
    ones: dict[str, Any] = {kind: of(kind)[0] for kind in kinds}
    return Setup(
        plan=plan,
        manipulations=tuple({each.name: each for each in map(composed, plan.manipulations)}.values()),
        unlearners=of("unlearner"),
        metrics=of("metric"),
        summaries=of("summary"),
        observers=of("observer"),
        **ones,
    )


def _require_metrics(summary: Entry, registry: Registry) -> None:
    """Raise a ``UsageError`` if a summary is of a metric that nobody provides, on whatever domain."""
    component: Any = summary.component
    who = f"The summary '{summary.name}' of {summary.provider.requirement}"
    for name in component.of:
        try:
            found = registry.get("metric", name.partition("[")[0])
        except UsageError as error:
            raise UsageError(f"{who} names in of: {error}") from None
        if found.kind != "metric":
            raise UsageError(f"{who} names in of '{name}', a {found.kind}; expected the names of metrics.")


def require_said_once(parts: Sequence[Entry], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options by name that differ from those that a variant among the components is made of.

    It would be another one. A plan as it was carried out says them again.

    Raises:
        UsageError: for the first of them.
    """
    names = {part.name for part in parts}
    for part in parts:
        families = () if part.family in names else (part.family,)
        for name in (part.name, *families):
            said = options.get(name, {})
            for option, value in part.given.items():
                if option in said and str(said[option]) != str(value):
                    raise UsageError(f"Option '{name}.{option}': '{part.name}' says it already. Leave one out.")


def choose(entry: Entry, plan: Plan, dataset: type[Dataset]) -> Chosen:
    """Return a component with the options that its defaults, the dataset's suggestions and the plan come to."""
    cls, name = entry.component.Options, entry.name
    given: dict[str, Any] = {}
    if entry.kind == "recipe":  # what suits the data under any recipe; one may lack an option that others have
        given |= {option: value for option, value in dataset.recipe.items() if option in cls.model_fields}
    for part in entry.parts or (entry,):
        require_libraries(part.component)
        # Those of a detector are called otherwise beside those of the unlearner that it works for.
        prefix = OF_DETECTOR if part.kind == "detector" and entry.parts else ""
        own = {**dataset.suggests.get(part.component.name, {}), **plan.suggests.get(part.component.name, {})}
        if part.given:
            own |= plan.options.get(part.family, {})
        own |= {**part.given, **plan.options.get(part.name, {})}
        given |= {f"{prefix}{option}": value for option, value in own.items()}
    given |= plan.options.get(name, {})
    if entry.kind == "recipe":
        given |= {option: value for option, value in plan.recipe.items() if option != "name"}
    if issubclass(entry.component, Unlearner):
        values = {option: alternatives(cls, option, value, name) for option, value in given.items()}
        points = search_points(entry.component, values, plan.search)
    else:
        points = [given]
    return Chosen(entry, tuple(parse_options(cls, point, name) for point in points))
