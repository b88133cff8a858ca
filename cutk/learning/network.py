"""The layers of a network, counted from its end as CF-k and EU-k do (Goel et al., 2023), and its initialisation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from cutk.data.batches import TrainSet
from cutk.errors import CellError

__all__ = ["copy_own_state", "initialised", "last_layers", "layers", "operations"]

# A network that is initialised with samples is shown so many at most.
SHOWN = 5000


@torch.no_grad()
def copy_own_state(source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters and buffers of ``source`` itself, not of its children, into ``target``."""
    for name, value in itertools.chain(source.named_parameters(recurse=False), source.named_buffers(recurse=False)):
        getattr(target, name).copy_(value)


def layers(model: nn.Module) -> list[list[nn.Module]]:
    """Group the modules of ``model`` into layers, in the order in which they are registered.

    A layer starts with a module that has a weight of two or more dimensions (a convolution, a linear layer, an
    embedding) and takes with it what follows up to the next: normalisation, activation, dropout. For feed-forward
    networks the order of registration is that of computation.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    >>> [[type(module).__name__ for module in layer] for layer in layers(net)]
    [['Conv2d', 'BatchNorm2d', 'ReLU', 'Flatten'], ['Linear']]
    """
    grouped: list[list[nn.Module]] = []
    before: list[nn.Module] = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if not own and any(True for _ in module.children()):
            continue  # a container
        if any(parameter.ndim >= 2 for parameter in own):
            grouped.append([])
        (grouped[-1] if grouped else before).append(module)
    if grouped:
        grouped[0][:0] = before
    return grouped


def last_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """Return the modules of the last ``count`` layers; a ``CellError`` says that there aren't so many."""
    grouped = layers(model)
    if not 1 <= count <= len(grouped):
        raise CellError(f"The model has {len(grouped)} layers; expected 1 to {len(grouped)} of them, got {count}.")
    return list(itertools.chain.from_iterable(grouped[-count:]))


def operations(network: nn.Module, x: Tensor) -> float:
    """Return how many floating-point operations a forward pass takes for each sample of ``x``, ``[n, *shape]``.

    Counted are layers with a weight of two or more dimensions: two for each of its numbers, at each of the places
    (pixels, tokens) where it is applied.
    """
    counts: list[float] = []

    def count(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            for weight in layer.parameters(recurse=False):
                if weight.ndim >= 2:  # the first one counts the channels of the output, wherever they lie
                    counts.append(2 * weight.numel() * output.numel() / len(output) / len(weight))

    handles = [module.register_forward_hook(count) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


def initialised(network: nn.Module, train: TrainSet, indices: Tensor | None = None) -> nn.Module:
    """Return ``network``, having shown it training samples if it has ``initialise(x)``.

    It is given those at ``indices`` (int64 ``[n]``; all if not given), and of more than 5,000 so many, evenly spaced.
    """
    initialise = getattr(network, "initialise", None)
    if callable(initialise):
        among = torch.arange(len(train)) if indices is None else indices
        if len(among) > SHOWN:
            among = among[torch.linspace(0, len(among) - 1, SHOWN).long()]
        with torch.no_grad():
            initialise(torch.cat([batch.x for batch in train.batches(among)]))
    return network
