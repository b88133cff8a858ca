"""A sound recipe, and those that break one check each."""

import itertools

import torch
from torch import nn

import cutk


class Plain(cutk.Recipe):
    """SGD on softened labels, at a rate that falls to nothing."""

    name = "plain"

    class Options(cutk.RecipeOptions):
        """How soft."""

        smoothing: float = cutk.option(0.1, ge=0, lt=1, help="what of a label goes to all classes alike")

    def loss(self, logits, batch):
        return nn.functional.cross_entropy(logits, batch.y, label_smoothing=self.options.smoothing)

    def optimisers(self, parameters, lr):
        return [torch.optim.SGD(parameters.values(), lr=lr, momentum=0.9)]

    def rate(self, step, steps):
        return 1 - step / steps


def training(**methods):
    return type("Training", (Plain,), {"__doc__": Plain.__doc__, **methods})


def sgd(parameters, lr):
    return [torch.optim.SGD(list(parameters), lr=lr)]


class Unrelated(Plain):
    class Options(cutk.Options):
        """Options that no recipe could do with."""


class Unfinished(cutk.Recipe):
    """Has no optimisers."""

    name = "unfinished"


class Decays(Plain):
    """Trains less every time."""

    trained = 1.0

    def rate(self, step, steps):
        self.trained *= 0.99
        return self.trained


def faster_each_time(self, _step, _steps):
    """Return a factor that goes on from training to training, of whatever recipe."""
    return 1 + next(self.count) % 7


SPARE = nn.Parameter(torch.zeros(1))


class SetsGradMode(Plain):
    def optimisers(self, parameters, lr):
        torch.autograd.set_detect_anomaly(True)
        return super().optimisers(parameters, lr)


SOUND = [Plain]
BROKEN = {
    "class_is_sound": [
        Unrelated,
        training(fit=lambda _self, model, *_, **__: model),
        training(predict=lambda _self, *_: None),
        Unfinished,
    ],
    "loss_is_a_finite_number": [
        training(loss=lambda _self, logits, batch: nn.functional.cross_entropy(logits, batch.y, reduction="none")),
        training(loss=lambda _self, logits, batch: nn.functional.cross_entropy(logits, batch.y).item()),
        training(loss=lambda _self, logits, _batch: logits.std(0).mean()),
        training(loss=lambda _self, logits, _batch: logits.detach().sum()),
    ],
    "optimisers_cover_the_parameters": [
        training(optimisers=lambda _self, parameters, lr: sgd([*parameters.values(), SPARE], lr)),
        training(optimisers=lambda _self, parameters, lr: sgd([p for p in parameters.values() if p.ndim > 1], lr)),
        training(optimisers=lambda _self, parameters, lr: 2 * sgd(parameters.values(), lr)),
    ],
    "learning_rate_is_heeded": [training(optimisers=lambda _self, parameters, _lr: sgd(parameters.values(), 0.1))],
    "rates_are_finite": [
        training(rate=lambda _self, step, steps: 1 / (steps - step - 1)),
        training(rate=lambda _self, step, steps: 0.5 - step / steps),
        training(rate=lambda _self, step, _steps: 1 if step else 0),
    ],
    "training_reduces_the_loss": [
        training(loss=lambda _self, logits, batch: nn.functional.cross_entropy(logits, (batch.y + 1) % 4) * -1),
        training(optimisers=lambda _self, parameters, lr: sgd(parameters.values(), lr * 1e-30)),
    ],
    "trainings_are_independent": [Decays],
    "same_seed_gives_the_same": [training(count=itertools.count(), rate=faster_each_time)],
    "nothing_global_is_left": [SetsGradMode],
}
