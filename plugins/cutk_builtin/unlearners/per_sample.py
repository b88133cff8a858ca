"""Sums over samples of the squared gradient of each sample's loss.

A layer's gradient for one sample follows from the layer's input and from the gradient of its output, and one pass over
a batch gives both for every sample. Networks whose parameters aren't all in such layers are differentiated sample by
sample, which costs several times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn import functional

Sums = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

# How many numbers that belong to single samples a layer holds at once: 8 MB, of which a processor's cache keeps much.
HELD = 2**21


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy summed over samples."""
    return functional.cross_entropy(logits, y, reduction="sum")


def square_sums_for(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Sums]:
    """Return what maps samples ``x`` and labels ``y`` to the sums over them, the fastest that is right for the model.

    Args:
        model: in eval mode. Of two samples' predictions neither depends on the other sample.
        x: a sample or more, on which that is tried.
        y: int64, their labels.
    """
    # A linear loss: where a network is sure of itself, rounding alone changes the gradients of cross-entropy a lot.
    x, y = x[[0, -1]], y[[0, -1]]
    found = by_layers(model, x, y, linear_loss)
    if found is not None and close(found, one_by_one(model, x, y, linear_loss)):
        return partial(by_layers_or_vmap, model)
    return partial(by_vmap, model)


def linear_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return a sum of the outputs with weights from −1 to 1."""
    return (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype, device=logits.device)).sum()


def close(found: Sums, expected: Sums, tolerance: float = 1e-3) -> bool:
    """Say whether each tensor differs by no more than a fraction of its norm."""
    return all((found[name] - value).norm() <= tolerance * value.norm() for name, value in expected.items())


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Sums:
    """Sum over the samples by a pass for each: slow and plain."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for one, label in zip(x.split(1), y.split(1), strict=True):
        with torch.enable_grad():
            value = loss(model(one), label)
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient**2
    return total


