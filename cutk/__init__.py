"""cutk, a toolkit for corrective machine unlearning.

Everything that an author of plugins needs is a name of this package. Importing it imports neither torch nor any
plugin: a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutk.api import Report as Report
    from cutk.api import bench as bench
    from cutk.chance import isolated_rng as isolated_rng
    from cutk.components import Corruption as Corruption
    from cutk.components import Dataset as Dataset
    from cutk.components import Identification as Identification
    from cutk.components import Manipulation as Manipulation
    from cutk.components import Metric as Metric
    from cutk.components import Model as Model
    from cutk.components import Published as Published
    from cutk.components import Score as Score
    from cutk.components import Selector as Selector
    from cutk.components import Sizes as Sizes
    from cutk.components import Summary as Summary
    from cutk.components import Surrogate as Surrogate
    from cutk.components import Unlearner as Unlearner
    from cutk.cost import Cost as Cost
    from cutk.data.batches import Augmentation as Augmentation
    from cutk.data.batches import Batch as Batch
    from cutk.data.batches import Overlay as Overlay
    from cutk.data.batches import Stamp as Stamp
    from cutk.data.batches import TrainSet as TrainSet
    from cutk.data.batches import Trigger as Trigger
    from cutk.data.samples import Normalisation as Normalisation
    from cutk.data.samples import Samples as Samples
    from cutk.data.samples import Shape as Shape
    from cutk.data.samples import Splits as Splits
    from cutk.data.streamed import StreamedTrainSet as StreamedTrainSet
    from cutk.errors import CellError as CellError
    from cutk.errors import CutkError as CutkError
    from cutk.errors import UsageError as UsageError
    from cutk.learning.distillation import Teacher as Teacher
    from cutk.learning.distillation import kl_divergence as kl_divergence
    from cutk.learning.network import last_layers as last_layers
    from cutk.learning.recipe import Loss as Loss
    from cutk.learning.recipe import Progress as Progress
    from cutk.learning.recipe import Recipe as Recipe
    from cutk.learning.recipe import RecipeOptions as RecipeOptions
    from cutk.learning.recipe import cross_entropy as cross_entropy
    from cutk.options import Options as Options
    from cutk.options import option as option
    from cutk.plugins.hookspecs import API_VERSION as API_VERSION
    from cutk.plugins.hookspecs import hookimpl as hookimpl
    from cutk.plugins.registry import load_registry as load_registry
    from cutk.problem.task import Log as Log
    from cutk.problem.task import Task as Task
    from cutk.problem.truth import Curve as Curve
    from cutk.problem.truth import Domain as Domain
    from cutk.problem.truth import Evaluation as Evaluation
    from cutk.problem.truth import Truth as Truth
    from cutk.problem.truth import accuracy as accuracy
    from cutk.problem.truth import class_accuracies as class_accuracies
    from cutk.run.observer import Observer as Observer

_HOMES = {
    "cutk.api": "Report bench",
    "cutk.chance": "isolated_rng",
    "cutk.components": "Corruption Dataset Identification Manipulation Metric Model Published Score Selector "
    "Sizes Summary Surrogate Unlearner",
    "cutk.cost": "Cost",
    "cutk.data.batches": "Augmentation Batch Overlay Stamp TrainSet Trigger",
    "cutk.data.samples": "Normalisation Samples Shape Splits",
    "cutk.data.streamed": "StreamedTrainSet",
    "cutk.errors": "CellError CutkError UsageError",
    "cutk.learning.distillation": "Teacher kl_divergence",
    "cutk.learning.network": "last_layers",
    "cutk.learning.recipe": "Loss Progress Recipe RecipeOptions cross_entropy",
    "cutk.options": "Options option",
    "cutk.plugins.hookspecs": "API_VERSION hookimpl",
    "cutk.plugins.registry": "load_registry",
    "cutk.problem.task": "Log Task",
    "cutk.problem.truth": "Curve Domain Evaluation Truth accuracy class_accuracies",
    "cutk.run.observer": "Observer",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
# What the plugin API 1.0 had: where it still is, and what to use instead.
_DEPRECATED = {
    "Breakdown": ("cutk.components", "cutk.Metric, whose compute() may return a mapping"),
    "Images": ("cutk.data.samples", "cutk.Samples"),
    "layers": ("cutk.learning.network", "cutk.last_layers"),
}

__all__ = ["__version__", *_HOME_OF]  # names computed from one table, which a test holds true


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cutk")
    if name in _DEPRECATED:
        import sys
        import warnings

        home, instead = _DEPRECATED[name]
        # `from cutk import Images` asks twice: first whether there is such a name.
        if sys._getframe(1).f_globals.get("__name__") != "importlib._bootstrap":
            warnings.warn(f"cutk.{name} is deprecated since cutk 0.2: use {instead}.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(home), name)
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cutk' has no attribute '{name}'")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
