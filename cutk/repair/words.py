"""The verdict on a repair, and what no repair can know, in plain words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cutk.repair.records import Confusion, Judged, Limits, RepairReport
from cutk.repair.verdict import Proportion, Status, improved, lagging, percent, points, told_classes, wilson

__all__ = ["cannot_be_known", "undecided", "verdict_of"]

# Of the bad samples that the original predicts as labelled, so many have to be predicted otherwise.
_REPAIRED, _HELPED = 0.5, 0.1
# Validation samples of some classes are taken for another one so often by any network, and what more can be damage. A
# trigger may add so much, too, and counts as gone.
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
        return "not repaired", f"Not repaired: '{taken.name}' was best, and only {facts}."
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
        images = "training images that aren't listed" if stands_in else "validation images"
        found += f", the suspected trigger works on {original.attack.percent} → {taken.attack.percent} of {images}"
        if taken.attack_without:
            found += (
                f" (without it {original.attack_without.percent} → " if original.attack_without else " (without it "
            )
            found += f"{taken.attack_without.percent})"
    return found


def _left(original: Judged, taken: Judged) -> tuple[Status, str]:
    """Return what validation samples say of the damage, whatever became of the bad ones, and how it goes on to say."""
    worked, works = _works(original), _works(taken)
    stopped = worked is True and works is False
    before, now, more = original.confusion, taken.confusion, ""
    # Where a trigger worked and doesn't any more, that was the damage, and classes may be hard to tell apart.
    if before and now and original.validation and taken.validation and _shows(before, before.others) and not stopped:
        more = f"; validation samples of {_compared(before, now)}"
        if not improved(now.righted, now.wronged):
            if now.righted > now.wronged:
                said = f"are somewhat better predicted, and of {now.right.of} samples that isn't beyond chance"
                shows = _shows(now, before.others)
                left = "the damage is still there, or a part" if shows else "whether the damage is gone can't be told"
                return "not repaired", f"{more} {said}: {left}"
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
            how_many = _enough(now.mistaken, _excluded(now))
            return "in part", f"; {few} are too few to tell whether the damage is gone{how_many}"
    if works:
        return "in part", f"{more}; the trigger {'still works' if worked else 'works now'}"
    if works is None and taken.attack is not None:
        few = f"{taken.attack.of} images are too few to tell whether the trigger {'is gone' if worked else 'works'}"
        return "in part", f"{more}; {few}{_enough(taken.attack, _usual(taken) + _OPEN)}"
    return "repaired", more


def _usual(one: Judged) -> float:
    """Return which part of the samples that a trigger is laid over is taken for its class without it, too."""
    return one.attack_without.value if one.attack_without else 0.0


def _works(one: Judged) -> bool | None:
    """Say whether a suspected trigger works, None where so few samples can't tell; one that isn't suspected doesn't.

    It does where it adds more than ``_USUAL`` to what is taken for its class without it, and more than chance.
    """
    if one.attack is None:
        return False
    alone = one.attack_alone if one.attack_without else one.attack.count
    undone = one.attack_without.count - (one.attack.count - alone) if one.attack_without else 0
    if one.attack.value - _usual(one) > _USUAL and improved(alone, undone):
        return True
    return None if one.attack.high > _usual(one) + _OPEN else False


def _shows(learnt: Confusion, others: Proportion | None) -> bool:
    """Say whether validation samples are taken for what the bad ones were labelled as, more than others were wrong."""
    return learnt.mistaken.low > (_USUAL if others is None else 1 - others.low)


def _excluded(learnt: Confusion) -> float:
    """Return from which part of mistaken validation samples on it is damage that they have to exclude."""
    return (_USUAL if learnt.others is None else 1 - learnt.others.value) + _OPEN


def _open(learnt: Confusion) -> bool:
    """Say whether so few validation samples could miss damage."""
    return learnt.mistaken.high > _excluded(learnt)


def _enough(part: Proportion, excluded: float) -> str:
    """Say how many samples would exclude so large a proportion if this one stayed what it is; nothing if none would."""
    enough = (n for n in range(part.of + 1, _MOST) if wilson(part.value * n, n)[1] <= excluded)
    return "".join(f": about {n} would do" for n in itertools.islice(enough, 1))


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
            f"Nothing helped: no candidate loses at most {loss}. '{best.name}', beyond that, would have "
            f"{best.no_longer} of {best.counted} bad samples predicted otherwise."
        )
    return (
        f"Nothing helped: of the candidates within {loss}, '{best.name}' does most, and has {best.no_longer} of "
        f"{best.counted} bad samples predicted otherwise; the rule prefers the original."
    )


def undecided(report: RepairReport) -> bool:
    """Say whether a candidate seems to undo damage, and more validation samples could tell whether that is chance."""
    before = report.original.confusion
    if report.repaired or before is None or not _shows(before, before.others):
        return False
    learnt = [one.confusion for one in report.candidates if one.within and one.confusion]
    return any(one.righted > one.wronged and not improved(one.righted, one.wronged) for one in learnt)


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
