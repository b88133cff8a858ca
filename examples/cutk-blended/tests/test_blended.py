import torch
from cutk_blended import Blended, noise_pattern

from cutk.testing import check_manipulation


def test_it_keeps_to_what_cutk_expects():
    check_manipulation(Blended)


def test_the_blend_by_hand():
    stamp = noise_pattern((1, 2, 2), ratio=0.25, seed=0)
    image = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    expected = (75 + 0.25 * stamp.pattern.double()).round().to(torch.uint8)
    assert torch.equal(stamp.apply(image)[0], expected)
