"""Sound models, and those that break one check each."""

import itertools
import math

import torch
from torch import nn

import cutk


class Linear(cutk.Model):
    """One linear layer, and a normalisation."""

    name = "linear-layer"

    def build(self, shape, num_classes):
        flat = math.prod(shape)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(flat), nn.Linear(flat, num_classes))


class Words(cutk.Model):
    """The mean of what stands for each token."""

    name = "words"

    def build(self, shape, num_classes):
        if len(shape) > 1:
            raise cutk.UsageError("words needs tokens.")
        return nn.EmbeddingBag(50, num_classes)


class Colourful(Linear):
    """Takes coloured images alone."""

    def build(self, shape, num_classes):
        channels, _, _ = self.require_images(shape)
        if channels != 3:
            raise cutk.UsageError(f"linear-layer needs images of 3 channels, got {channels}.")
        return super().build(shape, num_classes)


def built(change):
    """Return a class that changes the sound network."""

    class Changed(Linear):
        def build(self, shape, num_classes):
            return change(super().build(shape, num_classes))

    return Changed


class OneClassTooMany(Linear):
    def build(self, shape, num_classes):
        return super().build(shape, num_classes + 1)


class TakesNothing(Linear):
    def build(self, shape, num_classes):
        raise cutk.UsageError("Too small.")


class FailsWithin(Linear):
    def build(self, shape, num_classes):
        if len(shape) == 1:
            return super().build(shape, num_classes)
        return nn.Sequential(nn.MaxPool2d(2), super().build((shape[0], shape[1] // 2, shape[2] // 2), num_classes))


class NeedsImages(Linear):
    def build(self, shape, num_classes):
        channels, _, _ = shape
        return nn.Sequential(nn.Conv2d(channels, num_classes, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten())


class SeedsWeights(Linear):
    def build(self, shape, num_classes):
        torch.manual_seed(0)
        return super().build(shape, num_classes)


class DrawsWeightsElsewhere(Linear):
    count = itertools.count().__next__

    def build(self, shape, num_classes):
        network = super().build(shape, num_classes)
        network[-1].bias.data += self.count()
        return network


def unused(network):
    network.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    return network


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class BatchMean(nn.Module):
    def forward(self, x):
        return x - 0.5 * x.mean(0)


class Hidden(nn.Module):
    """Has weights that no state dict knows of."""

    def __init__(self):
        super().__init__()
        self.scale = torch.rand(7)

    def forward(self, x):
        return x * self.scale


class NoCopy(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


class SetsThreads(Linear):
    def build(self, shape, num_classes):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().build(shape, num_classes)


SOUND = [Linear, Words, Colourful]
BROKEN = {
    "samples_become_logits": [OneClassTooMany, TakesNothing, built(lambda _network: None)],
    "refusals_say_why": [FailsWithin, NeedsImages],
    "seed_decides_the_weights": [SeedsWeights],
    "gradients_reach_every_parameter": [built(unused), built(lambda network: network.requires_grad_(False))],
    "evaluation_is_deterministic": [
        built(lambda network: nn.Sequential(network, AlwaysDrops())),
        built(lambda network: nn.Sequential(network, BatchMean())),
    ],
    "weights_survive_a_file": [built(lambda network: nn.Sequential(network, Hidden()))],
    "copies_are_their_own": [built(lambda network: NoCopy(network))],
    "same_seed_gives_the_same": [DrawsWeightsElsewhere],
    "nothing_global_is_left": [SetsThreads],
}
