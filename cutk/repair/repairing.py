"""From a model, its data and a list of bad samples to a repaired model and a report: the search that bench runs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cutk.chance import derive_seed
from cutk.components import Dataset, Score
from cutk.cost import resident_peak
from cutk.data.batches import Stamp, TrainSet
from cutk.errors import Caught, CellError, UsageError
from cutk.learning.recipe import Recipe
from cutk.machine import choose_device, choose_precision, describe_machine, repeatable
from cutk.plugins.registry import Registry
from cutk.problem.task import Log, Task
from cutk.repair.inputs import reinitialised
from cutk.repair.judging import Seen, attacked, judged, seen, touched
from cutk.repair.keeping import Candidate, Kept
from cutk.repair.records import Judged, Limits, RepairReport, Sanity, Suspect
from cutk.repair.sanity import checked
from cutk.repair.suspects import detected, suspects_of
from cutk.repair.verdict import Proportion
from cutk.repair.words import cannot_be_known, verdict_of
from cutk.run.method import Method
from cutk.run.observer import Observer, PutBack
from cutk.run.plan import Chosen, Plan, choose, layer, read_preset
from cutk.run.records import Environment
from cutk.run.search import Search, score_of

__all__ = ["Found", "Methods", "Problem", "methods_of", "opened", "repair"]

PRESET = "unlearn"
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Methods:
    """What is to be tried, and how it is chosen: the parts of a plan that a repair needs, settled."""

    unlearners: tuple[Chosen, ...]
    selector: Chosen
    recipe: Chosen
    device: torch.device
    precision: str
    limits: Limits
    seed: int = 0
    detector: Chosen | None = None  # who ranks suspects

    def providers(self) -> dict[str, str]:
        """Return the version of each distribution that takes part."""
        chosen = (*self.unlearners, self.selector, self.recipe, *([self.detector] if self.detector else []))
        return dict(sorted((c.entry.provider.distribution, c.entry.provider.version) for c in chosen))


def methods_of(
    registry: Registry,
    given: Mapping[str, Any],
    limits: Limits,
    seed: int = 0,
    dataset: type[Dataset] | None = None,
    suspects_by: str | None = None,
) -> Methods:
    """Look up every name and validate every option; what isn't ``given`` is the preset's for repairs.

    ``dataset`` suggests options that suit the data; if not given, the preset's does. ``suspects_by`` names a detector.

    Raises:
        UsageError: for the first name or option that doesn't fit.
    """
    content = layer(layer(read_preset("default", registry), read_preset(PRESET, registry)), given)
    suiting: Any = dataset or registry.get("dataset", content["dataset"]).component
    own = {name for name, values in dict(given.get("options", {})).items() if values}
    plan = Plan.parse(content)
    names = plan.unlearners
    if "all" in names:
        names = tuple(entry.name for entry in registry.of_kind("unlearner"))
    entries = {
        "unlearner": [registry.get("unlearner", name) for name in dict.fromkeys(names)],
        "selector": [registry.get("selector", plan.select)],
        "recipe": [registry.get("recipe", str(plan.recipe.get("name")))],
        "detector": [registry.get("detector", suspects_by)] if suspects_by else [],
    }
    parts = [part for those in entries.values() for entry in those for part in (entry, *entry.parts)]
    used = {name for part in parts for name in (part.name, part.family)}
    for name in sorted(own - used):
        registry.find(name)  # a name that nobody has gets the better message
        raise UsageError(f"Options for '{name}' are given, and it isn't used: {', '.join(sorted(used))}.")
    chosen = {kind: [choose(entry, plan, suiting) for entry in those] for kind, those in entries.items()}
    device = choose_device(plan.device)
    # A user's numbers are float32's, unless bf16 is asked for.
    precision = "fp32" if plan.precision == "auto" else choose_precision(plan.precision, device)
    (selector,), (recipe,), detector = chosen["selector"], chosen["recipe"], next(iter(chosen["detector"]), None)
    return Methods(tuple(chosen["unlearner"]), selector, recipe, device, precision, limits, seed, detector)


@dataclass
class Problem:
    """A user's model and data as methods are given them, and what the original says of them.

    ``stands_in`` says that training samples stand in for validation samples that weren't given.
    """

    task: Task
    classes: tuple[str, ...]
    names: tuple[str, ...] | None
    stands_in: bool
    recipe: Recipe
    says: Seen
    original: Judged
    sanity: Sanity
    build: Callable[[], nn.Module]  # makes the architecture with new weights
    hashes: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0
    positions: Tensor | None = None  # int64 [N]: where samples stood before unreadable ones were left out
    trigger: Stamp | None = None  # suspected by the user

    def position(self, index: int) -> int:
        """Return a training sample's index in the data as they were given."""
        return index if self.positions is None else int(self.positions[index])

    def attack(self, model: nn.Module) -> Proportion | None:
        """Return how often the suspected trigger makes validation samples what the bad ones are predicted as."""
        if self.trigger is None or self.task.validation is None:
            return None
        target = int(self.says.train.predicted[self.task.identified].mode().values)
        return attacked(model, self.task.validation, self.trigger, target, self.recipe)

    def suspect(self, trigger: Stamp) -> None:
        """Measure a trigger from now on, the original first."""
        self.trigger = trigger
        self.original = self.original.model_copy(update={"attack": self.attack(self.task.original)})


