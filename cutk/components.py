"""Base classes of everything a plugin can provide.

A component's class attributes say what it is called and what it can be told; its constructor takes validated options
and does no work. The base classes import no torch: that is left to the plugins.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cutk.options import Options as _Options

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cutk.data.batches import Stamp
    from cutk.data.samples import Images, Shape, Splits
    from cutk.problem.task import Task
    from cutk.problem.truth import Curve, Evaluation

__all__ = [
    "KINDS",
    "Breakdown",
    "Component",
    "Corruption",
    "Dataset",
    "Manipulation",
    "Metric",
    "Model",
    "Sizes",
    "Summary",
    "Unlearner",
    "problem_with",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Words that the command line and the records use for something else.
_RESERVED = frozenset({"all", "gold", "recipe"})


class Component:
    """What all kinds of components have in common.

    Attributes:
        kind: which kind this is, as the command line calls it.
        required: methods of which an author must override at least one.
        name: how users call it: lower-case letters, digits, hyphens and underscores.
        reference: the paper or page it comes from.
        variant: the option that is set by what stands behind a colon in the name: with ``"architecture"``, users
            may ask for ``name:resnet18``.
        Options: what users can set; a subclass of ``cutk.Options``.
    """

    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    name: ClassVar[str]
    reference: ClassVar[str] = ""
    variant: ClassVar[str] = ""
    Options: ClassVar[type[_Options]] = _Options

    def __init__(self, options: _Options | None = None) -> None:
        self.options: Any = self.Options() if options is None else options

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the class's docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]


class Dataset(Component):
    """Labelled images, split into a training pool and a test set.

    Attributes:
        model: the name of the model that suits these images, used when none is asked for.
        recipe: recipe options that suit them, over the recipe's own defaults.
        suggests: for other components by name, the options that suit this dataset, over their own defaults.

    A dataset whose files lie on disk calls their folder ``root`` in its ``Options`` (``--data-root`` sets it), and
    the permission to fetch them ``download`` (``--download``).
    """

    kind = "dataset"
    required = ("load",)
    model: ClassVar[str] = ""
    recipe: ClassVar[Mapping[str, Any]] = {}
    suggests: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def load(self) -> Splits:
        """Return the splits, clean.

        Raises:
            UsageError: if the files aren't there; the message says how to get them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load()")


@dataclass(frozen=True, eq=False)
class Corruption:
    """What an adversary did.

    Attributes:
        train: the training set after the manipulation: same length and order, pixels and labels as given.
        manipulated: int64 ``[n]``, sorted: the indices of S_m.
        stamp: laid over the manipulated samples after augmentation, whenever they are read; for manipulations that
            lie in the files it is none, and the pixels of ``train`` carry them.
        trigger: what the adversary lays over unseen images to make the model err; none if nothing is added.
        affected_classes: the clean classes of the affected domain D_m; all of them if none.
        target: the class that a trigger should lead to, if there is one.
    """

    train: Images
    manipulated: Tensor
    stamp: Stamp | None = None
    trigger: Stamp | None = None
    affected_classes: tuple[int, ...] | None = None
    target: int | None = None


class Manipulation(Component):
    """A way in which part of the training data goes bad."""

    kind = "manipulation"
    required = ("corrupt",)

    def corrupt(self, train: Images, generator: torch.Generator) -> Corruption:
        """Manipulate ``train`` and say what was done; ``train`` itself stays as it is.

        Args:
            train: clean images.
            generator: a seeded CPU generator, the only source of chance.

        Raises:
            UsageError: if the options don't fit these images.
        """
        raise NotImplementedError(f"{type(self).__name__} has no corrupt()")


class Model(Component):
    """A network architecture for image classification."""

    kind = "model"
    required = ("build",)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """Return a newly initialised network that maps float32 ``[B, *shape]`` to logits ``[B, num_classes]``.

        Chance comes from torch's global state, which cutk seeds.

        Raises:
            UsageError: if the images are too small for the network.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build()")


@dataclass(frozen=True)
class Sizes:
    """What the cost of unlearning depends on: numbers of samples and steps."""

    train: int
    identified: int
    batch_size: int
    steps: int


class Unlearner(Component):
    """A corrective unlearning procedure, U_corr.

    Attributes:
        grid: what to search over when the user sets nothing. Either a mapping from option to values, of which every
            combination is tried, or a sequence of mappings from option to value, each one point.
        prepared_by: the options that ``prepare`` reads. Points of the grid that agree on them share its result.
    """

    kind = "unlearner"
    required = ("unlearn",)
    grid: ClassVar[Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]] = {}
    prepared_by: ClassVar[tuple[str, ...]] = ()

    def prepare(self, task: Task) -> Any:
        """Compute what the points of the grid share; called once per (original, α)."""
        return None

    def unlearn(self, task: Task, state: Any = None) -> nn.Module:
        """Return the corrected model.

        Args:
            task: the problem; ``task.original`` is a private copy that may be changed and returned.
            state: what ``prepare`` returned. It is shared by all calls, so it must not be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no unlearn()")

    @classmethod
    def passes(cls, options: _Options, sizes: Sizes) -> tuple[float, float] | None:
        """Estimate the cost in passes over S_tr (forward and backward): ``(prepare, unlearn)``, for ``--dry-run``.

        None says that it can't be told beforehand.
        """
        return None


