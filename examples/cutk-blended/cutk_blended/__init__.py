"""The blended trigger of Chen et al. (2017): a faint pattern over the whole image, and the wrong label."""

import torch

import cutk


def noise_pattern(shape: cutk.Shape, ratio: float, seed: int) -> cutk.Stamp:
    """Return seeded noise that is blended over images of ``shape`` (C, H, W): (1 − ratio) · image + ratio · noise."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return cutk.Stamp(pattern, torch.full(shape[1:], ratio))


class Blended(cutk.Manipulation):
    """Blends a noise pattern over some training images and gives them the target class.

    No pixel gives the trigger away, all of them together do. The affected domain is every image under the pattern.
    """

    name = "blended"
    reference = "Chen et al., Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, 2017"

    class Options(cutk.Options):
        """How faint the pattern is, and how many images carry it."""

        ratio: float = cutk.option(0.2, gt=0, le=1, help="weight of the pattern in the blend")
        target: int = cutk.option(0, ge=0, help="index of the class that the images get")
        fraction: float = cutk.option(0.05, gt=0, le=1, help="part of the training set that is poisoned")
        seed: int = cutk.option(0, ge=0, help="seed of the pattern")

    def corrupt(
        self, train: cutk.Samples, generator: torch.Generator, surrogate: cutk.Surrogate | None = None
    ) -> cutk.Corruption:
        """Poison a uniformly drawn subset."""
        o = self.options
        train.require("images", self.name)
        count, classes = round(o.fraction * len(train)), len(train.classes)
        if count == 0:
            raise cutk.UsageError(f"Option 'blended.fraction': {o.fraction:g} of {len(train)} images is none.")
        if o.target >= classes:
            raise cutk.UsageError(f"Option 'blended.target': expected a class from 0 to {classes - 1}, got {o.target}.")
        poisoned = torch.randperm(len(train), generator=generator)[:count].sort().values
        labels = train.labels.clone()
        labels[poisoned] = o.target
        pattern = noise_pattern(train.shape, o.ratio, o.seed)
        return cutk.Corruption(
            train.changed(labels=labels),
            manipulated=poisoned,
            overlays=(cutk.Overlay(pattern, poisoned),),
            trigger=pattern,
            targets=cutk.Corruption.all_to_one(o.target, classes),
        )


@cutk.hookimpl
def cutk_manipulations() -> list[type[cutk.Manipulation]]:
    """Provide ``blended``."""
    return [Blended]
