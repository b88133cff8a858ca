"""From a model, its data and a list of bad samples to a repaired model and a report: the search that bench runs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from cutk.chance import derive_seed
from cutk.components import Score
from cutk.cost import resident_peak
from cutk.errors import Caught, CellError
from cutk.machine import describe_machine
from cutk.problem.task import Log, Suspicion
from cutk.repair.judging import Seen, judged, seen, touched
from cutk.repair.keeping import Candidate, Kept
from cutk.repair.problem import Methods, Problem, Tell
from cutk.repair.records import Judged, RepairReport, Suspect
from cutk.repair.suspects import detected, suspects_of
from cutk.repair.verdict import STATUSES, Status
from cutk.repair.words import cannot_be_known, verdict_of
from cutk.run.choice import choice_of, value_of
from cutk.run.chosen import Chosen
from cutk.run.method import Method
from cutk.run.observer import Observer, PutBack
from cutk.run.records import Environment
from cutk.run.search import Search, keeping, score_of

__all__ = ["Found", "repair"]


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
    value_of(selector, score)  # a rule that can't judge the original is told before hours of work
    floor = (score.validation_accuracy or 0.0) - limits.max_accuracy_loss - 1e-9
    candidates: list[Candidate] = []
    failed: dict[str, str] = {}
    unranked = ""
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
    judgements = [one.judged for one in candidates]

    def verdict_on(taken: Judged | None) -> tuple[Status, str]:
        return verdict_of(problem.original, judgements, taken, limits, problem.stands_in)

    # A rule that looks at bad samples may prefer a model that heals nothing to one that does: the verdict comes first.
    ranks = [STATUSES.index(verdict_on(one)[0]) if one.within else math.inf for one in judgements]
    best = min(ranks, default=0)
    scores = [one.score if rank == best < math.inf else None for one, rank in zip(candidates, ranks, strict=True)]
    position = choice_of(selector, [score, *scores])
    taken = candidates[position - 1] if position else None
    status, verdict = verdict_on(taken.judged if taken else None)
    shown = taken or max(candidates, key=lambda one: (one.judged.within, one.judged.score or 0.0), default=None)
    suspects: list[Suspect] | None = None
    if methods.detector is not None:
        with Caught() as caught:
            says, progress = shown.says if shown else None, partial(tell, methods.detector.name)
            suspects = detected(problem, methods.detector, methods.seed, says, progress)
        if caught.error is not None:
            observer.error(caught.error)
            unranked = f"{methods.detector.name} ranked no suspects: {caught.reason}"
    if suspects is None:
        helped = status != "not repaired"
        suspects = suspects_of(problem, shown, taken=helped) if shown else []
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
        unranked=unranked,
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

    spent = False

    def progress(done: int, total: int) -> None:
        nonlocal spent
        tell(f"{chosen.name}, this point" if several else chosen.name, done, total)
        if over():
            spent = True
            raise _OutOfTimeError("The budget is spent.")

    if several:
        tell(chosen.name, 0, len(chosen.points))  # so that its clock runs from the first point on
    seed = derive_seed(methods.seed, "unlearning")
    task = copy.copy(problem.task)
    task.log = Log(progress)
    original = problem.task.original

    def build() -> nn.Module:
        return copy.deepcopy(original)

    suspected: list[Suspicion | None] = []  # on the way to the model that is selected
    put_back = PutBack(observer)
    selector = methods.selector.make()
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
        admits=keeping(floor, selector),
        goes_on=lambda: not over(),
    )
    try:
        attempts, selected, model = search.run(lambda _model, _attempt, logged: suspected.append(logged.suspicion))
    except CellError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, _OutOfTimeError) else error from None
    attempt = attempts[selected]
    tried = len(attempts) - (spent and bool(attempts[-1].error))  # no other follows one that is cut off
    says = seen(model, problem.task, partial(tell, f"{chosen.name}, measured"))
    score = Score(**attempt.measured_score)
    about = judged(
        *(chosen.name, says, problem.says, problem.task, problem.classes, problem.calls),
        options=attempt.options,
        within=search.admits(score),
        score=attempt.score,
        points=tried,
        left_out=len(chosen.points) - tried,
        seconds=_in_all(attempts, method),
        passes=attempt.passes,
        peak_bytes=attempt.peak_bytes,
        layers=touched(problem.task.original, model),
        **problem.attack(model),
    )
    return Candidate(about, model, says, score, suspected[-1])


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
