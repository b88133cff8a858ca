"""What a pass over CIFAR-10's training set costs here, for training and for looking: measured on noise of its size.

    python benchmarks/passes.py resnet9 wide-resnet cifarnet:width=0.5 --batch 512 --steps 20

A line of JSON for each network. What a whole benchmark takes follows from it: see docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.learning.network import initialised, operations
from cutk.machine import choose_device, choose_precision, describe_machine, synchronise
from cutk.plugins.registry import load_registry

SAMPLES = 47_500


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="+")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--recipe", default="sgd")
    arguments = parser.parse_args()
    registry = load_registry({"CUTK_PLUGINS": ""})
    device = choose_device(arguments.device)
    precision = choose_precision(arguments.precision, device)
    learns = registry.get("recipe", arguments.recipe).component
    recipe = learns(learns.Options(batch_size=arguments.batch)).on(device, precision)
    pixels = torch.randint(0, 256, (8 * arguments.batch, 3, 32, 32), dtype=torch.uint8)
    samples = Samples(pixels, torch.arange(len(pixels)) % 10, tuple("0123456789"))
    train = ResidentTrainSet(samples, Normalisation((0.5,) * 3, (0.25,) * 3), Augmentation(4, True), device=device)
    for asked in arguments.network:
        name, *options = asked.split(":")
        network = registry.get("model", name).component
        made = network(network.Options(**dict(option.split("=") for option in options))).build((3, 32, 32), 10)
        work = operations(made, torch.zeros(1, 3, 32, 32))
        model = initialised(recipe.place(made), train)

        def timed(steps: int, model: torch.nn.Module = model) -> float:
            synchronise(device)
            start = time.perf_counter()
            recipe.train(model, train, steps=steps)
            synchronise(device)
            return time.perf_counter() - start

        timed(3)  # warms up
        step = min(timed(arguments.steps) for _ in range(3)) / arguments.steps
        looks = []
        for _ in range(3):
            start = time.perf_counter()
            recipe.logits(model, train)
            looks.append(time.perf_counter() - start)
        line = {"network": asked, "batch": arguments.batch, "step": round(step, 5)}
        line |= {"training_pass": round(step * SAMPLES / arguments.batch, 2)}
        line |= {"forward_pass": round(min(looks) * SAMPLES / len(pixels), 2)}
        line |= {"operations_of_a_step": round(3 * work * arguments.batch), "precision": precision}
        print(json.dumps(line | describe_machine(device)), flush=True)


if __name__ == "__main__":
    main()
