"""No step waits for the device: nothing in a loop asks for a value that only the device knows."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cutk.components import Unlearner
from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.data.samples import Normalisation, Samples
from cutk.data.triggers import Overlay, Stamp
from cutk.learning.distillation import kl_divergence
from cutk.plugins.registry import load_registry
from cutk.problem.task import Task
from cutk_builtin.unlearners.badt import Teachers, teach

REGISTRY = load_registry({"CUTK_PLUGINS": ""})
RECIPES = [entry.name for entry in REGISTRY.of_kind("recipe")]
# What gives Python a number, or a tensor whose size depends on values.
ASKING = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "unique", "masked_select")


def sums(x):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )


class Asked(TorchDispatchMode):
    """Counts questions to the device, by the line that asks; the optimisers' own counters lie on the CPU anyway."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__.lstrip("_").startswith(tuple(name.lstrip("_") for name in ASKING)):
            frame = sys._getframe(1)
            while (
                frame is not None
                and "/torch/" in frame.f_code.co_filename
                and "/optim/" not in frame.f_code.co_filename
            ):
                frame = frame.f_back
            if frame is not None and "/torch/" not in frame.f_code.co_filename:
                self.lines.append((frame.f_code.co_filename.rpartition("/")[2], frame.f_lineno))
        return function(*args, **(kwargs or {}))


def poisoned(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    samples = Samples(x, torch.arange(40) % 2, ("a", "b"))
    opacity = torch.zeros(8, 8)
    opacity[:2, :2] = 1.0
    overlay = Overlay(Stamp(torch.full((3, 8, 8), 255, dtype=torch.uint8), opacity), torch.arange(0, 40, 3))
    augmentation = Augmentation(1, True)
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    return ResidentTrainSet(samples, normalisation, augmentation, device=device, overlays=[overlay])


def recipe_called(name, device="cpu"):
    component = REGISTRY.get("recipe", name).component
    return component(component.Options(batch_size=8, steps=4)).on(device)


def asked(work):
    with Asked() as mode:
        work()
    return mode.lines


def of_the_study(lines):
    """Leave out what is asked of the CPU: which samples carry a trigger, and which are in S_f where BadT is sparing."""
    return [line for line in lines if line[0] not in ("batches.py", "badt.py")]


def test_badt_asks_nothing_where_that_would_be_the_device():
    batch = next(poisoned().batches(None, 6))
    teachers = Teachers(bad=lambda batch: torch.ones(len(batch.x), 2), original=lambda batch: torch.zeros(6, 2))
    forget = torch.arange(6) % 2 == 0
    assert asked(lambda: teach(batch, forget, teachers, sparing=True)) != []
    assert asked(lambda: teach(batch, forget, teachers, sparing=False)) == []


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_of_training_asks_the_device(name):
    recipe, train = recipe_called(name), poisoned()
    lines = {
        steps: of_the_study(asked(lambda steps=steps: recipe.train(recipe.place(sums(None)), train, steps=steps)))
        for steps in (2, 7)
    }
    assert lines[2] == lines[7]  # once for a training, at its end


def test_a_loop_that_asks_would_be_found():
    recipe, train = recipe_called("sgd"), poisoned()

    def curious(logits, batch):
        loss = torch.nn.functional.cross_entropy(logits, batch.y)
        loss.item()
        return loss

    def steps(count):
        batches = train.batches(None, 8, shuffle=True, augment=True, steps=count)
        return len(of_the_study(asked(lambda: recipe.fit(sums(None), batches, curious, steps=count))))

    assert steps(7) == steps(2) + 5


def test_distillation_asks_nothing():
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    assert asked(lambda: kl_divergence(student, teacher, 2.0).backward()) == []


def methods():
    for entry in REGISTRY.of_kind("unlearner"):
        component = entry.component
        if "steps" in component.Options.model_fields:
            yield component


@pytest.mark.parametrize("component", list(methods()), ids=lambda component: component.name)
def test_no_step_of_a_method_asks_the_device(component: type[Unlearner]):
    recipe, train = recipe_called("sgd"), poisoned()
    more = {"forget_steps": 2} if "forget_steps" in component.Options.model_fields else {}

    def unlearn(steps):
        task = Task(sums(None).eval(), train, torch.arange(0, 12, 3), recipe, build=lambda: sums(None))
        method = component(component.Options(steps=steps, **more))
        return of_the_study(asked(lambda: method.unlearn(task, method.prepare(task))))

    few, many = unlearn(4), unlearn(9)
    counts = [{line: len(list(same)) for line, same in itertools.groupby(sorted(lines))} for lines in (few, many)]
    assert counts[0] == counts[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_on_a_gpu_waits(name):
    recipe, train = recipe_called(name, "cuda"), poisoned("cuda")
    model = recipe.place(sums(None))
    recipe.train(model, train, steps=2)  # what is set up once may wait
    steps = []

    def progress(done, total):
        torch.cuda.set_sync_debug_mode("error" if done < total else "default")
        steps.append(done)

    try:
        recipe.train(model, train, steps=7, progress=progress)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 7
