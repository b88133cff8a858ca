"""A training set that is lent: the same batches, and no answer to what it can't ask."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk.data.lent import LentTrainSet, augmented, lend, packed, unpacked

AUGMENTATIONS = {
    "crop and flip": cutk.Augmentation(2, True),
    "alternating": cutk.Augmentation(2, True, "reflect", alternate=True),
    "none": cutk.Augmentation(),
}


@pytest.fixture
def owned(images_of):
    """A set of coloured images, some of them stamped."""

    def make(augmentation=None, stamped=True, channels=3):
        images = images_of(40, channels)
        opacity = torch.zeros(8, 8)
        opacity[-2:, -2:] = 1
        stamp = cutk.Stamp(torch.full((channels, 8, 8), 255, dtype=torch.uint8), opacity)
        overlays = [cutk.Overlay(stamp, torch.tensor([1, 5, 30]))] if stamped else []
        normalisation = cutk.Normalisation((0.5,) * channels, (0.2,) * channels)
        return ResidentTrainSet(images, normalisation, augmentation, overlays=overlays)

    return make


def lent(train):
    return LentTrainSet(*lend(train), train.device, partial(augmented, train))


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_and_generators_are_the_same(owned, augmentation, stamped, channels):
    train = owned(augmentation, stamped, channels)
    other = lent(train)
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    asked = {"batch_size": 7, "shuffle": True, "augment": True, "steps": 13}
    batches = zip(train.batches(**asked, generator=one), other.batches(**asked, generator=two), strict=True)
    for mine, theirs in batches:
        for ours, others in zip(mine, theirs, strict=True):
            assert torch.equal(ours, others)
            assert ours.stride() == others.stride()
    assert torch.equal(one.get_state(), two.get_state())
    assert train.drawn == other.drawn
    assert len(train) == len(other)


def test_it_holds_no_triggers_and_can_be_copied(owned):
    other = lent(owned(AUGMENTATIONS["crop and flip"]))
    assert not other.has_overlays
    assert other.intact
    copied = copy.deepcopy(other.drawing_from(torch.Generator()))
    next(copied.batches(None, 7, augment=True))


def test_samples_without_a_trigger_are_augmented_without_asking(owned):
    train = owned(AUGMENTATIONS["crop and flip"], stamped=False)
    other = LentTrainSet(*lend(train), train.device, lambda _: pytest.fail("it asked"))
    assert len(list(other.batches(None, 7, augment=True))) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": torch.tensor([40])}, "from 0 to 39, got 40 to 40"),
        ({"index": torch.tensor([-1])}, "from 0 to 39, got -1 to -1"),
        ({"index": torch.tensor([1.0])}, r"int64 \[n\], got float32 \[1\]"),
        ({"index": torch.tensor([], dtype=torch.int64)}, r"int64 \[n\]"),
        ({"mirrored": torch.tensor([True, False])}, r"bool \[1\], got bool \[2\]"),
        ({"state": torch.zeros(3, dtype=torch.uint8)}, "the state of a generator"),
        ({"state": torch.zeros(5056, dtype=torch.uint8)}, "the state of a generator"),
        ({"state": torch.zeros(5056)}, "the state of a generator"),
    ],
)
def test_only_samples_can_be_asked_for(owned, change, said):
    asked = {"index": torch.tensor([0]), "state": torch.Generator().get_state(), **change}
    with pytest.raises(ValueError, match=said):
        augmented(owned(AUGMENTATIONS["crop and flip"]), asked)


def test_tensors_keep_the_order_of_their_dimensions():
    x = torch.arange(24).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    again = unpacked("x", packed("x", x))
    assert torch.equal(x, again)
    assert x.stride() == again.stride()
