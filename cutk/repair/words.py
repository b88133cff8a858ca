"""The verdict on a repair, and what no repair can know, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from cutk.repair.records import Judged, Limits
from cutk.repair.verdict import Status, lagging, percent, points, told_classes

__all__ = ["cannot_be_known", "verdict_of"]

# Of the bad samples that the original predicts as labelled, so many have to be predicted otherwise.
_REPAIRED, _HELPED = 0.5, 0.1


def verdict_of(
    original: Judged, candidates: Sequence[Judged], taken: Judged | None, limits: Limits, stands_in: bool
) -> tuple[Status, str]:
    """Return what a repair comes to: a status, and a sentence or two."""
    if original.as_labelled.count == 0:
        return "not repaired", (
            "Nothing to repair: the original predicts none of the bad samples as labelled. Does the list name the "
            "samples that were meant?"
        )
    if taken is None:
        return "not repaired", _nothing(candidates, limits)
    # Others may get their given label by it.
    more = taken.as_labelled.count - (original.as_labelled.count - taken.no_longer)
    done = (taken.no_longer - more) / taken.counted
    measured = "accuracy on training samples" if stands_in else "validation accuracy"
    accuracy = ""
    if original.validation and taken.validation:
        accuracy = f", {measured} {100 * original.validation.value:.1f} → {taken.validation.percent}"
    facts = f"{taken.no_longer} of {taken.counted} bad samples are no longer predicted as labelled"
    facts += f" ({more} {'other is' if more == 1 else 'others are'} by now){accuracy}" if more > 0 else accuracy
    if original.attack and taken.attack:
        facts += (
            f", the suspected trigger works on {original.attack.percent} → {taken.attack.percent} of validation images"
        )
    if done < _HELPED:
        return "not repaired", f"Not repaired: {taken.name} was best, and only {facts}."
    concerned = _concerned(original, taken)
    behind = None if stands_in else lagging(original.classes, taken.classes, concerned)
    if behind is not None:
        was, now, rest = behind
        which = f"{told_classes(concerned)} ({percent(now.value)} right, {percent(rest.value)} of the other classes)"
        if was.high < rest.low and now.low <= was.high:
            return "not repaired", (
                f"Not repaired: {facts}, but validation samples of {which} are no better predicted than before "
                f"({percent(was.value)}). The damage is still there."
            )
        return "in part", f"{taken.name} repairs it in part: {facts}; validation samples of {which} lag behind."
    if original.attack and taken.attack and taken.attack.value > original.attack.value / 2:
        return "in part", f"{taken.name} repairs it in part: {facts}. The trigger still works."
    if done < _REPAIRED:
        return "in part", f"{taken.name} repairs it in part: {facts}."
    return "repaired", f"{taken.name} repairs it: {facts}."


def _concerned(original: Judged, taken: Judged) -> list[str]:
    """Return the classes that the bad samples were mostly predicted as: those that the manipulation is about."""
    total = sum(original.predictions.values())
    return [name for name, count in original.predictions.items() if count >= 0.1 * total and name in taken.classes]


def _nothing(candidates: Sequence[Judged], limits: Limits) -> str:
    if not candidates:
        return "Not repaired: no method gave a model."
    within = [one for one in candidates if one.within]
    loss = f"{points(limits.max_accuracy_loss)} of accuracy"
    best = max(within or candidates, key=lambda one: one.no_longer)
    if not within:
        return (
            f"Nothing helped: no candidate loses at most {loss}. {best.name}, beyond that, would have "
            f"{best.no_longer} of {best.counted} bad samples predicted otherwise."
        )
    return (
        f"Nothing helped: of the candidates within {loss}, {best.name} does most, and has {best.no_longer} of "
        f"{best.counted} bad samples predicted otherwise; the rule prefers the original."
    )


def cannot_be_known(stands_in: bool) -> list[str]:
    """Return what no report on a user's own model can tell."""
    found = [
        "There is no gold model: nobody trained this network without the bad samples, so how far the repair is from "
        "that can't be told. Training anew without them is the only measure.",
        "α, the part of the bad samples that is on the list, is unknown. Undetected bad samples may remain in the "
        "data, and their effect in the model.",
        "That a bad sample is no longer predicted as labelled says that the model gave up that label, and not that "
        "its new prediction is right.",
        "Whether a hidden trigger still works on new samples can only be measured with the trigger. Validation "
        "samples without it look right before and after.",
        "The candidates were chosen by what is measured here, so these numbers are somewhat flattering.",
    ]
    if stands_in:
        found.insert(
            0,
            "No validation samples were given. Training samples that aren't on the list stand in for them; the "
            "original knows these by heart, so their accuracy says little about new samples.",
        )
    return found
