"""Base classes of everything a plugin can provide; they import no torch, which is left to the plugins.

A component's class attributes say what it is called and what it can be told; its constructor takes validated options
and does no work. Indices are int64 tensors, sorted.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cutk.errors import UsageError
from cutk.options import Options as _Options

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cutk.data.batches import TrainSet
    from cutk.data.given import Given
    from cutk.data.samples import Samples, Shape, Splits
    from cutk.data.triggers import Overlay, Trigger
    from cutk.problem.task import Task
    from cutk.problem.truth import Curve, Evaluation, Truth


class Component:
    """What all kinds of components have in common.

    Attributes:
        kind: which kind this is, as the command line calls it.
        required: methods that an author must override.
        final: methods that nobody may override, since others rely on what they do.
        name: how users call it: lower-case letters, digits, hyphens and underscores.
        reference: the paper or page it comes from.
        variant: the option that what stands behind a colon in the name sets: ``"architecture"`` in ``name:resnet18``.
        Options: what users can set.
        libraries: modules that it imports and that may be missing, and with what to install each:
            ``{"scipy": "mine[scipy]"}``. A plan that uses it is refused without them, before anything runs.
    """

    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    final: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str]
    reference: ClassVar[str] = ""
    variant: ClassVar[str] = ""
    Options: ClassVar[type[_Options]] = _Options
    libraries: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: _Options | None = None) -> None:
        self.options: Any = self.Options() if options is None else options

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the class's docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @classmethod
    def variants(cls) -> Sequence[str]:
        """Return what may stand behind the colon, where that can be listed: an unknown name is looked up here."""
        return ()


def _unwritten(component: Component, method: str) -> NotImplementedError:
    return NotImplementedError(f"{type(component).__name__} has no {method}()")


@dataclass(frozen=True)
class Published:
    """What is known of a dataset without its files: how many samples, the shape of one, and the classes' names."""

    train: int
    test: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    validation: int = 0


class Dataset(Component):
    """Labelled samples, split into a training pool and a test set.

    A dataset whose files lie on disk calls their folder ``root`` in its ``Options`` (``--data-root`` sets it), and
    the permission to fetch them ``download`` (``--download``).

    Attributes:
        published: what is known of it without its files, so that a plan's cost can be told before they are there.
        model: the name of the model that suits these samples, used when none is asked for.
        recipe: recipe options that suit them; a recipe leaves out what it has no option for.
        suggests: for other components by name, the options that suit this dataset, over their own defaults.
    """

    kind = "dataset"
    required = ("load",)
    published: ClassVar[Published | None] = None
    model: ClassVar[str] = ""
    recipe: ClassVar[Mapping[str, Any]] = {}
    suggests: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def load(self) -> Splits:
        """Return the splits, clean; a ``UsageError`` says how to get files that aren't there."""
        raise _unwritten(self, "load")

    def given(self) -> Given | None:
        """Return the training samples as they lie there, with none set aside for testing, read when they are due.

        That is what a model of somebody's own was trained on. None: ``load`` says which they are, and what is held out.
        """
        return None

    def sizes(self) -> Published | None:
        """Return what is known of it without its files, under these options."""
        return self.published


Affected = tuple[int, ...] | Callable[["Samples"], "Tensor"]


@dataclass(frozen=True, eq=False)
class Corruption:
    """What an adversary did.

    Attributes:
        train: the clean samples in their order, contents and labels as given, and behind them those that were added
            (``Samples.extended``).
        manipulated: S_m; all that were added are among them.
        overlays: triggers laid over training samples after augmentation, whenever they are read; what lies in the
            files themselves is in ``train``.
        trigger: what the adversary lays over unseen samples to make the model err.
        affected: the affected domain D_m among unseen samples: its clean classes, or a function from the test samples
            to bool ``[n]``; all of them if none. With a trigger, only samples that carry it are affected.
        targets: for each clean class the class that the attack wants instead, −1 where it wants nothing.
        clean_labels: int64 ``[len(train)]``, −1 where a sample has none; only needed where samples were added.
    """

    train: Samples
    manipulated: Tensor
    overlays: Sequence[Overlay] = ()
    trigger: Trigger | None = None
    affected: Affected | None = None
    targets: tuple[int, ...] | None = None
    clean_labels: Tensor | None = None
    # What plugins for the API 1.0 say.
    stamp: InitVar[Trigger | None] = None
    affected_classes: InitVar[tuple[int, ...] | None] = None
    target: InitVar[int | None] = None

    def __post_init__(
        self, stamp: Trigger | None, affected_classes: tuple[int, ...] | None, target: int | None
    ) -> None:
        def renamed(old: str, new: str, value: Any) -> None:
            warnings.warn(f"Corruption({old}=…) is called {new} since cutk 0.2.", DeprecationWarning, stacklevel=4)
            object.__setattr__(self, new, value)

        if stamp is not None:
            renamed("stamp", "overlays", ((stamp, self.manipulated),))
        if affected_classes is not None:
            renamed("affected_classes", "affected", affected_classes)
        if target is not None:
            renamed("target", "targets", self.all_to_one(target, len(self.train.classes)))

    @staticmethod
    def all_to_one(target: int, classes: int) -> tuple[int, ...]:
        """Return the targets of an attack that wants one class of every sample."""
        return (target,) * classes

    @staticmethod
    def all_to_all(classes: int) -> tuple[int, ...]:
        """Return the targets of an attack that wants each class taken for the next."""
        return tuple((label + 1) % classes for label in range(classes))


