"""What a model of somebody's own was trained on, as it lies there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cutk.data.samples import Normalisation, Samples, Splits, require_labels

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

__all__ = ["Given"]


@dataclass(frozen=True, eq=False)
class Given:
    """Training samples in their order, none of them set aside; a ``ValueError`` refuses labels that don't fit.

    ``content`` is ``Samples``, or a map-style dataset of which item ``i`` is a sample as ``StreamedTrainSet`` takes it.
    """

    content: Samples | SupportsLenAndGetItem[Any]
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # the classes' names, in the order of their indices
    names: tuple[str, ...] | None = None  # each sample's file name, relative to the data, where it has one
    validation: Given | None = None  # samples that weren't trained on, where the data hold some
    normalisation: Normalisation | None = None  # where the data say one

    def __post_init__(self) -> None:
        require_labels(self.labels, len(self.content), len(self.classes))
        if self.names is not None and len(self.names) != len(self.content):
            raise ValueError(f"Expected {len(self.content)} names, got {len(self.names)}.")

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def of_samples(cls, samples: Samples, normalisation: Normalisation | None = None) -> Given:
        """Return samples that lie in memory."""
        return cls(samples, samples.labels, samples.classes, samples.names, normalisation=normalisation)

    @classmethod
    def of(cls, splits: Splits) -> Given:
        """Return the training samples of a dataset; what it holds beside them was not trained on."""
        other = splits.test if splits.validation is None else splits.validation
        train, norm = splits.train, splits.normalisation
        return cls(train, train.labels, train.classes, train.names, cls.of_samples(other), norm)
