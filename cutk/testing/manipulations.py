"""What is checked of a manipulation, on random samples: grey and coloured images, feature vectors, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutk.components import Corruption
from cutk.data.samples import Samples, Splits, told
from cutk.data.triggers import Trigger
from cutk.errors import UsageError, reason
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import NotJudged, Unmet, check
from cutk.testing.states import difference
from cutk.testing.tiny import FORMS, TinySurrogate, scenario_of, tiny_samples

__all__ = ["CHECKS", "SUBJECT", "TriedManipulation"]

# So many samples show whether a trigger is the same for each of them.
_SHOWN = 24


@dataclass(frozen=True)
class _Outcome:
    """What came of samples of one kind: a corruption, or why they were refused, or what went wrong otherwise."""

    clean: Samples
    corruption: Any = None
    refusal: str = ""
    failure: str = ""


def _lay(trigger: Trigger, samples: Samples) -> Tensor:
    return trigger.apply(samples.x.clone(), samples.labels.clone(), samples.ids.clone())


class TriedManipulation(Subject):
    """A manipulation and what it does to 300 samples in 10 classes, of each of several kinds."""

    def corrupt(self, kind: str) -> _Outcome:
        """Let it work on fresh samples."""
        clean = tiny_samples(kind)
        surrogate = (TinySurrogate(),) if self.component.trains else ()
        try:
            corruption = self.make().corrupt(clean, torch.Generator().manual_seed(0), *surrogate)
        except UsageError as error:
            return _Outcome(clean, refusal=str(error))
        except Exception as error:
            return _Outcome(clean, failure=reason(error))
        return _Outcome(clean, corruption)

    def work(self) -> dict[str, _Outcome]:
        """Let it work on samples of each kind."""
        return {kind: self.corrupt(kind) for kind in FORMS}

    def decided(self, result: dict[str, _Outcome]) -> Any:
        """Return all that a corruption says and does."""
        found: dict[str, Any] = {}
        for kind, outcome in result.items():
            done = outcome.corruption
            if done is None:
                continue
            affected = done.affected(outcome.clean) if callable(done.affected) else done.affected
            laid = [(indices, _lay(trigger, done.train.select(indices))) for trigger, indices in done.overlays]
            unseen = None if done.trigger is None else _lay(done.trigger, outcome.clean)
            told = (done.train, done.manipulated, done.targets, done.clean_labels)
            found[f"{kind} samples"] = (*told, affected, laid, unseen)
        return found

    @property
    def outcomes(self) -> Iterator[tuple[str, Samples, Corruption]]:
        """Each kind of samples that it takes, a clean copy of them, and what it did."""
        for kind, outcome in self.first.result.items():
            if outcome.corruption is not None:
                yield kind, tiny_samples(kind), outcome.corruption

    @property
    def triggers(self) -> Iterator[tuple[str, Trigger, Samples]]:
        """Each trigger that it lays over training or unseen samples, and some samples under their clean labels."""
        for kind, clean, done in self.outcomes:
            for trigger, indices in done.overlays:
                known = indices[indices < len(clean)]
                yield f"the overlay on {kind} samples", trigger, clean.select(known[:_SHOWN])
            if done.trigger is not None:
                yield f"the trigger on {kind} samples", done.trigger, clean.select(torch.arange(_SHOWN))


@check(
    "Return a cutk.Corruption, and choose defaults that suit 300 samples in 10 classes (parts and not numbers, say), "
    "or give options=. For samples that it can't work on, raise cutk.UsageError.",
    essential=True,
)
def samples_are_manipulated(subject: TriedManipulation) -> str | None:
    """corrupt() returns a cutk.Corruption for some kind of samples: images, features or tokens."""
    outcomes = subject.first.result
    for kind, outcome in outcomes.items():
        if FORMS[kind] == "images" and outcome.failure:
            raise Unmet(f"{kind} images: {outcome.failure}")
        if outcome.corruption is not None and not isinstance(outcome.corruption, Corruption):
            raise Unmet(f"for {kind} samples it returned {type(outcome.corruption).__name__}")
    taken = [kind for kind, outcome in outcomes.items() if outcome.corruption is not None]
    if not taken and all(outcome.refusal for outcome in outcomes.values()):
        raise NotJudged(f"it refuses all samples: {outcomes['grey'].refusal}")
    if not taken:
        raise Unmet("; ".join(f"{kind} samples: {o.refusal or o.failure or 'None'}" for kind, o in outcomes.items()))
    return None if len(taken) == len(FORMS) else f"it takes {' and '.join(taken)} samples alone"


@check("Begin corrupt() with train.require('images', 'my-name'), or do without width, height and pixels.")
def what_it_cannot_take_is_refused(subject: TriedManipulation) -> None:
    """Images, features and tokens are manipulated, or refused with a UsageError and not with an error from within."""
    for kind, outcome in subject.first.result.items():
        if outcome.failure or (outcome.corruption is None and not outcome.refusal):
            raise Unmet(f"{kind} samples: {outcome.failure or 'it returned None'}")


@check(
    "Return cutk.Corruption(train.changed(x=…, labels=…), manipulated), or train.extended(…) for samples that are "
    "added: manipulated lists, sorted and once each, all that were changed, overlaid or added; targets has a class for "
    "each class, −1 for none; affected is a tuple of classes or a function from samples to bool [n].",
    essential=True,
)
def benchmark_accepts_it(subject: TriedManipulation) -> None:
    """The benchmark can build a scenario on it: indices, targets, labels and affected test samples fit each other."""
    for kind, clean, _ in subject.outcomes:
        with subject.apart():
            scenario = scenario_of(Splits(train=clean, test=tiny_samples(kind, 100)), subject.make())
            scenario.fingerprint()
            if len(scenario.truth.affected) == 0:
                raise Unmet(f"no {kind} test sample is affected")


@check("Work on copies, train.labels.clone() and train.x.clone(): the given samples are the evaluator's.")
def given_samples_are_untouched(subject: TriedManipulation) -> None:
    """The samples that corrupt() is given stay as they are, whether it takes them or not."""
    for kind, outcome in subject.first.result.items():
        if found := difference(tiny_samples(kind), outcome.clean, f"{kind} samples"):
            raise Unmet(f"it writes to {found}")


def _differing(clean: Samples, done: Corruption) -> Tensor:
    """Return which training samples have other contents or another label than before, or are new: bool ``[N]``."""
    count = len(clean)
    differing = torch.ones(len(done.train), dtype=torch.bool)
    contents = (done.train.x[:count] != clean.x).flatten(1).any(1)
    differing[:count] = contents | (done.train.labels[:count] != clean.labels)
    return differing


@check("Put the index of every sample that you change into manipulated: what isn't there counts as clean.")
def nothing_else_is_changed(subject: TriedManipulation) -> None:
    """Samples that are not said to be manipulated keep their contents and their labels."""
    for _, clean, done in subject.outcomes:
        differing = _differing(clean, done)
        differing[done.manipulated] = False
        if others := differing.nonzero().flatten().tolist():
            raise Unmet(f"sample {others[0]} differs, and isn't in manipulated ({len(others)} such samples)")


@check("Leave out of manipulated what stays as it was, by drawing from the samples that the manipulation changes.")
def every_manipulated_sample_is_changed(subject: TriedManipulation) -> None:
    """Each sample that is said to be manipulated has other contents, another label, or an overlay, or was added."""
    for _, clean, done in subject.outcomes:
        differing = _differing(clean, done)
        for _, indices in done.overlays:
            differing[indices] = True
        same = done.manipulated[~differing[done.manipulated]]
        if len(same):
            raise Unmet(f"sample {int(same[0])} is in manipulated and as it was ({len(same)} such samples)")


@check("Give clean_labels only where samples are added: the given samples' own labels, and behind them −1 or a label.")
def clean_labels_are_true(subject: TriedManipulation) -> None:
    """The clean labels that it tells of the given samples are the ones that these had."""
    for kind, clean, done in subject.outcomes:
        if done.clean_labels is None:
            continue
        known = done.clean_labels[: len(clean)]
        if ((known != clean.labels) & (known >= 0)).any() or not int(done.clean_labels.min()) >= -1:
            raise Unmet(f"of {kind} samples it tells other labels than they had")


@check(
    "Return from apply() as many samples as came, in their shape and dtype (images may become float32), and choose a "
    "trigger that can be seen in them."
)
def triggers_fit_the_samples(subject: TriedManipulation) -> None:
    """Overlays and trigger, if there are any, keep shape and dtype, and change the samples."""
    tried = 0
    for what, trigger, samples in subject.triggers:
        laid, tried = _lay(trigger, samples), tried + 1
        brighter = samples.form == "images" and laid.dtype == torch.float32
        if laid.shape != samples.x.shape or not (brighter or laid.dtype == samples.x.dtype):
            raise Unmet(f"{what}: for {told(samples.x)} it returns {told(laid)}")
        if torch.equal(laid.to(samples.x.dtype), samples.x):
            raise Unmet(f"{what} changes none of {len(samples)} samples")
    if not tried:
        raise NotJudged("it lays nothing over samples")


@check("Return a new tensor from apply(): x.clone(), torch.where(…), or arithmetic that isn't in place.")
def triggers_leave_their_input(subject: TriedManipulation) -> None:
    """apply() writes neither to the samples that it is given nor to their labels and ids."""
    for what, trigger, samples in subject.triggers:
        given = samples.x.clone(), samples.labels.clone(), samples.ids.clone()
        trigger.apply(*given)
        if found := difference((samples.x, samples.labels, samples.ids), given, "x, labels, ids"):
            raise Unmet(f"{what} writes to its arguments ({found})")


@check(
    "Compute apply() for each sample by itself, from x, its label and its id. Draw what is random once, in corrupt(), "
    "or in apply() from a generator that is seeded with the sample's id."
)
def triggers_are_deterministic(subject: TriedManipulation) -> None:
    """A sample looks the same under a trigger at every call, whatever else is in the batch."""
    for what, trigger, samples in subject.triggers:
        with subject.apart(1):
            whole = _lay(trigger, samples)
        with subject.apart(2):
            again, order = _lay(trigger, samples), torch.arange(len(samples)).flip(0)
            turned = _lay(trigger, samples.select(order))[order]
            alone = torch.cat([_lay(trigger, samples.select(index[None])) for index in order.flip(0)])
        if not torch.equal(whole, again):
            raise Unmet(f"{what} is another the second time")
        # Sums may be rounded otherwise in a batch of another size, and a pixel's value with them.
        slack = 1.0 if samples.form == "images" else 1e-5
        for other, how in ((turned, "in another order"), (alone, "each by itself")):
            if not torch.allclose(whole.double(), other.double(), atol=slack):
                raise Unmet(f"{what} is another for the same samples {how}")


SUBJECT = TriedManipulation
CHECKS = all_checks(globals())
