"""Learning from labels that may be wrong: what says how likely each is, and losses that go by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

import cutk


def settled(weights: Tensor, num_classes: int) -> Tensor:
    """Return for which given labels W says what suspects are: bool ``[classes]``."""
    return weights.sum(1) < max(num_classes - 1, 2)  # of two classes the other one is meant


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


# Returns q of the samples in a step's batch, float32 ``[B]``, given the logits of these, ``[B, classes]``; asked once
# in every step.
BatchSuspicion: TypeAlias = Callable[[Tensor, cutk.Batch], Tensor]


def unchanging(q: Tensor) -> BatchSuspicion:
    """Return what says of each sample what ``q`` says, float32 ``[N]``, on the device of the batches."""
    return lambda _, batch: q[batch.index]


def latest(index: Tensor) -> Tensor:
    """Return where each of the samples in a batch, int64 ``[B]``, stands in it for the last time: int64 ``[n]``.

    A batch may begin with the end of one pass and go on with the next. Writing to a place twice is undefined on a GPU.

    >>> latest(torch.tensor([4, 2, 4, 7])).tolist()
    [1, 2, 3]
    """
    ordered, where = index.sort(stable=True)
    ends = torch.ones_like(ordered, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    return where[ends]


class Following:
    """q during the training after the rounds: from its half on what the model says there, too.

    It is what the model said of a sample when it last saw it, and the probe beside it, taken over once in every pass.

    Args:
        suspicion: what is known of all samples before.
        asked: of which of them the model is asked, bool ``[N]``.
        weights: W, float32 ``[classes, classes]``.
        steps: of the training.
        of_pass: how many of them make a pass.
        device: where the model is.
    """

    def __init__(
        self, suspicion: Suspicion, asked: Tensor, weights: Tensor, *, steps: int, of_pass: int, device: torch.device
    ) -> None:
        self._suspicion = suspicion._make(part.to(device) for part in suspicion)
        self._q, self._weights, self._asked = self._suspicion.q.clone(), weights.to(device), asked.to(device)
        self._said = self._q.clone()
        self._half, self._of_pass, self._done = steps // 2, of_pass, 0

    def __call__(self, logits: Tensor, batch: cutk.Batch) -> Tensor:
        """Return q of the samples in a step's batch, float32 ``[B]``, and note what the model says of them."""
        if self._done >= self._half and (self._done - self._half) % self._of_pass == 0:
            self._q.copy_(torch.where(self._asked, self._said, self._q))
        own, once = otherwise(logits.detach(), batch.y, self._weights[batch.y]), latest(batch.index)
        self._said[batch.index[once]] = self._suspicion.beside(own, batch.index)[once]
        self._done += 1
        return self._q[batch.index]


def correcting(task: cutk.Task, q: BatchSuspicion, weights: Tensor, *, open_too: bool) -> cutk.Loss:
    """Return step 4's loss: as far as q says, a sample's label is wrong, and a class that W weighs is right instead.

    Suspects whose class is open learn that it is another one, if they are ``open_too``, or count for nothing. From M_o,
    which knows what they look like else, they find their class; from faded weights they would be driven anywhere. W is
    float32 ``[classes, classes]``.
    """
    weights = weights.to(task.device)
    learning = torch.ones(len(weights), device=task.device) if open_too else settled(weights, task.num_classes).float()

    def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
        wrong = q(logits, batch)
        complement = complementary_loss(logits, weights[batch.y]) * learning[batch.y]
        given = task.recipe.loss(weighted(logits, 1 - wrong), batch)
        return given + (wrong * complement).mean()

    return loss


def teaching(task: cutk.Task, q: BatchSuspicion, weights: Tensor) -> cutk.Loss:
    """Return A's own loss of the labels and, as far as q says, of the likeliest class that W weighs in place of each.

    W is float32 ``[classes, classes]``. Where a recipe doesn't smooth labels, the complement would do. Where it does,
    that would make a model surer of suspects' classes than of other ones, so that it takes images of these for them.
    """
    weights = weights.to(task.device)

    def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
        wrong = q(logits, batch)
        instead = torch.where(wrong > 0, likeliest(logits, weights[batch.y]), batch.y)
        given = task.recipe.loss(weighted(logits, 1 - wrong), batch)
        return given + task.recipe.loss(weighted(logits, wrong), batch._replace(y=instead))

    return loss
