"""A, the learning algorithm: SGD on a linear schedule, the one training loop, and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from cutk.data.batches import Augmentation, Batch, TrainSet
from cutk.errors import CellError
from cutk.learning.network import own_parameters
from cutk.machine import choose_layout
from cutk.options import Options, option

__all__ = ["Loss", "Progress", "Recipe", "RecipeOptions", "cross_entropy", "learning_rate"]

Loss = Callable[[Tensor, Batch], Tensor]
Progress = Callable[[int, int], None]


class RecipeOptions(Options):
    """How the developer trained; the defaults are the paper's for CIFAR-10 (appendix A.1)."""

    steps: int = option(4000, ge=1, le=10**9, help="training steps, one batch each")
    batch_size: int = option(512, ge=1, help="samples per step")
    lr: float = option(0.025, gt=0, help="peak learning rate")
    momentum: float = option(0.9, ge=0, lt=1, help="SGD momentum")
    weight_decay: float = option(5e-4, ge=0, help="L2 penalty")
    t_mult: float = option(1.25, ge=1, help="the linear decay would reach zero after t_mult · steps")
    warmup: float = option(0.01, ge=0, lt=1, help="fraction of the steps over which the rate rises")
    crop_padding: int = option(4, ge=0, help="zero padding before the random crop; 0: no crop")
    flip: bool = option(True, help="random horizontal flip")

    @property
    def augmentation(self) -> Augmentation:
        """What ``augment=True`` means under this recipe."""
        return Augmentation(self.crop_padding, self.flip)


def learning_rate(step: int, steps: int, peak: float, t_mult: float = 1.25, warmup: float = 0.01) -> float:
    """Return the learning rate of a step, counted from 0.

    With ``w = int(warmup · steps)`` and ``T = t_mult · steps``, the rate is ``peak · (step + 1) / (w + 1)`` before
    step ``w`` and ``peak · (1 − (step − w) / (T − w))`` from there on (paper, appendix A.1).

    >>> [round(learning_rate(s, 4, 1.0, warmup=0.25), 3) for s in range(4)]
    [0.5, 1.0, 0.75, 0.5]
    """
    rising = int(warmup * steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * (1 - (step - rising) / (t_mult * steps - rising))


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the task loss: mean cross-entropy against the given labels."""
    return nn.functional.cross_entropy(logits, batch.y)


class Recipe:
    """A on a device, in a precision.

    Args:
        options: steps, rates and augmentation.
        device: where models live.
        precision: ``fp32`` or ``bf16`` (autocast; weights and losses stay float32).
    """

    def __init__(self, options: RecipeOptions, device: torch.device, precision: str = "fp32") -> None:
        self.options = options
        self.device = device
        self.precision = precision

    def place(self, model: nn.Module) -> nn.Module:
        """Move ``model`` to the device, in the memory layout that convolutions like best."""
        layout = choose_layout(self.device)
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def autocast(self) -> torch.autocast:
        """Return the context in which a forward pass runs under this recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def fit(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        loss: Loss = cross_entropy,
        *,
        steps: int,
        lr: float | None = None,
        modules: Iterable[nn.Module] | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Train ``model`` in place, one SGD step a batch, and return it in eval mode.

        Args:
            model: starts from the weights it has.
            batches: what to train on; at most ``steps`` of them are used.
            loss: maps ``(logits float32 [B, classes], batch)`` to a scalar.
            steps: length of the schedule.
            lr: peak learning rate; the recipe's if not given.
            modules: train these alone, such as ``cutk.last_layers(model, 2)``. All others keep their parameters and,
                being in eval mode, the statistics of their normalisation.
            progress: called as ``progress(done, steps)``.

        Raises:
            CellError: if the weights are no longer finite at the end.
        """
        o = self.options
        peak = o.lr if lr is None else lr
        training = None if modules is None else list(modules)
        optimised = list(model.parameters()) if training is None else [p for m in training for p in own_parameters(m)]
        optimiser = torch.optim.SGD(optimised, lr=peak, momentum=o.momentum, weight_decay=o.weight_decay)
        model.train()
        if training is not None:
            chosen = set(map(id, training))
            for module in model.modules():
                # Modules have their mode each for itself: a container's says nothing about what it contains.
                module.training = id(module) in chosen
        for step, batch in zip(range(steps), batches, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, peak, o.t_mult, o.warmup)
            with self.autocast():
                logits = model(batch.x)
            optimiser.zero_grad(set_to_none=True)
            value = loss(logits.float(), batch)
            # The layers that stay as they are need no gradients, and cost none.
            value.backward(inputs=None if training is None else optimised)  # type: ignore[no-untyped-call]
            optimiser.step()
            if progress is not None:
                progress(step + 1, steps)
        model.eval()
        require_finite(model, f"after {steps} steps at lr {peak:g}")
        return model

    def train(
        self,
        model: nn.Module,
        train: TrainSet,
        indices: Tensor | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        modules: Iterable[nn.Module] | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Apply A to ``model`` on the samples at ``indices``: shuffled, augmented, cross-entropy."""
        count = self.options.steps if steps is None else steps
        batches = train.batches(
            indices, self.options.batch_size, shuffle=True, augment=True, steps=count, generator=generator
        )
        return self.fit(model, batches, steps=count, lr=lr, modules=modules, progress=progress)

    def logits(self, model: nn.Module, samples: TrainSet, indices: Tensor | None = None) -> Tensor:
        """Return the model's outputs on unaugmented samples, in their order: float32 ``[n, classes]``, on the CPU."""
        if len(samples if indices is None else indices) == 0:
            return torch.zeros(0, samples.num_classes)
        return torch.cat(list(self._outputs(model, samples, indices)))

    def predict(self, model: nn.Module, samples: TrainSet, indices: Tensor | None = None) -> Tensor:
        """Return the predicted classes on unaugmented samples, in their order: int64 ``[n]``, on the CPU.

        Raises:
            CellError: if an output isn't finite, since a class read from it would mean nothing.
        """
        logits = self.logits(model, samples, indices)
        if not torch.isfinite(logits).all():
            raise CellError("The model's outputs are not finite.")
        return logits.argmax(1)

    @torch.inference_mode()
    def _outputs(self, model: nn.Module, samples: TrainSet, indices: Tensor | None) -> Iterator[Tensor]:
        model.eval()
        for batch in samples.batches(indices):
            with self.autocast():
                logits = model(batch.x)
            yield logits.float().cpu()


def require_finite(model: nn.Module, when: str) -> None:
    """Raise a ``CellError`` if a weight or buffer of ``model`` is infinite or not a number."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CellError(f"Training diverged: '{name}' is not finite {when}. Try a smaller lr.")
