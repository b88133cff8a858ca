"""Seeded expansion and complementary learning."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.looking import Outputs, alternatives
from cutk_builtin.seeded import Posterior, suspected, transition

# What so many of the last layers with weights are given are features: what tells apart classes that the labels confuse
# is lost in the last of them, and still there before.
LAYERS = 3


@torch.no_grad()
def views(
    model: nn.Module, recipe: cutk.Recipe, train: cutk.TrainSet, among: Tensor | None = None, visits: int = 1
) -> list[Outputs]:
    """Return what ``model`` says of samples, with the inputs of its last ``LAYERS`` layers as features, in turn.

    Those that aren't ``among`` them (int64 ``[n]``; all, if not given) are not looked at, and have zeros. Of places or
    tokens, features are the means and the largest values. Where no layer can be watched, logits are features.
    Everything is the mean over ``visits``, of which the first sees samples as they are, and the others augmented ones;
    where nothing is augmented one is enough.
    """
    given = deque[Tensor](maxlen=LAYERS)  # of a deep network not everything fits

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        given.extend(x for x in inputs[:1] if isinstance(x, Tensor) and x.ndim > 1 and x.is_floating_point())

    handles = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.Linear) or (module is not model and _has_weights(module))
    ]
    model.eval()
    sums: list[Tensor] = []
    count = visits if train.augments else 1
    try:
        for visit in range(count):
            parts: list[list[Tensor]] = []
            for batch in train.batches(among, augment=visit > 0):
                given.clear()
                with recipe.autocast():
                    logits = model(batch.x).float()
                parts.append([*(pooled(x) for x in given if len(x) == len(logits)), logits])
            found = [torch.cat(column) for column in zip(*parts, strict=True)]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    finally:
        for handle in handles:
            handle.remove()
    if among is not None:
        sums = [part.new_zeros(len(train), part.shape[1]).index_copy(0, among.to(part.device), part) for part in sums]
    *features, logits = [total / count for total in sums]
    return [Outputs(part, logits) for part in features or [logits]]


def concerned(task: cutk.Task) -> Tensor:
    """Return which samples may be bad, int64 ``[n]``, on the CPU: those under a label that occurs in S_f."""
    labels = task.train.labels.cpu()
    return torch.isin(labels, labels[task.identified.cpu()]).nonzero().flatten()


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters(recurse=False))


def pooled(given: Tensor) -> Tensor:
    """Return a layer's input as float32 ``[B, d]``: means over places or tokens, and the largest values there.

    Args:
        given: float ``[B, d]``, tokens ``[B, L, d]``, or places ``[B, d, …]``.
    """
    if given.ndim == 2:
        return given.float()
    there = given.float().transpose(1, 2) if given.ndim == 3 else given.float().flatten(2)
    return torch.cat([there.mean(2), there.amax(2)], 1)


def otherwise(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return how likely each sample is another class than its label says: Σ W_k p_k / (p_y + Σ W_k p_k), ``[B]``.

    Args:
        logits: float32 ``[B, classes]``.
        labels: int64 ``[B]``.
        weights: W, float32 ``[B, classes]``, 0 for the label itself.
    """
    log_p = logits.log_softmax(1)
    return torch.sigmoid(-complementary_loss(logits, weights) - log_p.gather(1, labels[:, None])[:, 0])


def agreed(one: Tensor, other: Tensor) -> Tensor:
    """Return the probabilities whose odds are the geometric means of two guesses', float32 ``[n]`` each.

    A network that learned from a guess is sure of it where the guess was wrong as well, and a probe knows less of what
    it is sure of. Guesses count as within 1e-6 and 1 − 1e-6.

    >>> [round(q, 4) for q in agreed(torch.tensor([0.9, 0.5]), torch.tensor([0.9, 0.8])).tolist()]
    [0.9, 0.6667]
    """
    exact = torch.float32 if one.device.type == "mps" else torch.float64  # which has no others
    odds = [guess.to(exact).clamp(1e-6, 1 - 1e-6).logit() for guess in (one, other)]
    return torch.sigmoid((odds[0] + odds[1]) / 2).float()


