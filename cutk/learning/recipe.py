"""A, the learning algorithm: what a recipe decides, the one training loop, and prediction."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cutk.components import Component
from cutk.data.batches import Augmentation, Batch, TrainSet
from cutk.errors import CellError
from cutk.machine import choose_layout
from cutk.options import Options, option

__all__ = ["Loss", "Progress", "Recipe", "RecipeOptions", "classes_of", "cross_entropy"]

Loss = Callable[[Tensor, Batch], Tensor]
Progress = Callable[[int, int], None]


class RecipeOptions(Options):
    """What every recipe can be told: how long, how much at a time, how fast, and how images are augmented.

    The defaults are the paper's for CIFAR-10 (appendix A.1), and where it says nothing its published code's. A recipe
    with options of its own derives them from these.
    """

    steps: int = option(4000, ge=1, le=10**9, help="training steps, one batch each")
    batch_size: int = option(512, ge=1, help="samples per step")
    lr: float = option(0.025, gt=0, help="peak learning rate")
    crop_padding: int = option(4, ge=0, help="zero padding before the random crop of an image; 0: no crop")
    flip: bool = option(True, help="random horizontal flip of an image")

    @property
    def augmentation(self) -> Augmentation:
        """What ``augment=True`` means under this recipe."""
        return Augmentation(self.crop_padding, self.flip)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the task loss: mean cross-entropy of ``logits`` (float32 ``[B, classes]``) against the given labels."""
    return nn.functional.cross_entropy(logits, batch.y)


def classes_of(logits: Tensor) -> Tensor:
    """Return the predicted classes, int64 ``[n]``; a ``CellError`` says that an output isn't finite."""
    if not torch.isfinite(logits).all():
        raise CellError("The model's outputs are not finite.")
    return logits.argmax(1)


