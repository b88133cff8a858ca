"""A user's samples and network as components, so that a study takes them as it takes any others."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import torch
from torch import Tensor, nn

from cutk.components import Dataset, Model
from cutk.data.batches import TrainSet
from cutk.data.samples import Samples, Shape, Splits, raw
from cutk.errors import UsageError
from cutk.options import Options, option
from cutk.plugins.discovery import INLINE, Provider
from cutk.plugins.registry import Entry
from cutk.problem.task import Task

__all__ = ["architecture_of", "data_entry", "network_entry", "splits_of"]

# So many bytes of samples are held at most; of more, a part is drawn.
_MOST_BYTES = 2**31
_AT_ONCE = 512


class OwnData(Dataset):
    """The samples that a user handed over, without the bad ones."""

    name = "your-data"
    splits: ClassVar[Splits]

    def load(self) -> Splits:
        """Return them; they are in memory."""
        return self.splits


class OwnNetwork(Model):
    """The network that a user handed over, with new weights."""

    name = "your-network"
    maker: ClassVar[Callable[[], nn.Module]]

    class Options(Options):
        """Which one."""

        architecture: str = option("", help="a hash of its layers, their code and their shapes")

    def build(self, shape: Shape, num_classes: int) -> nn.Module:  # noqa: ARG002  # it was made for these
        """Return it."""
        return type(self).maker()


def data_entry(splits: Splits) -> Entry:
    """Return samples as a dataset called ``your-data``."""
    made = type("OwnData", (OwnData,), {"splits": splits, "__doc__": OwnData.__doc__})
    return Entry("dataset", OwnData.name, made, Provider(INLINE, splits.fingerprint()[:12], OwnData.name))


def network_entry(build: Callable[[], nn.Module], architecture: str) -> Entry:
    """Return a network as a model called ``your-network``."""
    made = type("OwnNetwork", (OwnNetwork,), {"maker": staticmethod(build), "__doc__": OwnNetwork.__doc__})
    return Entry("model", OwnNetwork.name, made, Provider(INLINE, architecture[:12], OwnNetwork.name))


def architecture_of(model: nn.Module) -> str:
    """Return a hash of what a network is: its layers, its weights, and the code of those layers that aren't torch's.

    16 hexadecimal digits. Of new weights, drawn with one seed, those that are pretrained tell the difference.
    """
    digest = hashlib.sha256(str(model).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(raw(value))
    for kind in {type(module): None for module in model.modules()}:
        if not kind.__module__.startswith("torch."):
            with suppress(OSError, TypeError):  # typed in, its code can't be read
                digest.update(inspect.getsource(kind).encode())
    return digest.hexdigest()[:16]


def _resident(samples: TrainSet, indices: Tensor, classes: tuple[str, ...]) -> Samples:
    """Return samples as they lie on the disk or in memory, read into memory."""
    parts = [x.cpu() for _, x in samples._read(iter([list(torch.split(indices, _AT_ONCE))]))]
    return Samples(torch.cat(parts), samples.labels[indices].cpu(), classes)


def _drawn(indices: Tensor, shape: Shape, image: bool, seed: int) -> Tensor:
    """Return indices, or so many of them, drawn at random, as fit into memory."""
    most = max(2, _MOST_BYTES // (math.prod(shape) * (1 if image else 4)))
    if len(indices) <= most:
        return indices
    generator = torch.Generator().manual_seed(seed)
    return indices[torch.randperm(len(indices), generator=generator)[:most]].sort().values


def splits_of(task: Task, classes: tuple[str, ...], stands_in: bool, seed: int) -> Splits:
    """Return a user's samples without those on the list: to train on, to choose by, and to measure on.

    Validation samples are halved, class by class, into those to choose by and those to measure on. Where there are none
    (``stands_in``), or too few, samples that aren't on the list are held out.

    Raises:
        UsageError: if there are too few.
    """
    train, norm = task.train, task.train.normalisation
    image = train.form == "images"
    clean = _resident(train, _drawn(task.retained, train.shape, image, seed), classes)
    if not stands_in and task.validation is not None:
        held_out = _resident(task.validation, torch.arange(len(task.validation)), classes)
        with suppress(UsageError):  # a class of which there is only one
            halves = Splits.of(held_out, 0.5, seed)
            return Splits(clean, halves.test, halves.train, norm)
        return Splits(clean, held_out, None, norm)
    there = torch.unique(clean.labels)
    if len(there) < len(classes):
        raise UsageError(f"expected clean samples of all {len(classes)} classes, got some of {len(there)}")
    parts = Splits.of(clean, 0.2, seed)
    return Splits(parts.train, parts.test, None, norm)
