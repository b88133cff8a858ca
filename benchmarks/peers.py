"""What cutk does against what people write by hand: ratios measured in turn within one run.

    python benchmarks/peers.py

The other side of each pair is what a careful author of a script would write. As in ``speed.py``, each ratio is the
median over pairs, and the first pair warms up.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed import CPU, random_images, recipe_in, seconds
from torch import nn
from torchvision import transforms

from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.machine import describe_machine
from cutk.plugins.registry import load_registry
from cutk.problem.task import Task

PAIRS = 3
BATCH = 64
MEAN, STD = (0.5,) * 3, (0.25,) * 3
PYTHON = (sys.executable, "-m", "cutk")
QUICK = ("-d", "breast-cancer", "-m", "asymmetric-noise", "-o", "asymmetric-noise.rate=0.2", "--recipe", "steps=2")


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> tuple[float, float, float]:
    """Return median, smallest and largest of slow / fast over the pairs."""
    ratios = [seconds(slow) / seconds(fast) for _ in range(PAIRS + 1)][1:]
    return statistics.median(ratios), min(ratios), max(ratios)


def component(kind: str, name: str) -> Any:
    """Return a built-in component's class."""
    return load_registry({"CUTK_PLUGINS": ""}).get(kind, name).component


def network() -> nn.Module:
    """Return ResNet-9 of half the width."""
    resnet9 = component("model", "resnet9")
    made: nn.Module = resnet9(resnet9.Options(width=0.5)).build((3, 32, 32), 10)
    return made


def train_set(samples: Samples, augmentation: Augmentation | None = None) -> ResidentTrainSet:
    """Return samples as a developer holds them."""
    return ResidentTrainSet(samples, Normalisation(MEAN, STD), augmentation)


class Loop:
    """Training as a script does it: a ``DataLoader`` that transforms one image after the other, SGD, fp32."""

    def __init__(self, samples: Samples) -> None:
        steps = [transforms.ToPILImage(), transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        self.samples, self.model = samples, network()
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.samples.x[position]), int(self.samples.labels[position])

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take one step."""
        self.optimiser.zero_grad()
        nn.functional.cross_entropy(self.model(x), y).backward()
        self.optimiser.step()

    def run(self) -> None:
        """Go once over the samples."""
        self.model.train()
        loader: Any = torch.utils.data.DataLoader(self, BATCH, shuffle=True, drop_last=True)  # type: ignore[arg-type]
        for x, y in loader:
            self.step(x, y)


def training() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Compare training with a script's loop, and with the bare step on one batch that lies there already."""
    samples = random_images(3 * BATCH, 3, 32)
    loop, recipe = Loop(samples), recipe_in("fp32", batch_size=BATCH)
    model = recipe.place(network())
    train = train_set(samples, Augmentation(4, True))
    steps = len(samples) // BATCH

    def ours() -> None:
        recipe.train(model, train, steps=steps, lr=1e-3)

    bare = Loop(samples)
    bare.model = recipe.place(bare.model).train()
    bare.optimiser = torch.optim.SGD(bare.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    batch = next(train.batches(None, BATCH))

    def bare_steps() -> None:
        for _ in range(steps):
            bare.step(batch.x, batch.y)

    return ratio(loop.run, ours), ratio(ours, bare_steps)


def by_hand(model: nn.Module, x: torch.Tensor, y: torch.Tensor, size: int = BATCH) -> dict[str, torch.Tensor]:
    """Return SSD's importances as its published code computes them, batch by batch."""
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    batches = list(zip(x.split(size), y.split(size), strict=True))
    for images, labels in batches:
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        for name, p in model.named_parameters():
            found[name] += p.grad.pow(2) / len(batches)  # type: ignore[union-attr]
    return found


def search() -> tuple[float, float, float]:
    """Compare SSD's grid of 50 points with as many separate runs that each compute both importances."""
    ssd, small = component("unlearner", "ssd"), component("model", "convnet-small")
    samples = random_images(512, 3, 32)
    model = small(small.Options()).build((3, 32, 32), 10).eval()
    train, identified = train_set(samples), torch.arange(0, 512, 8)
    task = Task(model, train, identified, recipe_in("fp32"))
    scaled = (samples.x.float() / 255 - 0.5) / 0.25
    retained = task.retained

    def ours() -> None:
        state = ssd(ssd.Options(batch_size=BATCH)).prepare(task.private(0))
        for point in ssd.grid:
            ssd(ssd.Options(batch_size=BATCH, **point)).unlearn(task.private(0), state)

    def separately() -> None:
        for _ in range(5):  # a tenth of them
            for part in (identified, retained):
                by_hand(model, scaled[part], samples.labels[part])

    median, low, high = ratio(separately, ours)
    return 10 * median, 10 * low, 10 * high


def fractions() -> tuple[float, float, float]:
    """Compare SSD's grid at ten α with 500 separate runs that each compute both importances exactly."""
    ssd, small = component("unlearner", "ssd"), component("model", "convnet-small")
    samples = random_images(4096, 3, 32)
    model = small(small.Options()).build((3, 32, 32), 10).eval()
    train = train_set(samples)
    found = [torch.arange(0, count) for count in range(2, 22, 2)]
    scaled = (samples.x.float() / 255 - 0.5) / 0.25

    def ours() -> None:
        surveyed = None
        for identified in found:
            task = Task(model, train, identified, recipe_in("fp32"))
            method = ssd(ssd.Options(batch_size=BATCH, fisher="per-sample"))
            surveyed = method.survey(task.knowing_nothing()) if surveyed is None else surveyed
            task.surveyed = surveyed
            state = method.prepare(task)
            for point in ssd.grid:
                ssd(ssd.Options(batch_size=BATCH, fisher="per-sample", **point)).unlearn(task.private(0), state)

    def separately() -> None:  # a five-hundredth of them
        by_hand(model, scaled, samples.labels, size=1)

    median, low, high = ratio(separately, ours)
    return 500 * median, 500 * low, 500 * high


def commands() -> dict[str, tuple[float, float, float]]:
    """Compare reading a finished plan with importing torch, and help with importing click."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, env=environ, check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        again = (*PYTHON, "bench", "-u", "none", *QUICK, "--runs", str(Path(folder) / "runs"))
        subprocess.run(again, env=environ, check=True, capture_output=True)
        return {
            "a finished plan read again / importing torch": ratio(
                run(*again), run(sys.executable, "-c", "import torch")
            ),
            "cutk --help / importing click": ratio(run(*PYTHON, "--help"), run(sys.executable, "-c", "import click")),
        }


def main() -> None:
    """Print the ratios, with the machine that they hold for."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    machine = describe_machine(CPU)
    print(f"{machine['hardware']}, {machine['threads']} threads, torch {machine['torch']}; n = {PAIRS} pairs")
    start = time.perf_counter()
    loop, bare = training()
    rows = {
        "resnet9 (width 0.5), training: a script's loop / cutk": loop,
        "resnet9 (width 0.5), training: cutk / the bare step": bare,
        "SSD: 50 runs by hand / one search": search(),
        "SSD, exact: 500 runs by hand / ten α": fractions(),
        **commands(),
    }
    for name, (middle, low, high) in rows.items():
        print(f"{name:54} {middle:6.2f}  ({low:.2f} to {high:.2f})")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
