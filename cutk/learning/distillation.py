"""Learning from another network's outputs: teachers, and the divergence from them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

from cutk.data.batches import Batch, TrainSet
from cutk.learning.recipe import Recipe

__all__ = ["Teacher", "kl_divergence"]


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of logits ``[B, classes]``, averaged over the batch.

    The factor keeps the gradient's size independent of the temperature T > 0 (Hinton et al., 2015, section 2).

    >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
    >>> float(kl_divergence(logits, logits, temperature=4.0))
    0.0
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


class Teacher:
    """A frozen network whose outputs others learn from: ``teacher(batch)`` gives its logits.

    It is a copy of ``model`` in eval mode. Where ``train``, the set that the batches come from, isn't augmented, a
    sample looks the same at every visit. Then the outputs on ``indices`` (int64 ``[n]``, all if not given), about which
    it will be asked, are computed once, when the teacher is made: in ``prepare``, for all points of a grid.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, train: TrainSet, indices: Tensor | None = None) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._recipe = recipe
        self._outputs: Tensor | None = None
        if not train.augments:
            asked = torch.arange(len(train)) if indices is None else indices
            self._outputs = torch.zeros(len(train), train.num_classes)
            self._outputs[asked] = recipe.logits(self._model, train, asked)
            self._outputs = self._outputs.to(recipe.device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return the logits on ``batch``, float32 ``[B, classes]``."""
        if self._outputs is not None:
            return self._outputs[batch.index]
        with self._recipe.autocast():
            logits: Tensor = self._model(batch.x)
        return logits.float()