class Surrogate(ABC):
    """What an adversary needs who trains a model of its own first: the recipe and the architecture."""

    @abstractmethod
    def train(self, samples: Samples, steps: int | None = None) -> nn.Module:
        """Return the architecture, newly initialised and trained on ``samples`` with the recipe, in eval mode."""

    @abstractmethod
    def set_of(self, samples: Samples) -> TrainSet:
        """Return ``samples`` as batches for the model: normalised, on the device."""


class Manipulation(Component):
    """A way in which part of the training data goes bad; ``trains`` says whether it needs a trained model for that."""

    kind = "manipulation"
    required = ("corrupt",)
    trains: ClassVar[bool] = False

    def corrupt(self, train: Samples, generator: torch.Generator, surrogate: Surrogate | None = None) -> Corruption:
        """Manipulate clean samples and say what was done; a ``UsageError`` if the options don't fit them.

        Args:
            train: stays as it is.
            generator: a seeded CPU generator, the only source of chance.
            surrogate: for manipulations with ``trains = True``; the others needn't take it.
        """
        raise _unwritten(self, "corrupt")


class Identification(Component):
    """Which samples the developer has found: S_f."""

    kind = "identification"
    required = ("identify",)

    def identify(self, truth: Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Return S_f, which may hold clean samples; a ``UsageError`` if no sample would be identified.

        Args:
            truth: what the evaluator knows.
            alpha: the fraction of S_m that is to be identified, in (0, 1].
            generator: a CPU generator, in the same state for every α of one seed.

        """
        raise _unwritten(self, "identify")


class Model(Component):
    """A network architecture for classification."""

    kind = "model"
    required = ("build",)

    def require_images(self, shape: Shape) -> tuple[int, int, int]:
        """Return ``shape`` as channels, height and width; a ``UsageError`` if the samples are no images."""
        if len(shape) != 3:
            raise UsageError(
                f"The model '{self.name}' needs images (channels, height, width), and these samples have the shape "
                f"{list(shape)}. Choose one for features with --model."
            )
        channels, height, width = shape
        return channels, height, width

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """Return a newly initialised network that maps ``[B, *shape]`` to logits ``[B, num_classes]``.

        ``shape`` is (channels, height, width) of images, (features,) or (tokens,); the batch is float32, of tokens
        int64. Chance comes from torch's global state, which cutk seeds. A ``UsageError`` if the samples are too small
        for the network, or something else than it takes.

        If the network has a method ``initialise(x)``, it is called before a training from scratch, with up to 5,000 of
        the samples that it will be trained on, as a batch holds them.
        """
        raise _unwritten(self, "build")


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
        grid: what to search over when the user sets nothing: a mapping from option to values, of which every
            combination is tried, or a sequence of points, each a mapping from option to value.
        prepared_by: the options that ``prepare`` reads. Points of the grid that agree on them share its result.
        surveyed_by: the options that ``survey`` reads, likewise.
        surveyor: whose ``survey`` it asks, if it hands that on: who is surveyed for the one is for the other.
    """

    kind = "unlearner"
    required = ("unlearn",)
    grid: ClassVar[Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]] = {}
    prepared_by: ClassVar[tuple[str, ...]] = ()
    surveyed_by: ClassVar[tuple[str, ...]] = ()
    surveyor: ClassVar[type[Unlearner] | None] = None

    def survey(self, task: Task) -> Any:
        """Compute what all S_f of an original share; called at most once per original, and of no effect on results.

        ``task.identified`` is empty. What is returned is in ``task.surveyed`` where ``prepare`` and ``unlearn`` are
        called, or None if nobody computed it: ``self.survey(task.knowing_nothing())`` does. Its time counts for each α.
        """
        return None

    def prepare(self, task: Task) -> Any:
        """Compute what the points of the grid share; called once per (original, α)."""
        return None

    def unlearn(self, task: Task, state: Any = None) -> nn.Module:
        """Return the corrected model.

        Args:
            task: the problem; ``task.original`` is a private copy that may be changed and returned.
            state: what ``prepare`` returned. It is shared by all calls, so it must not be changed.
        """
        raise _unwritten(self, "unlearn")

    @classmethod
    def passes(cls, options: _Options, sizes: Sizes) -> tuple[float, float] | None:
        """Estimate the passes over S_tr of ``prepare`` and of ``unlearn``, for ``--dry-run``; None if it can't tell."""
        return None


