"""What a repair is given: the methods to try, and a user's model and data as methods see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cutk.chance import derive_seed
from cutk.components import Dataset
from cutk.data.batches import TrainSet
from cutk.data.triggers import Stamp
from cutk.errors import UsageError
from cutk.learning.recipe import Recipe
from cutk.machine import choose_device, choose_precision, repeatable
from cutk.plugins.registry import Registry
from cutk.problem.task import Task
from cutk.repair.inputs import reinitialised
from cutk.repair.judging import Seen, attacked, judged, seen, taught
from cutk.repair.records import Judged, Limits, Sanity
from cutk.repair.sanity import checked
from cutk.run.chosen import Chosen, providers_of
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import choose, require_said_once

__all__ = ["PRESET", "Methods", "Problem", "Tell", "methods_of", "opened"]

PRESET = "unlearn"
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Methods:
    """What is to be tried, and how it is chosen: the parts of a plan that a repair needs, settled."""

    unlearners: tuple[Chosen, ...]
    selector: Chosen
    recipe: Chosen
    device: torch.device
    precision: str
    limits: Limits
    seed: int = 0
    detector: Chosen | None = None  # who ranks suspects

    def providers(self) -> dict[str, str]:
        """Return the version of each distribution that takes part."""
        return providers_of((*self.unlearners, self.selector, self.recipe, *([self.detector] if self.detector else [])))


def methods_of(
    registry: Registry,
    given: Mapping[str, Any],
    limits: Limits,
    seed: int = 0,
    dataset: type[Dataset] | None = None,
    suspects_by: str | None = None,
) -> Methods:
    """Look up every name and validate every option; what isn't ``given`` is the preset's for repairs.

    ``dataset`` suggests options that suit the data; if not given, the preset's does. ``suspects_by`` names a detector.

    Raises:
        UsageError: for the first name or option that doesn't fit.
    """
    content = layer(layer(read_preset("default", registry), read_preset(PRESET, registry)), given)
    suiting: Any = dataset or registry.get("dataset", content["dataset"]).component
    own = {name for name, values in dict(given.get("options", {})).items() if values}
    plan = Plan.parse(content)
    names = plan.unlearners
    if "all" in names:
        names = tuple(entry.name for entry in registry.of_kind("unlearner"))
    entries = {
        "unlearner": [registry.get("unlearner", name) for name in dict.fromkeys(names)],
        "selector": [registry.get("selector", plan.select)],
        "recipe": [registry.get("recipe", str(plan.recipe.get("name")))],
        "detector": [registry.get("detector", suspects_by)] if suspects_by else [],
    }
    parts = [part for those in entries.values() for entry in those for part in (entry, *entry.parts)]
    used = {name for part in parts for name in (part.name, part.family)}
    for name in sorted(own - used):
        registry.find(name)  # a name that nobody has gets the better message
        raise UsageError(f"Options for '{name}' are given, and it isn't used: {', '.join(sorted(used))}.")
    require_said_once(parts, plan.options)
    chosen = {kind: [choose(entry, plan, suiting) for entry in those] for kind, those in entries.items()}
    device = choose_device(plan.device)
    # A user's numbers are float32's, unless bf16 is asked for.
    precision = "fp32" if plan.precision == "auto" else choose_precision(plan.precision, device)
    (selector,), (recipe,), detector = chosen["selector"], chosen["recipe"], next(iter(chosen["detector"]), None)
    return Methods(tuple(chosen["unlearner"]), selector, recipe, device, precision, limits, seed, detector)


@dataclass
class Problem:
    """A user's model and data as methods are given them, and what the original says of them.

    ``stands_in`` says that training samples stand in for validation samples that weren't given.
    """

    task: Task
    classes: tuple[str, ...]
    names: tuple[str, ...] | None
    stands_in: bool
    recipe: Recipe
    says: Seen
    calls: Tensor | None  # which classes the bad samples call what, bool [classes, classes]
    original: Judged
    sanity: Sanity
    build: Callable[[], nn.Module]  # makes the architecture with new weights
    hashes: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0
    positions: Tensor | None = None  # int64 [N]: where samples stood before unreadable ones were left out
    trigger: Stamp | None = None  # suspected by the user

    def position(self, index: int) -> int:
        """Return a training sample's index in the data as they were given."""
        return index if self.positions is None else int(self.positions[index])

    def attack(self, model: nn.Module) -> dict[str, Any]:
        """Return how often the suspected trigger makes validation samples what the bad ones are predicted as.

        The keys are fields of ``Judged``, which hold nothing where no trigger is suspected.
        """
        if self.trigger is None or self.task.validation is None:
            return {"attack": None, "attack_without": None, "attack_alone": 0}
        target = int(self.says.train.predicted[self.task.identified].mode().values)
        return attacked(model, self.task.validation, self.trigger, target, self.recipe)

    def suspect(self, trigger: Stamp) -> None:
        """Measure a trigger from now on, the original first."""
        self.trigger = trigger
        self.original = self.original.model_copy(update=self.attack(self.task.original))


def opened(
    model: nn.Module,
    train: TrainSet,
    bad: Tensor,
    validation: TrainSet | None,
    methods: Methods,
    classes: tuple[str, ...],
    *,
    names: tuple[str, ...] | None = None,
    build: Callable[[], nn.Module] | None = None,
    recipe: Recipe | None = None,
    stand_in: Callable[[Tensor], TrainSet],
    bgr: bool = False,
    python: bool = False,
    tell: Tell = lambda _what, _done, _total: None,
) -> Problem:
    """Ask the original about everything; ``stand_in`` makes a validation set of training samples that aren't bad.

    ``python`` says that whoever asks does so by ``cutk.unlearn``.
    """
    repeatable(methods.device)
    recipe = methods.recipe.make() if recipe is None else recipe
    recipe = recipe.on(methods.device, methods.precision)
    original = recipe.place(model).eval()
    stands_in = validation is None
    held_out = stand_in(bad) if validation is None else validation
    made_anew = build or partial(reinitialised, original)
    task = Task(
        original,
        train,
        bad,
        recipe,
        build=made_anew,
        validation=held_out,
        initialisation_seed=derive_seed(methods.seed, "initialisation"),
        order_seed=derive_seed(methods.seed, "order"),
    )
    says = seen(original, task, partial(tell, "original"))
    calls = None if stands_in else taught(original, task)
    about = judged("original", says, says, task, classes, calls)
    predicted = torch.zeros(0) if says.validation is None else says.validation
    sanity = checked(original, held_out, predicted, about, recipe, classes, bgr, stands_in, python)
    return Problem(task, classes, names, stands_in, recipe, says, calls, about, sanity, made_anew)