def require_finite(model: nn.Module, when: str) -> None:
    """Raise a ``CellError`` if a weight or buffer of ``model`` is infinite or not a number."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CellError(f"Training diverged: '{name}' is not finite {when}. Try a smaller lr.")


class Recipe(Component):
    """A learning algorithm, A: the loss, the optimisers and their schedule, and how samples are augmented and batched.

    A recipe overrides ``optimisers`` and, where it differs, ``loss`` and ``rate``. The training loop is the same for
    all of them, and for every unlearner: ``fit``, ``train``, ``logits`` and ``predict`` stay as they are. ``options``
    are ``RecipeOptions``, or the recipe's own derived from them.
    """

    kind = "recipe"
    required = ("optimisers",)
    final = ("on", "place", "autocast", "fit", "train", "logits", "predict")
    Options = RecipeOptions

    device: torch.device = torch.device("cpu")  # where models live
    precision: str = "fp32"  # or bf16 (autocast; weights and losses stay float32)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return what a step descends, a scalar, given float32 ``[B, classes]``; by default ``cross_entropy``.

        Labels are ``batch.y``, which a method may have replaced by others than those of the training set.
        """
        return cross_entropy(logits, batch)

    def optimisers(self, parameters: Mapping[str, nn.Parameter], lr: float) -> Sequence[torch.optim.Optimizer]:
        """Return new optimisers of ``parameters`` (by their names); each steps, without a closure, after every batch.

        ``lr`` is the peak rate. What a parameter group is made with is its own peak: ``rate`` scales each.
        """
        raise NotImplementedError(f"{type(self).__name__} has no optimisers()")

    def rate(self, step: int, steps: int) -> float:
        """Return the factor on the peak learning rates in a step, counted from 0; by default 1."""
        return 1.0

    def on(self, device: torch.device | str, precision: str = "fp32") -> Self:
        """Return the same recipe on another device, in another precision; nothing of it is shared."""
        other = copy.copy(self)
        other.options = self.options.model_copy()
        other.device, other.precision = torch.device(device), precision
        return other

    def place(self, model: nn.Module) -> nn.Module:
        """Move ``model`` to the device, in the memory layout that convolutions like best."""
        layout = choose_layout(self.device)
        # Torch asks tensors of five dimensions, too, which there are in volumes and videos, and these refuse.
        if any(tensor.ndim > 4 for tensor in (*model.parameters(), *model.buffers())):
            return model.to(self.device)
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def autocast(self) -> torch.autocast:
        """Return the context in which a forward pass runs under this recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def fit(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        loss: Loss | None = None,
        *,
        steps: int,
        lr: float | None = None,
        modules: Iterable[nn.Module] | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Train ``model`` in place from the weights that it has, one step a batch, and return it in eval mode.

        Args:
            model: what to train.
            batches: what to train on; at most ``steps`` of them are used.
            loss: maps ``(logits float32 [B, classes], batch)`` to a scalar; the recipe's if not given.
            steps: length of the schedule.
            lr: peak learning rate; the recipe's if not given.
            modules: train these alone; all others keep their parameters and the statistics of their normalisation.
            progress: called as ``progress(done, steps)``.

        Raises:
            CellError: if the weights are no longer finite at the end.
        """
        objective = self.loss if loss is None else loss
        peak = float(self.options.lr) if lr is None else lr
        parameters = _trained(model, modules)
        optimisers = _checked(self.optimisers(parameters, peak), self)
        groups = [(group, float(group["lr"])) for optimiser in optimisers for group in optimiser.param_groups]
        wanted = None if modules is None else list(parameters.values())
        for step, batch in zip(range(steps), batches, strict=False):
            rate = self.rate(step, steps)
            for group, initial in groups:
                group["lr"] = initial * rate
            with self.autocast():
                logits = model(batch.x)
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            value = objective(logits.float(), batch)
            # The layers that stay as they are need no gradients, and cost none.
            value.backward(inputs=wanted)  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()
            if progress is not None:
                progress(step + 1, steps)
        require_finite(model.eval(), f"after {steps} steps at lr {peak:g}")
        return model

    def train(
        self,
        model: nn.Module,
        train: TrainSet,
        indices: Tensor | None = None,
        loss: Loss | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        modules: Iterable[nn.Module] | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Apply A to ``model``: ``fit`` on shuffled and augmented batches of ``train`` at ``indices`` (int64 ``[n]``).

        What isn't given is the recipe's (``loss``, ``steps``, ``lr``), the training set's (``generator``), or all there
        are.
        """
        count, size = self.options.steps if steps is None else steps, self.options.batch_size
        batches = train.batches(indices, size, shuffle=True, augment=True, steps=count, generator=generator)
        return self.fit(model, batches, loss, steps=count, lr=lr, modules=modules, progress=progress)

    def logits(self, model: nn.Module, samples: TrainSet, indices: Tensor | None = None) -> Tensor:
        """Return the model's outputs on unaugmented samples, in their order: float32 ``[n, classes]``, on the CPU."""
        if len(samples if indices is None else indices) == 0:
            return torch.zeros(0, samples.num_classes)
        model.eval()
        outputs = []
        for batch in samples.batches(indices):
            with torch.inference_mode(), self.autocast():
                outputs.append(model(batch.x).float().cpu())
        return torch.cat(outputs)

    def predict(self, model: nn.Module, samples: TrainSet, indices: Tensor | None = None) -> Tensor:
        """Return the classes predicted from ``logits``, int64 ``[n]``; a ``CellError`` says that one isn't finite."""
        return classes_of(self.logits(model, samples, indices))


def _trained(model: nn.Module, modules: Iterable[nn.Module] | None) -> dict[str, nn.Parameter]:
    """Put what is to be trained into train mode and the rest into eval mode; return its parameters by their names."""
    model.train()
    named = dict(model.named_parameters())
    if modules is None:
        return named
    trained = list(modules)
    chosen = {id(module) for module in trained}
    for module in model.modules():
        # Modules have their mode each for itself: a container's says nothing about what it contains.
        module.training = id(module) in chosen
    own = {id(parameter) for module in trained for parameter in module.parameters(recurse=False)}
    return {name: parameter for name, parameter in named.items() if id(parameter) in own}


def _checked(optimisers: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Refuse what a recipe's author took for a list of optimisers."""
    found = list(optimisers) if isinstance(optimisers, Sequence) else [optimisers]
    if not found or not all(isinstance(optimiser, torch.optim.Optimizer) for optimiser in found):
        came = ", ".join(type(optimiser).__name__ for optimiser in found) or "none"
        raise CellError(f"Recipe '{recipe.name}': expected optimisers() to return torch optimisers, got {came}.")
    return found
