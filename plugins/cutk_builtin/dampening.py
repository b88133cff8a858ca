"""How much parameters matter for parts of the training set, and shrinking those that matter for one part above all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import cutk

Importance = dict[str, Tensor]


class Importances(NamedTuple):
    """I_f and I_r: for each parameter's name, a float32 tensor of its shape, ≥ 0.

    They are float32 whatever the recipe's precision: the two are compared parameter by parameter, and the rounding of
    bf16 in a forward pass changes many of their ratios by several per cent.
    """

    forget: Importance
    retain: Importance


def gradient_importance(
    model: nn.Module,
    batches: Iterable[cutk.Batch],
    objective: cutk.Loss,
    measure: Callable[[Tensor], Tensor],
) -> Importance:
    """Return the mean over batches of ``measure`` of the gradient of a batch's ``objective``, for each parameter.

    Args:
        model: differentiated in eval mode and float32.
        batches: the samples.
        objective: maps logits and the batch to a scalar.
        measure: maps a gradient to as many numbers, ≥ 0.
    """
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    model.eval()
    for batch in batches:
        value = objective(model(batch.x), batch)
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += measure(gradient)
        count += 1
    return {name: value / count for name, value in total.items()}


@torch.no_grad()
def dampen(
    parameters: Iterable[tuple[str, nn.Parameter]],
    importances: Importances,
    selection_weight: float,
    dampening: float,
) -> int:
    """Dampen in place, and return how many numbers were changed.

    Where I_f > α · I_r, θ ← θ · min(1, γ · I_r / I_f) (Foster et al., AAAI 2024, equations 4 and 5).

    Args:
        parameters: names and parameters, θ.
        importances: I_f and I_r by the same names.
        selection_weight: α.
        dampening: γ.
    """
    changed = 0
    for name, parameter in parameters:
        forget, retain = importances.forget[name], importances.retain[name]
        selected = forget > selection_weight * retain
        if not selected.any():  # as in most tensors at a large α
            continue
        factor = (dampening * retain / forget).clamp(max=1)
        parameter.copy_(torch.where(selected, parameter * factor, parameter))
        changed += int((selected & (factor < 1)).sum())
    return changed