def opened(
    model: nn.Module,
    train: TrainSet,
    bad: Tensor,
    validation: TrainSet | None,
    methods: Methods,
    classes: tuple[str, ...],
    *,
    names: tuple[str, ...] | None = None,
    build: Callable[[], nn.Module] | None = None,
    recipe: Recipe | None = None,
    stand_in: Callable[[Tensor], TrainSet],
    bgr: bool = False,
    tell: Tell = lambda _what, _done, _total: None,
) -> Problem:
    """Ask the original about everything; ``stand_in`` makes a validation set of training samples that aren't bad."""
    repeatable(methods.device)
    recipe = methods.recipe.make() if recipe is None else recipe
    recipe = recipe.on(methods.device, methods.precision)
    original = recipe.place(model).eval()
    stands_in = validation is None
    held_out = stand_in(bad) if validation is None else validation
    made_anew = build or partial(reinitialised, original)
    task = Task(
        original,
        train,
        bad,
        recipe,
        build=made_anew,
        validation=held_out,
        initialisation_seed=derive_seed(methods.seed, "initialisation"),
        order_seed=derive_seed(methods.seed, "order"),
    )
    says = seen(original, task, partial(tell, "original"))
    about = judged("original", says, says, task, classes)
    predicted = torch.zeros(0) if says.validation is None else says.validation
    sanity = checked(original, held_out, predicted, about, recipe, classes, bgr, stands_in)
    return Problem(task, classes, names, stands_in, recipe, says, about, sanity, made_anew)


@dataclass
class Found:
    """What a repair gave: the model that was taken (the original where nothing helped), and what is known of it."""

    model: nn.Module
    report: RepairReport
    suspects: list[Suspect]
    moved: list[tuple[int, str]]  # the samples whose prediction changed most, each with what changed


class _OutOfTimeError(CellError):
    """The budget is spent."""


def repair(
    problem: Problem,
    methods: Methods,
    observer: Observer,
    tell: Tell = lambda _what, _done, _total: None,
    command: str = "",
    kept: Kept | None = None,
) -> Found:
    """Try every method, and let the selector choose among their candidates and the original.

    ``kept`` keeps candidates that are finished, and has those of a repair that was interrupted.
    """
    kept = Kept() if kept is None else kept
    limits, began = methods.limits, time.monotonic()
    budget = math.inf if limits.budget_seconds is None else limits.budget_seconds

    def over() -> bool:
        return time.monotonic() - began > budget

    selector = methods.selector.make()
    score = _scored(problem, selector.measures, problem.task.original)
    floor = (score.validation_accuracy or 0.0) - limits.max_accuracy_loss - 1e-9
    candidates: list[Candidate] = []
    failed: dict[str, str] = {}
    left_out: list[str] = []
    for chosen in methods.unlearners:
        if over():
            left_out.append(f"{chosen.name}: not begun")
            continue
        with Caught() as caught:
            one = kept.candidate(chosen, partial(_tried, problem, chosen, methods, observer, floor, over, tell))
            candidates.append(one)
            if one.judged.left_out:
                total = one.judged.points + one.judged.left_out
                left_out.append(f"{chosen.name}: {one.judged.left_out} of {total} points of its grid")
        if isinstance(caught.error, _OutOfTimeError):
            left_out.append(f"{chosen.name}: stopped, unfinished")
        elif caught.error is not None:
            observer.error(caught.error)
            failed[chosen.name] = caught.reason
    scores = [score, *(one.score if one.judged.within else None for one in candidates)]
    position = selector.choose(scores)
    taken = candidates[position - 1] if position else None
    judgements = [one.judged for one in candidates]
    status, verdict = verdict_of(problem.original, judgements, taken and taken.judged, limits, problem.stands_in)
    shown = taken or max(candidates, key=lambda one: (one.judged.within, one.judged.score or 0.0), default=None)
    suspects: list[Suspect] | None = None
    if methods.detector is not None:
        with Caught() as caught:
            says, progress = shown.says if shown else None, partial(tell, methods.detector.name)
            suspects = detected(problem, methods.detector, methods.seed, says, progress)
        if caught.error is not None:
            observer.error(caught.error)
            failed[methods.detector.name] = caught.reason
    if suspects is None:
        suspects = suspects_of(problem, shown.says, shown.judged.name) if shown else []
    if status == "not repaired":
        taken = None
    environment = Environment(
        **describe_machine(methods.device), precision=methods.precision, providers=methods.providers()
    )
    norm, options = problem.task.train.normalisation, problem.recipe.options.model_dump(mode="json")
    from cutk import __version__

    report = RepairReport(
        cutk=__version__,
        verdict=verdict,
        status=status,
        chosen=taken.judged.name if taken else None,
        limits=limits,
        sanity=problem.sanity,
        stands_in=problem.stands_in,
        original=problem.original,
        candidates=judgements,
        failed=failed,
        left_out=left_out,
        unknown=cannot_be_known(problem.stands_in),
        suspects=len(suspects),
        samples={
            "train": len(problem.task.train),
            "bad": len(problem.task.identified),
            "validation": len(problem.task.validation or ()),
            "unreadable": problem.unreadable,
        },
        classes=list(problem.classes),
        normalisation=(norm.mean, norm.std),
        recipe={"name": methods.recipe.name if problem.recipe.name == methods.recipe.name else "own", **options},
        selector=methods.selector.name,
        seed=methods.seed,
        environment=environment,
        hashes=problem.hashes,
        command=command,
        seconds=time.monotonic() - began,
        peak_bytes=resident_peak(),
    )
    model = taken.model if taken else copy.deepcopy(problem.task.original)
    return Found(model, report, suspects, _moved(problem, shown.says if shown else problem.says))