def by_vmap(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Sums:
    """Sum over the samples, for any network that ``torch.func`` can differentiate."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def of_one(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, (values, buffers), (x[None],)), y[None])

    gradients = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, x, y)
    return {name: (gradient**2).sum(0) for name, gradient in gradients.items()}


def by_layers_or_vmap(model: nn.Module, x: Tensor, y: Tensor) -> Sums:
    """Sum over the samples by layers, unless these samples are treated otherwise than those it was tried on."""
    found = by_layers(model, x, y)
    return by_vmap(model, x, y) if found is None else found


def by_layers(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Sums | None:
    """Sum over the samples by one pass for all of them; ``None`` where that can't be.

    It can if every parameter is of one layer, which is called once, with one tensor, and returns one tensor, each with
    the samples first. What can't be seen is whether a layer's output follows from its input and parameters alone, and
    whether its parameters are used elsewhere.
    """
    layers = layers_of(model)
    if not layers:
        return None
    if x.dim() == 4 and x.device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)  # twice as fast there
    calls: list[Call] = []
    handles = [layer.register_forward_hook(partial(record, calls, name), with_kwargs=True) for name, layer in layers]
    try:
        with torch.enable_grad():
            value = loss(model(x), y)
    finally:
        for handle in handles:
            handle.remove()
    once = sorted(call.name for call in calls) == sorted(name for name, _ in layers)
    if not once or not all(call.edge is not None and call.samples == len(x) for call in calls):
        return None
    gradients = torch.autograd.grad(value, [cast(GradientEdge, call.edge) for call in calls], allow_unused=True)
    found = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    modules = dict(layers)
    for call, gradient in zip(calls, gradients, strict=True):
        if gradient is not None:
            for name, value in of_layer(modules[call.name], call.input, gradient).items():
                found[f"{call.name}.{name}" if call.name else name] = value
    return found


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return the modules that have parameters themselves, if none has modules in it and none shares parameters."""
    layers = [(name, module) for name, module in model.named_modules() if own(module)]
    parameters = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    if not all(parameter.requires_grad for parameter in parameters):
        return None
    if len(parameters) > len(set(parameters)) or any(next(layer.children(), None) for _, layer in layers):
        return None
    return layers


def own(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a module itself."""
    return {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}


class Call(NamedTuple):
    """One call of a layer: its input, and where the gradient of its output comes by."""

    name: str
    input: Any
    samples: int
    edge: GradientEdge | None


def record(calls: list[Call], name: str, _: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
    """Note a call of a layer: a forward hook."""
    tensors = (*args, output)
    plain = len(tensors) == 2 and not kwargs and all(isinstance(t, Tensor) and t.dim() > 0 for t in tensors)
    if plain and output.requires_grad and len(args[0]) == len(output):
        # The edge stays the one of this output if what follows writes into it.
        calls.append(Call(name, args[0].detach(), len(output), get_gradient_edge(output)))
    else:
        calls.append(Call(name, None, -1, None))


@torch.no_grad()
def of_layer(layer: nn.Module, x: Tensor, g: Tensor) -> Sums:
    """Return the sums for a layer's own parameters.

    Args:
        layer: any module.
        x: its input, the samples first.
        g: the gradient of its output.
    """
    known = KNOWN.get(type(layer))
    if known is None or not own(layer).keys() <= {"weight", "bias"} or not known.holds(layer, x):
        return of_any(layer, x, g)
    found = {}
    if isinstance(layer.weight, nn.Parameter):
        found["weight"] = known.weight(layer, x, g)
    if isinstance(getattr(layer, "bias", None), nn.Parameter):
        found["bias"] = known.bias(layer, g)
    return found


def pieces(held: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors by samples, such that no more than ``HELD`` numbers are held if a sample needs ``held`` of them."""
    size = max(1, HELD // max(1, held))
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def total(parts: Iterator[Tensor]) -> Tensor:
    """Add up."""
    found = next(parts)
    for part in parts:
        found += part
    return found


def of_any(layer: nn.Module, x: Tensor, g: Tensor) -> Sums:
    """Return the sums for any layer: by differentiating it alone, sample by sample."""
    parameters, buffers = own(layer), dict(layer.named_buffers())

    def product(values: dict[str, Tensor], x: Tensor, g: Tensor) -> Tensor:
        return (functional_call(layer, (values, buffers), (x[None],)) * g[None]).sum()

    each = vmap(grad(product), in_dims=(None, 0, 0))
    held = sum(parameter.numel() for parameter in parameters.values())
    found = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for some, gradients in pieces(held, x, g):
        for name, gradient in each(parameters, some, gradients).items():
            found[name] += (gradient**2).sum(0)
    return found


# Linear: y = W x + b, at one place of a sample or at several.


def linear_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for W: at one place (g xᵀ)² = g² (x²)ᵀ."""
    if x.dim() == 2:
        return (g**2).T @ x**2
    x, g = x.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
    held = g.shape[1] * x.shape[2]
    return total((torch.bmm(gradients, some) ** 2).sum(0) for some, gradients in pieces(held, x, g))


def linear_bias(layer: nn.Module, g: Tensor) -> Tensor:
    """Return the sums for b."""
    return (g.flatten(1, -2).sum(1) if g.dim() > 2 else g).square().sum(0)


# Convolution: a linear layer of the windows that the kernel sees, at each place.


def windows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what a convolution's kernel sees, ``[B · groups, places, kernel height · kernel width · C / groups]``.

    Channels are last, so that most of it is copied in long pieces.
    """
    high, wide = cast(tuple[int, int], conv.padding)
    x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high))
    for side in (0, 1):
        dilation = conv.dilation[side]
        x = x.unfold(1 + side, dilation * (conv.kernel_size[side] - 1) + 1, conv.stride[side])[..., ::dilation]
    x = x.unflatten(3, (conv.groups, -1)).permute(0, 3, 1, 2, 5, 6, 4)
    return x.reshape(len(x) * conv.groups, x.shape[2] * x.shape[3], -1)


def conv_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for a convolution's kernels."""
    conv = cast(nn.Conv2d, layer)
    channels_out, fan_in = len(conv.weight), conv.weight[0].numel()
    held = fan_in * max(channels_out, conv.groups * g[0, 0].numel())

    def part(x: Tensor, g: Tensor) -> Tensor:
        g = g.reshape(len(g) * conv.groups, channels_out // conv.groups, -1)
        return torch.bmm(g, windows(conv, x)).square_().view(len(x), channels_out, fan_in).sum(0)

    found = total(part(*both) for both in pieces(held, x, g))
    return found.view(channels_out, *conv.kernel_size, -1).permute(0, 3, 1, 2)


def channel_bias(layer: nn.Module, g: Tensor) -> Tensor:
    """Return the sums for a number that is added to each channel, ``g`` being ``[B, C, …]``."""
    return (g.flatten(2).sum(2) if g.dim() > 2 else g).square().sum(0)


# Norms: y = w x̂ + b.


def batch_norm_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for a batch norm's w, in eval mode."""
    norm = cast(nn.BatchNorm2d, layer)
    mean, var = (cast(Tensor, value).view(-1, *[1] * (x.dim() - 2)) for value in (norm.running_mean, norm.running_var))
    return channel_bias(layer, (x - mean) * g) / (var.flatten() + norm.eps)


def group_norm_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for a group norm's w."""
    norm = cast(nn.GroupNorm, layer)
    return channel_bias(layer, functional.group_norm(x, norm.num_groups, eps=norm.eps) * g)


def layer_norm_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for a layer norm's w."""
    norm = cast(nn.LayerNorm, layer)
    return layer_norm_bias(layer, functional.layer_norm(x, norm.normalized_shape, eps=norm.eps) * g)


def layer_norm_bias(layer: nn.Module, g: Tensor) -> Tensor:
    """Return the sums for a layer norm's b."""
    shape = cast(nn.LayerNorm, layer).normalized_shape
    return g.reshape(len(g), -1, *shape).sum(1).square().sum(0)


# Embedding: y = the row of W that x names.


def embedding_weight(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """Return the sums for an embedding."""
    table = cast(nn.Embedding, layer)
    rows, width = table.weight.shape

    def part(x: Tensor, g: Tensor) -> Tensor:
        of_sample = x.reshape(len(x), -1) + rows * torch.arange(len(x), device=x.device)[:, None]
        gradients = g.new_zeros(len(x) * rows, width).index_add_(0, of_sample.flatten(), g.flatten(0, -2))
        return gradients.view(len(x), rows, width).square().sum(0)

    found = total(part(*both) for both in pieces(rows * width, x, g))
    if table.padding_idx is not None:
        found[table.padding_idx] = 0
    return found


class Formula(NamedTuple):
    """How a layer's sums are computed from its input and the gradient of its output."""

    weight: Callable[[nn.Module, Tensor, Tensor], Tensor]
    bias: Callable[[nn.Module, Tensor], Tensor]
    holds: Callable[[Any, Tensor], bool] = lambda layer, x: True


BATCH_NORM = Formula(batch_norm_weight, channel_bias, lambda norm, x: norm.running_mean is not None)

# By the exact type, since what derives from them may do something else.
KNOWN: dict[type[nn.Module], Formula] = {
    nn.Linear: Formula(linear_weight, linear_bias, lambda layer, x: x.dim() > 1),
    nn.Conv2d: Formula(
        conv_weight,
        channel_bias,
        lambda conv, x: x.dim() == 4 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str),
    ),
    nn.BatchNorm1d: BATCH_NORM,
    nn.BatchNorm2d: BATCH_NORM,
    nn.BatchNorm3d: BATCH_NORM,
    nn.GroupNorm: Formula(group_norm_weight, channel_bias),
    nn.LayerNorm: Formula(layer_norm_weight, layer_norm_bias, lambda norm, x: x.dim() > len(norm.normalized_shape)),
    nn.Embedding: Formula(
        embedding_weight,
        channel_bias,
        lambda table, x: table.max_norm is None and not table.scale_grad_by_freq and not table.sparse,
    ),
}
