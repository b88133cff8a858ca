"""Models that each sample is judged by without their having been fitted to it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

FOLDS = 5


def folds(kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Return each sample's fold, int64 ``[n]``, so that each kind (int64 ``[n]``) is spread evenly, on the CPU."""
    fold = torch.zeros(len(kinds), dtype=torch.int64)
    for kind in kinds.unique():
        mine = kinds == kind
        fold[mine] = torch.randperm(int(mine.sum()), generator=generator) % FOLDS
    return fold


def multinomial(features: Tensor, labels: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Return the weights ``[d, classes]`` and biases ``[classes]`` of multinomial logistic regression.

    They minimise the cross-entropy summed over samples plus ``penalty`` / 2 · ‖w‖².

    Args:
        features: float32 ``[n, d]``, standardised.
        labels: int64 ``[n]``, on the same device.
        num_classes: how many there are.
        penalty: > 0.
    """
    with torch.enable_grad():
        w = torch.zeros(features.shape[1], num_classes, device=features.device, requires_grad=True)
        b = torch.zeros(num_classes, device=features.device, requires_grad=True)
        optimiser = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = F.cross_entropy(features @ w + b, labels) + penalty / 2 / len(labels) * w.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return w.detach(), b.detach()


def class_probabilities(
    features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, penalty: float
) -> Tensor:
    """Return each sample's class probabilities by a probe that was fitted to others: float64 ``[n, classes]``.

    Args:
        features: float32 ``[n, d]``, standardised.
        labels: int64 ``[n]``, on the CPU.
        num_classes: how many there are.
        generator: draws the folds, on the CPU.
        penalty: the probe's, see ``multinomial``.

    Returns:
        On the CPU, each row with the sum 1. A single sample is judged by a probe that was fitted to itself.
    """
    fold, here = folds(labels, generator), labels.to(features.device)
    found = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    for one in range(FOLDS):
        mine = fold == one
        others = (~mine if bool((~mine).any()) else mine).to(features.device)
        if mine.any():
            w, b = multinomial(features[others], here[others], num_classes, penalty)
            found[mine] = (features[mine.to(features.device)] @ w + b).cpu().double().softmax(1)
    return found
