"""Sums over samples of the squared gradient of each sample's loss.

A layer's gradient for one sample follows from the layer's input and from the gradient of its output, and one pass over
a batch gives both for every sample. Networks whose parameters aren't all in such layers are differentiated sample by
sample, which costs several times as much.
"""

from __future__ import annotations

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

# How many numbers that belong to single samples a layer holds at once: 4 MB, which a processor's cache keeps.
HELD = 2**20


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


def linear_loss(logits: Tensor, _: Tensor) -> Tensor:
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
    formula = FORMULAS.get(type(layer))
    found = None if formula is None else formula(layer, x, g)
    names = own(layer).keys()
    if found is None or not names <= found.keys():
        return of_any(layer, x, g)
    return {name: found[name] for name in names}


def pieces(held: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors by samples: into few pieces, each of as many as hold ``HELD`` numbers if one holds ``held``."""
    limit = HELD if tensors[0].device.type == "cpu" else 16 * HELD  # elsewhere a call costs more than a missed cache
    size = max(1, limit // max(1, held))
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


def linear(_: nn.Linear, x: Tensor, g: Tensor) -> Sums | None:
    """Return the sums for y = W x + b, at one place of a sample or at several."""
    if x.dim() < 2:
        return None
    if x.dim() == 2:
        squares = g**2
        return {"weight": squares.T @ x**2, "bias": squares.sum(0)}
    x, g = x.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
    held = g.shape[1] * x.shape[2]
    weight = total((gradients @ some).square_().sum(0) for some, gradients in pieces(held, x, g))
    return {"weight": weight, "bias": g.sum(2).square().sum(0)}


def conv2d(conv: nn.Conv2d, x: Tensor, g: Tensor) -> Sums | None:
    """Return the sums for a convolution: a linear layer of what its kernel sees, at each place."""
    if x.dim() != 4 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return None
    (high, wide), (down, _), groups = conv.kernel_size, conv.stride, conv.groups
    rows_out, seen = g.shape[2], conv.weight[0, :, 0].numel()
    reach = down * (rows_out - 1) + 1

    def part(x: Tensor, g: Tensor) -> Tensor:
        g = g.reshape(len(g) * groups, len(conv.weight) // groups, -1)
        rows = row_windows(conv, x)
        starts = [conv.dilation[0] * row for row in range(high)]
        each = (g @ rows[:, start : start + reach : down].flatten(1, 2) for start in starts)
        return torch.stack([one.square_().view(len(x), len(conv.weight), seen).sum(0) for one in each], 1)

    held = seen * max(len(conv.weight), groups * (x.shape[2] + 2 * cast(int, conv.padding[0])) * g.shape[3])
    weight = total(part(*both) for both in pieces(held, x, g))
    return {"weight": weight.unflatten(2, (wide, -1)).permute(0, 3, 1, 2), "bias": per_channel(g)}


def row_windows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what a row of a convolution's kernel sees: ``[B · groups, height, places, kernel width · C / groups]``.

    The rows of its windows at a place are some of these, so that less is copied than there is in the windows. Channels
    are last, so that it is copied in long pieces.
    """
    high, wide = cast(tuple[int, int], conv.padding)
    width, right, dilation = conv.kernel_size[1], conv.stride[1], conv.dilation[1]
    x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high))
    x = x.unfold(2, dilation * (width - 1) + 1, right)[..., ::dilation]
    x = x.unflatten(3, (conv.groups, -1)).permute(0, 3, 1, 2, 5, 4)
    # Windows that overlap in memory would be copied once for each row of the kernel.
    return x.reshape(len(x) * conv.groups, *x.shape[2:4], -1).contiguous()


def per_channel(g: Tensor) -> Tensor:
    """Return the sums for a number that is added to each channel, ``g`` being ``[B, C, …]``."""
    return (g.flatten(2).sum(2) if g.dim() > 2 else g).square().sum(0)


def batch_norm(norm: nn.BatchNorm2d, x: Tensor, g: Tensor) -> Sums | None:
    """Return the sums for y = w x̂ + b with running statistics."""
    if norm.running_mean is None or norm.running_var is None:
        return None
    mean = norm.running_mean.view(-1, *[1] * (x.dim() - 2))
    return {"weight": per_channel((x - mean).mul_(g)) / (norm.running_var + norm.eps), "bias": per_channel(g)}


def group_norm(norm: nn.GroupNorm, x: Tensor, g: Tensor) -> Sums:
    """Return the sums for y = w x̂ + b with the statistics of groups of channels."""
    return {
        "weight": per_channel(functional.group_norm(x, norm.num_groups, eps=norm.eps) * g),
        "bias": per_channel(g),
    }


def layer_norm(norm: nn.LayerNorm, x: Tensor, g: Tensor) -> Sums | None:
    """Return the sums for y = w x̂ + b with the statistics of a place."""
    shape = norm.normalized_shape
    if x.dim() <= len(shape):
        return None
    values = {"weight": functional.layer_norm(x, shape, eps=norm.eps) * g, "bias": g}
    return {name: value.reshape(len(g), -1, *shape).sum(1).square().sum(0) for name, value in values.items()}


def embedding(table: nn.Embedding, x: Tensor, g: Tensor) -> Sums | None:
    """Return the sums for y = the row of W that x names."""
    if table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return None
    rows, width = table.weight.shape

    def part(x: Tensor, g: Tensor) -> Tensor:
        of_sample = x.reshape(len(x), -1) + rows * torch.arange(len(x), device=x.device)[:, None]
        gradients = g.new_zeros(len(x) * rows, width).index_add_(0, of_sample.flatten(), g.flatten(0, -2))
        return gradients.view(len(x), rows, width).square().sum(0)

    weight = total(part(*both) for both in pieces(rows * width, x, g))
    if table.padding_idx is not None:
        weight[table.padding_idx] = 0
    return {"weight": weight}


# By the exact type, since what derives from it may do something else. None says that a formula doesn't hold.
FORMULAS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Sums | None]] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
}