def _scored(problem: Problem, measures: Sequence[str], model: nn.Module) -> Score:
    """Return what the selector asks for, and the validation accuracy, which the limits ask for."""
    bad, was = problem.task.identified, problem.says.train.predicted
    wanted = dict.fromkeys((*measures, "validation_accuracy"))
    return score_of(model, problem.task, was[bad], tuple(wanted))


def _tried(
    problem: Problem,
    chosen: Chosen,
    methods: Methods,
    observer: Observer,
    floor: float,
    over: Callable[[], bool],
    tell: Tell,
) -> Candidate:
    """Return what a method makes of the original: its whole grid, and the selector's choice within the limits."""
    several = len(chosen.points) > 1

    def progress(done: int, total: int) -> None:
        tell(f"{chosen.name}, this point" if several else chosen.name, done, total)
        if over():
            raise _OutOfTimeError("The budget is spent.")

    seed = derive_seed(methods.seed, "unlearning")
    task = copy.copy(problem.task)
    task.log = Log(progress)
    original = problem.task.original

    def build() -> nn.Module:
        return copy.deepcopy(original)

    put_back = PutBack(observer)
    selector = methods.selector.make()
    # The limits ask for it, whatever the rule measures.
    selector.measures = tuple(dict.fromkeys((*selector.measures, "validation_accuracy")))
    method = Method(chosen.name, chosen.entry.component, task, build, seed, put_back)  # type: ignore[arg-type]
    search = Search(
        chosen,
        selector,
        task,
        chosen.name,
        observer,
        partial(tell, chosen.name),
        method,
        put_back,
        admits=lambda score: score.validation_accuracy is None or score.validation_accuracy >= floor,
        goes_on=lambda: not over(),
    )
    try:
        attempts, selected, model = search.run(lambda _model, _attempt, _logged: None)
    except CellError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, _OutOfTimeError) else error from None
    attempt = attempts[selected]
    says = seen(model, problem.task, partial(tell, f"{chosen.name}, measured"))
    score = Score(**attempt.measured_score)
    about = judged(
        *(chosen.name, says, problem.says, problem.task, problem.classes),
        options=attempt.options,
        attack=problem.attack(model),
        within=search.admits(score),
        score=attempt.score,
        points=len(attempts),
        left_out=len(chosen.points) - len(attempts),
        seconds=_in_all(attempts, method),
        passes=attempt.passes,
        peak_bytes=attempt.peak_bytes,
        layers=touched(problem.task.original, model),
    )
    return Candidate(about, model, says, score)


def _in_all(attempts: Sequence[Any], method: Method) -> float:
    """Return the seconds of a whole grid: what its points share counts once."""
    shared = {key: cost.seconds for key, cost in method.shared_costs().items()}
    own = sum((each.seconds or 0.0) - shared.get(each.state, 0.0) for each in attempts if each.seconds is not None)
    return own + sum(shared.values())


def _moved(problem: Problem, says: Seen, most: int = 24) -> list[tuple[int, str]]:
    """Return the samples whose given label became less likely or likelier by most, bad ones and others."""
    before, after = problem.says.train, says.train
    change = (after.of_label - before.of_label).abs()
    found = []
    for index in change.argsort(descending=True, stable=True)[:most].tolist():
        if float(change[index]) == 0:
            break
        was, now = (problem.classes[int(each.predicted[index])] for each in (before, after))
        label = problem.classes[int(problem.task.train.labels[index])]
        name = problem.names[index] if problem.names else str(problem.position(index))
        listed = "on the list, " if bool((problem.task.identified == index).any()) else ""
        found.append((index, f"{name}, {listed}labelled {label}: {was} → {now}"))
    return found
