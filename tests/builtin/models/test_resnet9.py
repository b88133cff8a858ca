from __future__ import annotations

import pytest
import torch

import cutk
from cutk_builtin.models.resnet9 import ResNet9


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet9_has_the_parameters_that_its_layers_add_up_to():
    # Convolutions without bias, two parameters a channel in each batch norm, a linear layer without bias.
    convolutions = [(3, 64, 9), (64, 128, 25), (128, 128, 9), (128, 128, 9), (128, 256, 9)]
    convolutions += [(256, 256, 9), (256, 256, 9), (256, 128, 9)]
    by_hand = sum(i * o * k + 2 * o for i, o, k in convolutions) + 128 * 10
    assert count_parameters(ResNet9().build((3, 32, 32), 10)) == by_hand


def test_resnet9_follows_its_width_and_refuses_small_images():
    model = ResNet9(ResNet9.Options(width=0.5)).build((3, 32, 32), 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model[0][0].out_channels == 32
    assert ResNet9(ResNet9.Options(width=0.1)).build((1, 11, 11), 3)(torch.zeros(2, 1, 11, 11)).shape == (2, 3)
    with pytest.raises(cutk.UsageError, match="too deep for images of 10×10 pixels; it needs 11×11"):
        ResNet9().build((3, 10, 10), 10)