class Detector(Component):
    """Who else is manipulated, as far as a developer can tell.

    Composed with an unlearner, as in ``ssd+NAME``, it works first: S_f grows by what is above one half.

    Attributes:
        probabilistic: whether its values are meant as probabilities of being manipulated. If not, what they say is an
            order, and by one half who is suspected; people are told so.
    """

    kind = "detector"
    required = ("detect",)
    probabilistic: ClassVar[bool] = True

    def detect(self, task: Task) -> Tensor:
        """Return how suspicious each training sample is: float32 ``[N]``, on the CPU, from 0 to 1, suspected above 0.5.

        Args:
            task: the problem, which stays as it is; ``task.log`` may be told how it goes.
        """
        raise _unwritten(self, "detect")

    @classmethod
    def passes(cls, options: _Options, sizes: Sizes) -> float | None:
        """Estimate the passes over S_tr of ``detect``, for ``--dry-run``; None if it can't tell."""
        return None


@dataclass(frozen=True)
class Score:
    """What a developer can measure of a candidate without the test set; None where it wasn't measured.

    Accuracies are on the held-out samples, on S_f and on S_tr without S_f, against the given labels;
    ``changed_fraction`` is how many of S_f are predicted otherwise than by the original model.
    """

    validation_accuracy: float | None = None
    changed_fraction: float | None = None
    identified_accuracy: float | None = None
    retained_accuracy: float | None = None


class Selector(Component):
    """The rule that chooses among an unlearner's candidates, without the test set.

    Only the fields of ``Score`` that it ``measures`` are measured. One that ``assumes_wrong_labels`` rewards predicting
    S_f otherwise than labelled, which is wrong where the labels weren't manipulated.
    """

    kind = "selector"
    required = ("value",)
    measures: ClassVar[tuple[str, ...]] = ()
    assumes_wrong_labels: ClassVar[bool] = False

    def value(self, score: Score) -> float:
        """Return how good a candidate is; more is better."""
        raise _unwritten(self, "value")

    def choose(self, scores: Sequence[Score | None]) -> int:
        """Return the position of the best candidate; a None stands for a point that failed.

        Among equal values the higher validation accuracy wins, then the earlier point. A ``ValueError`` if none has a
        score.
        """
        ranked = [
            (self.value(score), score.validation_accuracy or 0.0, -position)
            for position, score in enumerate(scores)
            if score is not None
        ]
        if not ranked:
            raise ValueError("Expected at least one scored point, got none.")
        return -max(ranked)[2]


class Metric(Component):
    """One number that judges a model, or several of one kind: one for each class, say, or for each bin of a histogram.

    Attributes:
        higher_is_better: its direction.
        bounds: the smallest and the largest possible value, of each number if there are several.
        objective: which of the two aims of corrective unlearning it measures on unseen samples, if one of them
            (paper, section 2.2): figures set them against each other, and the oracle row is best in their mean.
        by_domain: whether it depends on the affected domain. Where manipulations were composed, such a metric is also
            measured on each one's own domain.
        of_suspicion: whether it judges what a method suspects of S_tr. That isn't kept, so a stored run that lacks such
            a metric is computed again.
    """

    kind = "metric"
    required = ("compute",)
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    objective: ClassVar[Literal["", "unlearning", "utility"]] = ""
    by_domain: ClassVar[bool] = False
    of_suspicion: ClassVar[bool] = False

    def compute(self, evaluation: Evaluation) -> float | Mapping[str, float] | None:
        """Return the value, or several by their labels in the order in which people read them.

        None says that the metric means nothing here (attack success without an attack); a label without a value (a
        class without samples) is left out.
        """
        raise _unwritten(self, "compute")


class Breakdown(Metric):
    """What metrics of several numbers were called before cutk 0.2; now ``Metric.compute`` may return a mapping."""

    required = ("breakdown",)

    def breakdown(self, evaluation: Evaluation) -> Mapping[str, float] | None:
        """Return the values by their labels."""
        raise _unwritten(self, "breakdown")

    def compute(self, evaluation: Evaluation) -> Mapping[str, float] | None:
        """Return the values by their labels."""
        return self.breakdown(evaluation)


class Summary(Component):
    """One number that judges an unlearner over all α, computed from the metrics named ``of``."""

    kind = "summary"
    required = ("summarise",)
    of: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def summarise(self, curve: Curve) -> float | None:
        """Return the value, or None where the curve never gets there."""
        raise _unwritten(self, "summarise")
