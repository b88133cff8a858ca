from __future__ import annotations

import pytest
import torch

import cutk
from cutk_builtin.models.convnet_small import ConvNetSmall


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 32, 32), (4, 17, 9)])
def test_convnet_small_takes_any_channels_and_size(shape):
    model = ConvNetSmall().build(shape, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_convnet_small_refuses_smaller_images():
    with pytest.raises(cutk.UsageError, match="at least 8×8 pixels, got 7×9"):
        ConvNetSmall().build((1, 7, 9), 10)