class Metric(Component):
    """One number that judges a model.

    Attributes:
        higher_is_better: its direction.
        bounds: the smallest and the largest possible value.
        objective: which of the two aims of corrective unlearning it measures on unseen samples, if one of them
            (paper, section 2.2): figures set them against each other, and the oracle row is best in their mean.
    """

    kind = "metric"
    required = ("compute",)
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    objective: ClassVar[Literal["", "unlearning", "utility"]] = ""

    def compute(self, evaluation: Evaluation) -> float | None:
        """Return the value, or None where the metric means nothing (say, attack success without an attack)."""
        raise NotImplementedError(f"{type(self).__name__} has no compute()")


class Breakdown(Metric):
    """Several numbers of one kind that judge a model: one for each class, say, or for each bin of a histogram.

    ``bounds`` and ``higher_is_better`` hold for each of them. Records keep them under ``breakdowns``.
    """

    required = ("breakdown",)

    def breakdown(self, evaluation: Evaluation) -> Mapping[str, float] | None:
        """Return the values by their labels, in the order in which people read them, or None where they mean nothing.

        A label without a value (a class without samples) is left out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no breakdown()")


class Summary(Metric):
    """One number that judges an unlearner over all α.

    Attributes:
        of: the names of the metrics that it is computed from.
    """

    required = ("summarise",)
    of: ClassVar[tuple[str, ...]] = ()

    def summarise(self, curve: Curve) -> float | None:
        """Return the value, or None where the curve never gets there."""
        raise NotImplementedError(f"{type(self).__name__} has no summarise()")


KINDS: dict[str, type[Component]] = {base.kind: base for base in (Dataset, Manipulation, Model, Unlearner, Metric)}


def _problem_with_values(component: type[Component]) -> str | None:
    """Say which class attribute of ``component`` has a value that nothing could be done with."""
    if taken := sorted(set(component.Options.model_fields) & set(dir(_Options))):
        return f"has the option {taken[0]!r}, which every Options has as a method already; call it otherwise"
    if issubclass(component, Metric):
        bounds = component.bounds
        numbers = isinstance(bounds, tuple) and [isinstance(bound, int | float) for bound in bounds] == [True, True]
        if not numbers or not bounds[0] < bounds[1]:
            return f"has the bounds {bounds!r}; expected two numbers, the smaller first"
        if not isinstance(component.higher_is_better, bool):
            return f"has higher_is_better = {component.higher_is_better!r}; expected True or False"
        if component.objective not in ("", "unlearning", "utility"):
            return f"has the objective {component.objective!r}; expected 'unlearning' or 'utility'"
    if issubclass(component, Summary) and not isinstance(component.of, tuple | list):
        return f"has of = {component.of!r}; expected the names of metrics"
    if issubclass(component, Unlearner):
        grid, known = component.grid, set(component.Options.model_fields)
        points = [grid] if isinstance(grid, Mapping) else grid
        if not isinstance(points, tuple | list) or not all(isinstance(point, Mapping) for point in points):
            return f"has the grid {grid!r}; expected a mapping from options to values, or a list of such points"
        if isinstance(grid, Mapping) and not all(isinstance(v, tuple | list) and v for v in grid.values()):
            return f"has the grid {grid!r}; expected a list of values for each option"
        unknown = sorted({str(name) for point in points for name in point} - known)
        unknown += sorted(set(component.prepared_by) - known)
        if unknown:
            return f"names the option {unknown[0]!r} in grid or prepared_by, which it doesn't have"
    return None


def problem_with(component: object, kind: str) -> str | None:
    """Say what is wrong with a class that a plugin provides as a ``kind``, or None if nothing is.

    >>> problem_with(int, "metric")
    "'int' is no subclass of cutk.Metric"
    """
    base = KINDS[kind]
    label = component.__name__ if isinstance(component, type) else repr(component)
    if not isinstance(component, type):
        return f"expected a subclass of cutk.{base.__name__}, got the {type(component).__name__} {label}"
    if not issubclass(component, base):
        return f"'{label}' is no subclass of cutk.{base.__name__}"
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"'{label}' has the name {name!r}; expected lower-case letters, digits, - and _"
    if name in _RESERVED:
        return f"'{label}' has the name {name!r}, which is reserved"
    if not (isinstance(component.Options, type) and issubclass(component.Options, _Options)):
        return f"'{label}.Options' is no subclass of cutk.Options"
    if component.variant and component.variant not in component.Options.model_fields:
        return f"'{label}.variant' names the option {component.variant!r}, which it doesn't have"
    if problem := _problem_with_values(component):
        return f"'{label}' {problem}"
    # A method that is still the base class's own was defined in this module.
    missing = [method for method in component.required if getattr(component, method).__module__ == __name__]
    if missing:
        return f"'{label}' does not override {missing[0]}()"
    return None
