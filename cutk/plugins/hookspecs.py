"""What a plugin can provide.

Every hook is a plural noun without arguments and returns component classes. A plugin is a module with one or more hook
implementations, named in the entry-point group ``cutk`` of its distribution::

    [project.entry-points.cutk]
    neggrad = "my_package.neggrad"

or a file that is named with ``--plugin FILE`` or in ``CUTK_PLUGIN_PATH``. A plugin that uses what later versions
brought says so with ``CUTK_API = "1.1"``, the ``API_VERSION`` that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from cutk.components import Dataset, Manipulation, Metric, Model, Unlearner

PROJECT = "cutk"
# Of what plugins build on: the hooks, the base classes, and what they are handed. The first number changes when a
# plugin may have to, the second when there is more to use.
API_VERSION = "1.0"
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
                images = cutk.Images(pixels, torch.arange(100) % 2, ("vertical", "horizontal"))
                return cutk.Splits(train=images, test=images)

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

            def corrupt(self, train, generator):
                chosen = torch.randperm(len(train), generator=generator)[: self.options.count].sort().values
                labels = train.labels.clone()
                labels[chosen] = (labels[chosen] + 1) % len(train.classes)
                return cutk.Corruption(cutk.Images(train.pixels, labels, train.classes), chosen)

        @cutk.hookimpl
        def cutk_manipulations():
            return [ShiftedLabels]
    """
    raise NotImplementedError


@hookspec
def cutk_models() -> Sequence[type[Model]]:
    """Provide models.

    Example::

        import cutk, torch

        class Linear(cutk.Model):
            "One linear layer."
            name = "linear"

            def build(self, shape, num_classes):
                channels, height, width = shape
                flat = channels * height * width
                return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(flat, num_classes))

        @cutk.hookimpl
        def cutk_models():
            return [Linear]
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
def cutk_metrics() -> Sequence[type[Metric]]:
    """Provide metrics of a model (``cutk.Metric``) and summaries over all α (``cutk.Summary``).

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
