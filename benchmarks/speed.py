"""What cutk's choices are worth: ratios of two ways to do the same thing, measured in turn within one run.

    python benchmarks/speed.py

Each ratio is the median over pairs; the first pair warms up and doesn't count. It is one of processor time, on one
thread unless OMP_NUM_THREADS says otherwise, so that it hardly matters what else the machine does.
"""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Callable

import torch
from torchvision import transforms

from cutk.data.batches import Augmentation, Batch, ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.learning.recipe import Recipe
from cutk.machine import describe_machine
from cutk.plugins.registry import load_registry

PAIRS = 7
CPU = torch.device("cpu")


def processor_time() -> float:
    """Return the seconds that this process, and those that it waited for, have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = processor_time()
    work()
    return processor_time() - start


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> tuple[float, float, float]:
    """Return median, smallest and largest of slow / fast over the pairs."""
    ratios = [seconds(slow) / seconds(fast) for _ in range(PAIRS + 1)][1:]
    return statistics.median(ratios), min(ratios), max(ratios)


def random_images(count: int, channels: int, size: int) -> Samples:
    """Return noise."""
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    return Samples(pixels, torch.arange(count) % 10, tuple("0123456789"))


def recipe_in(precision: str, **options: object) -> Recipe:
    """Return the paper's recipe on the CPU."""
    component = load_registry({"CUTK_PLUGINS": ""}).get("recipe", "sgd").component
    return component(component.Options(**options)).on(CPU, precision)


def precision(name: str, channels: int, size: int, batch: int, **options: object) -> tuple[float, float, float]:
    """Compare training steps in fp32 with steps in bf16."""
    component = load_registry({"CUTK_PLUGINS": ""}).get("model", name).component
    samples = ResidentTrainSet(
        random_images(batch, channels, size), Normalisation((0.5,) * channels, (0.25,) * channels)
    )
    recipes = {p: recipe_in(p, batch_size=batch) for p in ("fp32", "bf16")}
    models = {
        p: r.place(component(component.Options(**options)).build((channels, size, size), 10))
        for p, r in recipes.items()
    }

    def steps(p: str) -> Callable[[], object]:
        return lambda: recipes[p].train(models[p], samples, steps=3)

    return ratio(steps("fp32"), steps("bf16"))


def layout() -> tuple[float, float, float]:
    """Compare training steps of resnet9 on contiguous batches with steps in channels-last layout."""
    component = load_registry({"CUTK_PLUGINS": ""}).get("model", "resnet9").component
    recipe = recipe_in("fp32")
    x, y = torch.randn(64, 3, 32, 32), torch.arange(64) % 10

    def steps(layout: torch.memory_format) -> Callable[[], object]:
        model = component(component.Options(width=0.5)).build((3, 32, 32), 10).to(memory_format=layout)
        batch = Batch(x.contiguous(memory_format=layout), y, y)
        return lambda: recipe.fit(model, [batch] * 3, steps=3, lr=1e-3)

    return ratio(steps(torch.contiguous_format), steps(torch.channels_last))


def augmentation() -> tuple[float, float, float]:
    """Compare torchvision's transforms, image by image, with the vectorised ones."""
    pixels = random_images(256, 3, 32).x
    one_by_one = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    generator = torch.Generator()
    return ratio(
        lambda: torch.stack([one_by_one(image) for image in pixels]),
        lambda: Augmentation(4, True).apply(pixels, generator),
    )


def main() -> None:
    """Print the ratios, with the machine that they hold for."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    machine = describe_machine(CPU)
    print(f"{machine['hardware']}, {machine['threads']} threads, torch {machine['torch']}; n = {PAIRS} pairs")
    rows = {
        "convnet-small, training: fp32 / bf16": lambda: precision("convnet-small", 1, 8, 128),
        "resnet9 (width 0.5), training: fp32 / bf16": lambda: precision("resnet9", 3, 32, 64, width=0.5),
        "resnet9 (width 0.5), fp32: contiguous / channels last": layout,
        "augmentation: torchvision per image / vectorised": augmentation,
    }
    for name, measure in rows.items():
        middle, low, high = measure()
        print(f"{name:54} {middle:6.2f}  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
