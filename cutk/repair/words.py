"""The verdict on a repair, and what no repair can know, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from cutk.repair.records import Confusion, Judged, Limits
from cutk.repair.verdict import Proportion, Status, improved, lagging, percent, points, told_classes, wilson

__all__ = ["cannot_be_known", "verdict_of"]

# Of the bad samples that the original predicts as labelled, so many have to be predicted otherwise.
_REPAIRED, _HELPED = 0.5, 0.1
# Validation samples of some classes are taken for another one so often by any network, and what more can be damage.
_USUAL = 0.05
# So many more mistakes are damage that validation samples have to exclude.
_OPEN = 0.3
# Nobody is asked for more of them than that.
_MOST = 1000


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
    facts = _facts(original, taken, max(0, more), stands_in)
    if done < _HELPED:
        return "not repaired", f"Not repaired: {taken.name} was best, and only {facts}."
    left, why = _left(original, taken)
    if left == "not repaired":
        return left, f"Not repaired: {facts}{why}."
    if left == "in part" or done < _REPAIRED:
        return "in part", f"{taken.name} repairs it in part: {facts}{why}."
    return "repaired", f"{taken.name} repairs it: {facts}{why}."


def _facts(original: Judged, taken: Judged, more: int, stands_in: bool) -> str:
    found = f"{taken.no_longer} of {taken.counted} bad samples are no longer predicted as labelled"
    if more:
        found += f" ({more} {'other is' if more == 1 else 'others are'} by now)"
    if original.validation and taken.validation:
        measured = "accuracy on training samples" if stands_in else "validation accuracy"
        found += f", {measured} {100 * original.validation.value:.1f} → {taken.validation.percent}"
    if original.attack and taken.attack:
        found += (
            f", the suspected trigger works on {original.attack.percent} → {taken.attack.percent} of validation images"
        )
    return found


def _left(original: Judged, taken: Judged) -> tuple[Status, str]:
    """Return what validation samples say of the damage, whatever became of the bad ones, and how it goes on to say."""
    stopped = works = False
    if original.attack and taken.attack:
        works = taken.attack.value > original.attack.value / 2
        stopped = not works and original.attack.count > 0
    before, now, more = original.confusion, taken.confusion, ""
    # Where a trigger worked and doesn't any more, that was the damage, and classes may be hard to tell apart.
    if before and now and original.validation and taken.validation and _shows(before, before.others) and not stopped:
        more = f"; validation samples of {_compared(before, now)}"
        if not improved(now.righted, now.wronged):
            told = f"as far as {now.right.of} samples tell"
            return "not repaired", f"{more} are no better predicted than before, {told}: the damage is still there"
        if taken.validation.count <= original.validation.count:
            return "not repaired", f"{more} gain no more than others lose"
        if _shows(now, before.others) or not _halved(before, now):
            return "in part", f"{more} lag behind"
    elif now is not None:
        concerned = _concerned(original, taken)
        behind = lagging(original.classes, taken.classes, concerned)
        if behind is not None and behind[0].value > behind[1].high:
            was, worse, rest = behind
            return "in part", (
                f"; validation samples of {told_classes(concerned)} got worse ({percent(was.value)} → "
                f"{worse.percent} right, {rest.percent} of the other classes)"
            )
        if not stopped and _open(now):
            few = f"{now.right.of} validation samples of {told_classes(now.classes)}"
            enough = _enough(now)
            how_many = f": about {enough} would do" if enough else ""
            return "in part", f"; {few} are too few to tell whether the damage is gone{how_many}"
    return ("in part", f"{more}; the trigger still works") if works else ("repaired", more)


def _shows(learnt: Confusion, others: Proportion | None) -> bool:
    """Say whether validation samples are taken for what the bad ones were labelled as, more than others were wrong."""
    return learnt.mistaken.low > (_USUAL if others is None else 1 - others.low)


def _excluded(learnt: Confusion) -> float:
    """Return from which part of mistaken validation samples on it is damage that they have to exclude."""
    return (_USUAL if learnt.others is None else 1 - learnt.others.value) + _OPEN


def _open(learnt: Confusion) -> bool:
    """Say whether so few validation samples could miss damage."""
    return learnt.mistaken.high > _excluded(learnt)


def _enough(learnt: Confusion) -> int | None:
    """Return how many validation samples would exclude it if the same part of them were mistaken, if any would."""
    share, least = learnt.mistaken.value, learnt.mistaken.of + 1
    found = (n for n in range(least, _MOST) if wilson(share * n, n)[1] <= _excluded(learnt))
    return next(found, None)


def _halved(before: Confusion, now: Confusion) -> bool:
    """Say whether what the bad samples' classes lie behind is at most half of what it was."""
    best = before.others.value if before.others else 1.0
    return best - now.right.value <= (best - before.right.value) / 2


def _compared(before: Confusion, now: Confusion) -> str:
    others = f", {now.others.percent} of the other classes" if now.others else ""
    return f"{told_classes(now.classes)} ({percent(before.right.value)} → {now.right.percent} right{others})"


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
