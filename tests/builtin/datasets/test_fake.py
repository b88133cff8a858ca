from __future__ import annotations

import pytest
import torch

from cutk_builtin.datasets.fake import MOST_VALUES, Fake


def test_images_scatter_around_a_pattern_for_each_class(load):
    splits = load(Fake, samples=300, classes=3, channels=2, size=5, noise=0.05)
    assert (len(splits.train), len(splits.test), splits.train.shape) == (300, 200, (2, 5, 5))
    assert torch.bincount(splits.train.labels).tolist() == [100] * 3
    x = splits.train.x.float() / 255
    for label in range(3):
        mine = x[splits.train.labels == label]
        inside = (mine.mean(0) > 0.2) & (mine.mean(0) < 0.8)  # where nothing is cut off
        assert abs(float(mine.std(0)[inside].mean()) - 0.05) < 0.005
        assert (mine.mean(0) - (splits.test.x.float() / 255)[splits.test.labels == label].mean(0)).abs().max() < 0.05


def test_a_seed_fixes_the_images(load):
    one, same, other = (load(Fake, seed=seed).fingerprint() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 10**9},
        {"test_samples": 10**12},
        {"size": 10**6},
        {"channels": 10**8},
        {"classes": 1000, "size": 2000},
    ],
)
def test_more_than_fits_into_memory_is_refused(options, message):
    text = message(Fake, **options)
    assert text.startswith(f"Options of 'fake': expected at most {MOST_VALUES:,} pixel values in a part, got ")


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        Fake.Options(seed=seed)
