"""Noise with class structure, for tests and dry runs."""

from __future__ import annotations

import torch

import cutk

# As many as CIFAR-10 has, and some; while they are drawn, several floats are held for each.
MOST_VALUES = 2**28
PART = 1024


class Fake(cutk.Dataset):
    """Seeded noise around one random pattern per class: any size, no files, learnt in a few steps."""

    name = "fake"
    model = "convnet-small"
    recipe = {"steps": 60, "batch_size": 64, "crop_padding": 0, "flip": False}
    suggests = {
        "sgd": {"lr": 0.1},
        "badnet": {"fraction": 0.05},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 15},
        "badt": {"steps": 15},
        "neggrad-plus": {"steps": 15},
        "relabel": {"steps": 15},
        "scrub": {"steps": 15, "forget_steps": 3},
    }

    class Options(cutk.Options):
        """What the images look like."""

        samples: int = cutk.option(400, ge=20, help="training images")
        test_samples: int = cutk.option(200, ge=10, help="test images")
        classes: int = cutk.option(4, ge=2, le=1000, help="classes")
        channels: int = cutk.option(1, ge=1, help="colour channels")
        size: int = cutk.option(8, ge=1, help="height and width")
        noise: float = cutk.option(0.15, ge=0, help="standard deviation of the noise, of the pixel range")
        seed: int = cutk.option(0, ge=0, le=2**63 - 1, help="seed of patterns and noise")

    def load(self) -> cutk.Splits:
        """Draw the images; labels go round the classes, so that all are equally frequent."""
        o = self.options
        values = max(o.samples, o.test_samples, o.classes) * o.channels * o.size**2
        if values > MOST_VALUES:
            raise cutk.UsageError(
                f"Options of 'fake': expected at most {MOST_VALUES:,} pixel values in a part, got {values:,}. "
                "Ask for fewer samples, or smaller ones."
            )
        generator = torch.Generator().manual_seed(o.seed)
        patterns = torch.rand(o.classes, o.channels, o.size, o.size, generator=generator)

        def draw(count: int) -> cutk.Samples:
            labels = torch.arange(count) % o.classes
            noise = torch.randn(count, o.channels, o.size, o.size, generator=generator)
            pixels = torch.empty(noise.shape, dtype=torch.uint8)
            # In parts, since each step of this is a copy of floats, four times as large as what comes of it.
            for part, drawn, of in zip(pixels.split(PART), noise.split(PART), labels.split(PART), strict=True):
                part.copy_((patterns[of] + drawn.mul_(o.noise)).clamp_(0, 1).mul_(255).round_())
            return cutk.Samples(pixels, labels, tuple(f"class-{label}" for label in range(o.classes)))

        return cutk.Splits(train=draw(o.samples), test=draw(o.test_samples))


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``fake``."""
    return [Fake]
