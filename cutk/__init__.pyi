from typing import Any

from cutk.api import Report as Report
from cutk.api import bench as bench
from cutk.chance import isolated_rng as isolated_rng
from cutk.components import Corruption as Corruption
from cutk.components import Dataset as Dataset
from cutk.components import Detector as Detector
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
from cutk.run.executor import Executor as Executor
from cutk.run.executor import Pool as Pool
from cutk.run.observer import Observer as Observer
from cutk.run.observer import Send as Send

__version__: str
__all__: list[str]

def __getattr__(name: str) -> Any: ...
