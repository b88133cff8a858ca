"""What a plugin can provide.

Every hook is a plural noun without arguments and returns component classes. A plugin is a module with one or more hook
implementations, named in the entry-point group ``cutk`` of its distribution::

    [project.entry-points.cutk]
    neggrad = "my_package.neggrad"

or a file that is named with ``--plugin FILE`` or in ``CUTK_PLUGIN_PATH``. A plugin may say which ``API_VERSION`` it is
written for, as ``CUTK_API = "2.0"``; a cutk that hasn't as much says so instead of failing later.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from cutk.components import (
        Dataset,
        Identification,
        Manipulation,
        Metric,
        Model,
        Selector,
        Summary,
        Unlearner,
    )
    from cutk.learning.recipe import Recipe

PROJECT = "cutk"
# Of what plugins build on: the hooks, the base classes, and what they are handed. The first number changes when a
# plugin may have to, the second when there is more to use.
API_VERSION = "2.0"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cutk_datasets() -> Sequence[type[Dataset]]:
    """Provide datasets.

    Example::

        import cutk, torch

        class Stripes(cutk.Dataset):
            "Horizontal against vertical stripes."
            name = "stripes"
            model = "convnet-small"

            def load(self):
                rows = torch.arange(8).remainder(2).mul(255).byte().expand(8, 8)
                pixels = torch.stack([rows, rows.T]).repeat(50, 1, 1)[:, None]
                samples = cutk.Samples(pixels, torch.arange(100) % 2, ("vertical", "horizontal"))
                return cutk.Splits(train=samples, test=samples)

        @cutk.hookimpl
        def cutk_datasets():
            return [Stripes]
    """
    raise NotImplementedError


@hookspec
def cutk_manipulations() -> Sequence[type[Manipulation]]:
    """Provide manipulations.

    Example::

        import cutk, torch

        class ShiftedLabels(cutk.Manipulation):
            "Gives some samples the next class."
            name = "shifted-labels"

            class Options(cutk.Options):
                count: int = cutk.option(10, ge=1, help="how many samples")

            def corrupt(self, train, generator, surrogate=None):
                chosen = torch.randperm(len(train), generator=generator)[: self.options.count].sort().values
                labels = train.labels.clone()
                labels[chosen] = (labels[chosen] + 1) % len(train.classes)
                return cutk.Corruption(train.changed(labels=labels), chosen)

        @cutk.hookimpl
        def cutk_manipulations():
            return [ShiftedLabels]
    """
    raise NotImplementedError


@hookspec
def cutk_identifications() -> Sequence[type[Identification]]:
    """Provide identifications.

    Example::

        import cutk

        class FirstOnes(cutk.Identification):
            "Finds manipulated samples in the order in which they lie."
            name = "first-ones"

            def identify(self, truth, alpha, generator):
                return truth.manipulated[: max(1, round(alpha * len(truth.manipulated)))]

        @cutk.hookimpl
        def cutk_identifications():
            return [FirstOnes]
    """
    raise NotImplementedError


@hookspec
def cutk_models() -> Sequence[type[Model]]:
    """Provide models.

    Example::

        import cutk, math, torch

        class Linear(cutk.Model):
            "One linear layer."
            name = "linear"

            def build(self, shape, num_classes):
                return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), num_classes))

        @cutk.hookimpl
        def cutk_models():
            return [Linear]
    """
    raise NotImplementedError


@hookspec
def cutk_recipes() -> Sequence[type[Recipe]]:
    """Provide recipes.

    Example::

        import cutk, torch

        class Smoothed(cutk.Recipe):
            "Adam on softened labels."
            name = "smoothed"

            class Options(cutk.RecipeOptions):
                smoothing: float = cutk.option(0.1, ge=0, lt=1, help="what of a label goes to all classes alike")

            def loss(self, logits, batch):
                smoothing = self.options.smoothing
                return torch.nn.functional.cross_entropy(logits, batch.y, label_smoothing=smoothing)

            def optimisers(self, parameters, lr):
                return [torch.optim.Adam(parameters.values(), lr=lr)]

            def rate(self, step, steps):
                return 1 - step / steps

        @cutk.hookimpl
        def cutk_recipes():
            return [Smoothed]
    """
    raise NotImplementedError


@hookspec
def cutk_unlearners() -> Sequence[type[Unlearner]]:
    """Provide unlearners.

    Example::

        import cutk

        class NegativeGradient(cutk.Unlearner):
            "Gradient ascent on the identified samples."
            name = "neggrad"
            reference = "Golatkar et al., CVPR 2020"

            class Options(cutk.Options):
                steps: int = cutk.option(20, ge=1, help="ascent steps")
                lr: float = cutk.option(1e-3, gt=0, help="learning rate")

            grid = {"lr": [1e-4, 1e-3, 1e-2]}

            def unlearn(self, task, state=None):
                o = self.options
                batches = task.train.batches(task.identified, 64, shuffle=True, augment=True, steps=o.steps)
                ascent = lambda logits, batch: -cutk.cross_entropy(logits, batch)
                return task.recipe.fit(task.original, batches, ascent, steps=o.steps, lr=o.lr)

        @cutk.hookimpl
        def cutk_unlearners():
            return [NegativeGradient]
    """
    raise NotImplementedError


@hookspec
def cutk_selectors() -> Sequence[type[Selector]]:
    """Provide selectors.

    Example::

        import cutk

        class Cautious(cutk.Selector):
            "Validation accuracy counts three times as much as what has changed of S_f."
            name = "cautious"
            measures = ("validation_accuracy", "changed_fraction")
            assumes_wrong_labels = True

            def value(self, score):
                return 0.75 * (score.validation_accuracy or 0.0) + 0.25 * score.changed_fraction

        @cutk.hookimpl
        def cutk_selectors():
            return [Cautious]
    """
    raise NotImplementedError


@hookspec
def cutk_metrics() -> Sequence[type[Metric]]:
    """Provide metrics of a model.

    Example::

        import cutk

        class WorstClass(cutk.Metric):
            "Accuracy on the class that the model knows least, outside the affected domain."
            name = "worst-class-accuracy"

            def compute(self, evaluation):
                labels = evaluation.truth.retain.labels
                right = (evaluation.retain_predictions == labels).double()
                return min(float(right[labels == c].mean()) for c in labels.unique())

        @cutk.hookimpl
        def cutk_metrics():
            return [WorstClass]
    """
    raise NotImplementedError


@hookspec
def cutk_summaries() -> Sequence[type[Summary]]:
    """Provide summaries over all α.

    Example::

        import cutk

        class WorstRetained(cutk.Summary):
            "The lowest retain accuracy over all α."
            name = "worst-retained"
            of = ("retain_accuracy",)

            def summarise(self, curve):
                return min(curve.values["retain_accuracy"].values(), default=None)

        @cutk.hookimpl
        def cutk_summaries():
            return [WorstRetained]
    """
    raise NotImplementedError


@hookspec
def cutk_presets() -> Sequence[Path]:
    """Provide folders of plans: ``<folder>/a/b.toml`` is the preset ``a/b``.

    Example::

        from pathlib import Path

        import cutk

        @cutk.hookimpl
        def cutk_presets():
            return [Path(__file__).parent / "presets"]
    """
    raise NotImplementedError
