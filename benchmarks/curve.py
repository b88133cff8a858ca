"""How well ``cifarnet`` learns CIFAR-10 with the recipe ``fast``, and how long that takes, for some widths and passes.

    python benchmarks/curve.py ROOT --width 0.5 --width 1 --passes 8 --passes 12 --seeds 2

ROOT holds ``cifar-10-batches-py``. Trained on 47,500 of the clean training images; the 2,500 others are for choosing,
and the test set for reporting. A line for each training, as JSON.

With ``--poisoned 250`` so many training images carry ``badnet``'s patch and its class, and attack success is told
as well: how many of them, in how many passes, does it take to teach a network a trigger?
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cutk import Corruption, Manipulation, Overlay
from cutk.chance import isolated_rng, stream
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.learning.network import initialised
from cutk.machine import choose_device, choose_precision, describe_machine, synchronise
from cutk.plugins.registry import load_registry
from cutk.problem.scenario import hold_out

Resident = Callable[..., ResidentTrainSet]


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--width", type=float, action="append")
    parser.add_argument("--passes", type=float, action="append")
    parser.add_argument("--poisoned", type=int, action="append", metavar="N", help="images that carry a trigger")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the recipe")
    return parser.parse_args()


def accuracy(recipe: object, model: torch.nn.Module, samples: ResidentTrainSet) -> float:
    """Return the share of right predictions."""
    predicted = recipe.predict(model, samples)  # type: ignore[attr-defined]
    return float((predicted == samples.labels.cpu()).float().mean())


def poison(badnet: type[Manipulation], train: Samples, count: int, seed: int) -> Corruption:
    """Let ``count`` images carry the patch."""
    if not count:
        return Corruption(train, torch.arange(0))
    return badnet(badnet.Options(count=count)).corrupt(train, stream(seed, "poison"))  # type: ignore[call-arg]


def attack(recipe: object, model: torch.nn.Module, resident: Resident, test: Samples, corruption: Corruption) -> float:
    """Return the share of test images of other classes that the trigger takes to its class."""
    if corruption.trigger is None or corruption.targets is None:
        return 0.0
    targets = torch.tensor(corruption.targets)[test.labels]
    others = (targets != test.labels).nonzero().flatten()
    aimed = test.changed(labels=targets).select(others)
    return accuracy(recipe, model, resident(aimed, [Overlay(corruption.trigger, torch.arange(len(others)))]))


def main() -> None:
    """Train what was asked for."""
    arguments = asked()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    registry = load_registry({"CUTK_PLUGINS": ""})
    dataset, network, fast = (
        registry.get(kind, name).component
        for kind, name in (("dataset", "cifar10"), ("model", "cifarnet"), ("recipe", "fast"))
    )
    badnet = registry.get("manipulation", "badnet").component
    device = choose_device(arguments.device)
    precision = choose_precision(arguments.precision, device)
    print(json.dumps({**describe_machine(device), "precision": precision}), flush=True)
    splits = dataset(dataset.Options(root=arguments.root)).load()
    normalisation = Normalisation.of(splits.train)
    grid = itertools.product(
        arguments.width or [0.5],
        arguments.passes or [8.0],
        arguments.poisoned or [0],
        range(arguments.first_seed, arguments.first_seed + arguments.seeds),
    )
    for width, passes, poisoned, seed in grid:
        train, held_out = hold_out(splits.train, 0.05, stream(seed, "hold-out"))
        steps = round(passes * len(train) / arguments.batch)
        given = dict(item.split("=", 1) for item in arguments.set)
        recipe = fast(fast.Options(**{"steps": steps, "batch_size": arguments.batch, **given})).on(device, precision)

        def resident(samples: Samples, overlays: Sequence[Overlay] = (), recipe: object = recipe) -> ResidentTrainSet:
            augmentation = recipe.options.augmentation  # type: ignore[attr-defined]
            return ResidentTrainSet(samples, normalisation, augmentation, device=device, overlays=overlays)

        corruption = poison(badnet, train, poisoned, seed)

        with isolated_rng(seed):
            shown = resident(corruption.train, corruption.overlays)
            model = network(network.Options(width=width)).build(train.shape, 10)
            model = initialised(recipe.place(model), shown)
            synchronise(device)
            start = time.perf_counter()
            recipe.train(model, shown, generator=torch.Generator().manual_seed(seed))
            synchronise(device)
            seconds = time.perf_counter() - start
        line = {"width": width, "passes": passes, "batch": arguments.batch, "seed": seed, **given}
        line |= {"seconds": round(seconds, 1), "step": round(seconds / steps, 5)}
        line["validation"] = 0.0 if held_out is None else round(accuracy(recipe, model, resident(held_out)), 4)
        line["test"] = round(accuracy(recipe, model, resident(splits.test)), 4)
        if poisoned:
            line |= {"poisoned": poisoned}
            line["attack"] = round(attack(recipe, model, resident, splits.test, corruption), 4)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