class Suspicion(NamedTuple):
    """How likely each sample is bad.

    Under a label where the probe was told of no clean samples that are representative, it learned from its own guesses,
    and isn't heard beside a model.
    """

    q: Tensor  # float32 [N], as it counts
    probed: Tensor  # float32 [N], as the probe alone says
    heard: Tensor  # bool [N], whether that is heard beside a model

    def beside(self, own: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        """Return the guess from what a model says of the samples ``at``, float32 ``[n]``, and from the probe's."""
        return torch.where(self.heard[at], agreed(own, self.probed[at]), own)


def weighted(logits: Tensor, weight: Tensor) -> Tensor:
    """Return ``logits`` ``[B, classes]`` whose gradients, sample by sample, are ``weight`` (``[B]``) times as large.

    So a loss that is a mean over samples, whichever it is, descends as if its terms were weighted.
    """
    fixed = logits.detach()
    return fixed + weight[:, None] * (logits - fixed)


def complementary_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """Return −log Σ_k W_k p_k of each sample: float32 ``[B]``, of logits and weights ``[B, classes]``.

    A weight of 0 excludes a class; each sample has a class with another one.
    """
    return torch.logsumexp(logits, 1) - torch.logsumexp(logits + weights.clamp(min=1e-12).log(), 1)


def likeliest(logits: Tensor, weights: Tensor) -> Tensor:
    """Return each sample's class k with the largest W_k p_k: int64 ``[B]``, of logits and weights ``[B, classes]``.

    A weight of 0 excludes a class, however likely it is; each sample has a class with another one.

    >>> likeliest(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.1, 1.0]])).tolist()
    [2]
    """
    return (logits.detach() + weights.log()).argmax(1)


@torch.no_grad()
def shrunk(model: nn.Module, fresh: nn.Module, kept: float) -> nn.Module:
    """Return ``fresh`` with kept · θ + (1 − kept) · θ_fresh as its parameters: what ``model`` learned, faded."""
    for old, new in zip(model.parameters(), fresh.parameters(), strict=True):
        new.lerp_(old, kept)
    return fresh


# Returns q of the samples in a step's batch, float32 ``[B]``, given what the model says of them.
Suspected: TypeAlias = Callable[[Tensor, cutk.Batch], Tensor]


def unchanging(q: Tensor) -> Suspected:
    """Return what says of each sample what ``q`` says, float32 ``[N]``."""
    return lambda _, batch: q[batch.index]


class Following:
    """q during the training after the rounds: from its half on what the model says there, too.

    It is what the model said of a sample when it last saw it, and the probe beside it, taken over once in every pass;
    for those that are ``asked`` for.
    """

    def __init__(
        self, suspicion: Suspicion, asked: Tensor, weights: Tensor, steps: int, once: int, device: torch.device
    ) -> None:
        self._q, self._weights, self._asked = suspicion.q.to(device, copy=True), weights.to(device), asked.to(device)
        self._said = self._q.clone()
        self._suspicion = suspicion._replace(probed=suspicion.probed.to(device), heard=suspicion.heard.to(device))
        self._half, self._once, self._done = steps // 2, once, 0

    def __call__(self, logits: Tensor, batch: cutk.Batch) -> Tensor:
        """Return q of the samples in a step's batch, float32 ``[B]``, and note what the model says of them."""
        if self._done >= self._half and (self._done - self._half) % self._once == 0:
            self._q.copy_(torch.where(self._asked, self._said, self._q))
        own = otherwise(logits.detach(), batch.y, self._weights[batch.y])
        self._said[batch.index] = self._suspicion.beside(own, batch.index)
        self._done += 1
        return self._q[batch.index]


def correcting(task: cutk.Task, q: Suspected, weights: Tensor, *, open_too: bool) -> cutk.Loss:
    """Return step 4's loss: as far as q says, a sample's label is wrong, and a class that W weighs is right instead.

    Suspects whose class is open learn that it is another one, if they are ``open_too``, or count for nothing. From M_o,
    which knows what they look like else, they find their class; from faded weights they would be driven anywhere.
    """
    weights = weights.to(task.device)
    counts = torch.ones(len(weights), device=task.device) if open_too else _settled(weights, task.num_classes).float()

    def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
        wrong = q(logits, batch)
        complement = complementary_loss(logits, weights[batch.y]) * counts[batch.y]
        given = task.recipe.loss(weighted(logits, 1 - wrong), batch)
        return given + (wrong * complement).mean()

    return loss


def teaching(task: cutk.Task, q: Suspected, weights: Tensor) -> cutk.Loss:
    """Return A's own loss of the labels and, as far as q says, of the likeliest class that W weighs in place of each.

    The complement would do without: where the recipe smooths labels, it makes a model surer of suspects' classes than
    of other ones, so that it takes images of these for them.
    """
    weights = weights.to(task.device)

    def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
        wrong = q(logits, batch)
        instead = torch.where(wrong > 0, likeliest(logits, weights[batch.y]), batch.y)
        given = task.recipe.loss(weighted(logits, 1 - wrong), batch)
        return given + task.recipe.loss(weighted(logits, wrong), batch._replace(y=instead))

    return loss


class Seal(cutk.Unlearner):
    r"""Finds the rest of what is bad from the part that is known, and learns from it that its labels are wrong.

    In each round every sample gets a probability q of being manipulated: within each given label that occurs in S_f, a
    probe on what the last layers are given tells S_f from samples that are clean under that label, and the one part α
    that S_f is of all of S_m ties the labels' priors to each other. Then M_o is fine-tuned on all of S_tr,
    minimising (1 − q) · loss(y) − q · log Σ_k W_k p_k, where loss is A's own, and W says which classes the suspects of
    label y have instead: what M_o takes them for otherwise if that is mostly one class, else every class but y. From
    the second round on the probe sees the repaired model's features beside M_o's, and where suspects are mostly one
    class, the repaired model itself says how likely each is that, beside the probe where that was told what is clean.

    ``final`` says what comes after the rounds: nothing (``tune``), a part of a training from the weights shrunk towards
    an initialisation (``restart``), or a training from it (``retrain``), both with the last q, that in the second half
    follows what the model says beside the probe. Where W says of all suspects what they are instead, a restart teaches
    them that by A's own loss, at the rate of the rounds. The initialisation is ``Task.fresh``. Knows nothing of the
    kind of manipulation: one setting for all. Costs rounds · passes passes, what comes after, and of the samples whose
    label occurs in S_f two forward passes, and another one for each round.
    """

    name = "seal"
    reference = "cutk"
    variant = "final"

    class Options(cutk.Options):
        """How much may be computed, and how sceptically."""

        rounds: int = cutk.option(1, ge=0, le=100, help="rounds of detection and fine-tuning")
        passes: float = cutk.option(1.0, gt=0, le=1000, help="passes over S_tr in each round")
        lr: float | None = cutk.option(
            None,
            gt=0,
            help="peak learning rate of rounds, and of a restart that teaches suspects; none: half the recipe's",
        )
        final: Literal["tune", "restart", "retrain"] = cutk.option(
            "restart", help="end with the last round's model, a part of a training from faded weights, or a training"
        )
        restart_part: float = cutk.option(0.35, gt=0, le=10, help="what part of a training follows a restart")
        kept: float = cutk.option(
            0.5, ge=0, le=1, help="weight of the last round's weights in those that it starts from"
        )
        penalty: float = cutk.option(20.0, gt=0, help="of the probe's squared weights, divided by how many are bad")
        refinements: int = cutk.option(4, ge=0, le=100, help="how often the probe learns from what it found")
        threshold: float = cutk.option(0.7, ge=0, le=1, help="share from which one class is what suspects have instead")

    def prepare(self, task: cutk.Task) -> list[Outputs]:
        """Ask the original about all samples that may be bad."""
        return views(task.original, task.recipe, task.train, concerned(task), visits=2)

    def unlearn(self, task: cutk.Task, state: list[Outputs] | None = None) -> nn.Module:
        """Return the model that knows better."""
        o = self.options
        seen = self.prepare(task) if state is None else state
        lr = task.recipe.options.lr / 2 if o.lr is None else o.lr
        steps = _steps(task, o.passes)
        model = task.original
        current: list[Outputs] = []
        weights: Tensor | None = None
        for done in range(o.rounds):
            suspicion = self._suspicion(task, seen, current, weights)
            weights = self._transition(task, seen, suspicion.q) if weights is None else weights
            loss = correcting(task, unchanging(suspicion.q.to(task.device)), weights, open_too=True)
            model = self._fit(task, copy.deepcopy(task.original), loss, steps, lr)
            task.log.progress(done + 1, o.rounds + (o.final != "tune"))
            if done + 1 < o.rounds or o.final != "tune":
                current = views(model, task.recipe, task.train, concerned(task))
        if o.final == "tune":
            return model
        suspicion = self._suspicion(task, seen, current, weights)
        weights = self._transition(task, seen, suspicion.q) if weights is None else weights
        part = 1.0 if o.final == "retrain" else o.restart_part
        steps = max(1, round(part * task.recipe.options.steps))
        asked = self._asked(task, weights)
        following = Following(suspicion, asked, weights, steps, _steps(task, 1.0), task.device)
        forgetting = correcting(task, following, weights, open_too=False)
        if o.final == "retrain":
            return task.retrain(torch.arange(len(task.train)), loss=forgetting)
        start = shrunk(model, task.fresh(), o.kept)
        # Suspects that have no class instead are to be forgotten, which takes the full rate; others are taught theirs.
        found = task.train.labels.cpu()[task.identified.cpu()]
        if bool(_settled(weights.cpu(), task.num_classes)[found].all()):
            return self._fit(task, start, teaching(task, following, weights), steps, lr)
        return self._fit(task, start, forgetting, steps, None)

    def _transition(self, task: cutk.Task, seen: list[Outputs], suspicion: Tensor) -> Tensor:
        logits, labels = seen[-1].logits, task.train.labels.to(seen[-1].logits.device)
        return transition(alternatives(logits, labels), labels, suspicion, task.num_classes, self.options.threshold)

    def _suspicion(
        self, task: cutk.Task, seen: list[Outputs], current: list[Outputs], weights: Tensor | None
    ) -> Suspicion:
        """Return q: the probe's, and what the current model says itself where it has learned what suspects are."""
        found = suspected(task, [*seen, *current], self.options.penalty, self.options.refinements)
        heard = torch.isin(task.train.labels.cpu(), torch.tensor(found.trusted, dtype=torch.int64))
        suspicion = Suspicion(found.probability, found.probability, heard)
        if current and weights is not None:
            logits, labels = current[-1].logits, task.train.labels.to(current[-1].logits.device)
            own = otherwise(logits, labels, weights.to(labels.device)[labels]).cpu()
            asked = self._asked(task, weights.cpu())
            found = found._replace(probability=torch.where(asked, suspicion.beside(own), suspicion.q))
        _report(task, found)
        return suspicion._replace(q=found.probability)

    def _fit(self, task: cutk.Task, model: nn.Module, loss: cutk.Loss, steps: int, lr: float | None) -> nn.Module:
        batches = task.train.batches(None, task.recipe.options.batch_size, shuffle=True, augment=True, steps=steps)
        return task.recipe.fit(model, batches, loss, steps=steps, lr=lr)

    def _asked(self, task: cutk.Task, weights: Tensor) -> Tensor:
        """Return of which samples a model that has learned what suspects are is asked: bool ``[N]``.

        None of S_f, which are known, and none under a label that S_f hasn't, where of two classes W is settled, too.
        """
        asked = torch.zeros(len(task.train), dtype=torch.bool, device=weights.device)
        among = concerned(task).to(weights.device)
        asked[among] = _settled(weights, task.num_classes)[task.train.labels.to(weights.device)[among]]
        asked[task.identified.to(weights.device)] = False
        return asked

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Two forward passes for the original, then its rounds; a forward pass is a third of a pass.

        That is where every label occurs in S_f, which isn't known beforehand: it costs no more.
        """
        training = sizes.steps * sizes.batch_size / sizes.train
        after = {"tune": 0.0, "restart": options.restart_part, "retrain": 1.0}[options.final] * training
        asked = max(0, options.rounds - (options.final == "tune"))
        return 2 / 3, options.rounds * options.passes + asked / 3 + after


def _settled(weights: Tensor, num_classes: int) -> Tensor:
    """Return for which given labels W says what suspects are: bool ``[classes]``."""
    return weights.sum(1) < max(num_classes - 1, 2)  # of two classes the other one is meant


def _steps(task: cutk.Task, passes: float) -> int:
    return max(1, round(passes * len(task.train) / min(task.recipe.options.batch_size, len(task.train))))


def _report(task: cutk.Task, found: Posterior) -> None:
    task.log.suspicion(found.probability)
    task.log.scalar("known_part", found.alpha)
    task.log.scalar("mean_suspicion", found.probability.mean())
    for label, prior in found.priors.items():
        task.log.scalar(f"prior_{label}", prior)


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``seal``."""
    return [Seal]
