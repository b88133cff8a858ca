from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutk
from cutk.data.batches import Augmentation, ResidentTrainSet


def naive_augment(pixels, pad, generator, flip):
    """One image at a time, with slices, from the same draws."""
    count, channels, height, width = pixels.shape
    shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < (0.5 if flip else 0.0)
    result = []
    for i in range(count):
        canvas = np.zeros((channels, height + 2 * pad, width + 2 * pad), np.uint8)
        canvas[:, pad : pad + height, pad : pad + width] = pixels[i].numpy()
        top, left = int(shift[0, i]), int(shift[1, i])
        crop = canvas[:, top : top + height, left : left + width]
        result.append(torch.from_numpy((crop[:, :, ::-1] if mirrored[i] else crop).copy()))
    return torch.stack(result)


@settings(max_examples=25, deadline=None)
@given(pad=st.integers(0, 4), flip=st.booleans(), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_augmentation_equals_cropping_and_flipping_each_image(pad, flip, channels, seed):
    pixels = torch.randint(0, 256, (5, channels, 6, 7), dtype=torch.uint8)
    fast = Augmentation(pad, flip).apply(pixels, torch.Generator().manual_seed(seed))
    assert torch.equal(fast, naive_augment(pixels, pad, torch.Generator().manual_seed(seed), flip))


def test_half_of_the_images_are_flipped_and_all_shifts_occur():
    pixels = torch.zeros(4000, 1, 3, 3, dtype=torch.uint8)
    pixels[:, 0, 1, 0] = 1
    shifted = Augmentation(1, True).apply(pixels, torch.Generator().manual_seed(0))
    seen = {tuple(map(int, where)) for where in (shifted[:, 0] == 1).nonzero()[:, 1:]}
    assert seen == {(row, column) for row in range(3) for column in range(3)}
    flipped = Augmentation(0, True).apply(pixels, torch.Generator().manual_seed(0))
    assert 0.47 < float((flipped[:, 0, 1, 2] == 1).double().mean()) < 0.53


def test_normalisation_equals_numpy(images_of):
    images = images_of(count=20, channels=3)
    measured = cutk.Normalisation.of(images)
    scaled = images.pixels.numpy() / 255
    np.testing.assert_allclose(measured.mean, scaled.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(measured.std, scaled.std((0, 2, 3)), rtol=1e-9)


def test_a_constant_channel_gets_the_standard_deviation_one():
    images = cutk.Images(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ("a",))
    assert cutk.Normalisation.of(images).std == (1.0,)


def test_batches_are_normalised_and_in_channels_last_layout(images_of):
    images = images_of(count=6, channels=3)
    normalisation = cutk.Normalisation((0.2, 0.4, 0.5), (0.5, 0.25, 0.1))
    samples = ResidentTrainSet(images, normalisation)
    (batch,) = samples.batches()
    mean = torch.tensor(normalisation.mean).view(-1, 1, 1)
    std = torch.tensor(normalisation.std).view(-1, 1, 1)
    torch.testing.assert_close(batch.x, (images.pixels / 255 - mean) / std)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.y, images.labels)
    assert torch.equal(batch.index, torch.arange(6))


def test_one_pass_visits_every_sample_once(plain_set):
    samples = plain_set()
    seen = torch.cat([batch.index for batch in samples.batches(batch_size=4, shuffle=True)])
    assert [len(batch.index) for batch in samples.batches(batch_size=4)] == [4, 4, 2]
    assert torch.equal(seen.sort().values, torch.arange(10))


def test_steps_yield_full_batches_over_whole_passes(plain_set):
    batches = list(plain_set().batches(torch.tensor([1, 3, 5, 7, 9]), 2, shuffle=True, steps=5))
    assert [len(batch.index) for batch in batches] == [2] * 5
    visits = torch.cat([batch.index for batch in batches])
    assert torch.equal(visits[:5].sort().values, torch.tensor([1, 3, 5, 7, 9]))
    assert torch.equal(visits[5:].sort().values, torch.tensor([1, 3, 5, 7, 9]))


def test_a_set_smaller_than_a_batch_is_yielded_whole(plain_set):
    batches = list(plain_set().batches(torch.tensor([4, 2]), 64, steps=3))
    assert [batch.index.tolist() for batch in batches] == [[4, 2]] * 3


def test_one_seed_gives_one_order(plain_set):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return [b.index.tolist() for b in plain_set().batches(None, 3, shuffle=True, generator=generator)]

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("kwargs", [{"batch_size": 0}, {"steps": 0}, {"indices": torch.empty(0, dtype=torch.int64)}])
def test_impossible_batches_are_refused(plain_set, kwargs):
    with pytest.raises(ValueError, match="Expected"):
        next(plain_set().batches(**kwargs))


def test_a_stamp_replaces_or_blends():
    stamp = cutk.Stamp(torch.full((1, 1, 3), 200, dtype=torch.uint8), torch.tensor([[0.0, 0.25, 1.0]]))
    assert stamp.apply(torch.full((1, 1, 1, 3), 100, dtype=torch.uint8)).flatten().tolist() == [100, 125, 200]


def test_a_stamp_lies_over_the_augmented_image(images_of, plain_set):
    stamp = cutk.Stamp(torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(8, 8))
    stamp.opacity[7, 7] = 1
    samples = plain_set(images_of(), augmentation=Augmentation(4, True), stamp=stamp, stamped=torch.tensor([2, 5]))
    clean = plain_set(images_of(), augmentation=Augmentation(4, True))
    for seed in range(10):
        (with_stamp,) = samples.batches(augment=True, generator=torch.Generator().manual_seed(seed))
        (without,) = clean.batches(augment=True, generator=torch.Generator().manual_seed(seed))
        assert (with_stamp.x[[2, 5], 0, 7, 7] == 1).all()
        different = (with_stamp.x != without.x).flatten(1).any(1).nonzero().flatten()
        assert set(different.tolist()) <= {2, 5}


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), "Expected pixels uint8"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "Expected labels int64"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2]), "Expected labels from 0 to 1"),
    ],
)
def test_malformed_images_are_refused(pixels, labels, message):
    with pytest.raises(ValueError, match=message):
        cutk.Images(pixels, labels, ("a", "b"))


def test_the_fingerprint_changes_with_any_pixel_or_label(images_of):
    def fingerprint(**changes):
        images = images_of()
        for name, value in changes.items():
            getattr(images, name)[0] = value
        return cutk.Splits(images, images_of(seed=1)).fingerprint()

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(pixels=0), fingerprint(labels=2)}) == 3
