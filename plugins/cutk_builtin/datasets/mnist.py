"""MNIST and Fashion-MNIST, read from their idx files, packed or not."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import BinaryIO, ClassVar

import torch
from torch import Tensor

import cutk

# A header that says more than this is damaged, and what it asks for isn't read.
MOST_IMAGES = 1_000_000


def read_idx(file: BinaryIO, shape: tuple[int, ...]) -> Tensor:
    """Return the array in an idx file of unsigned bytes, uint8 ``[N, *shape]``.

    The format is LeCun's: two zero bytes, 8 for unsigned bytes, the number of dimensions, their sizes as big-endian
    integers of four bytes, and the values.

    Raises:
        ValueError: if it is something else, or has fewer or more values than it says.
    """
    dimensions = 1 + len(shape)
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError("expected an idx file of unsigned bytes")
    count, *sizes = struct.unpack(f">{dimensions}I", header[4:])
    if tuple(sizes) != shape or not 0 < count <= MOST_IMAGES:
        raise ValueError(f"expected values [1 to {MOST_IMAGES:,}, {', '.join(map(str, shape))}], got {[count, *sizes]}")
    expected = count * math.prod(shape)
    values = bytearray(file.read(expected + 1))
    if len(values) != expected:
        raise ValueError(f"expected {expected:,} values, got {'more' if len(values) > expected else len(values)}")
    return torch.frombuffer(values, dtype=torch.uint8).view(count, *shape)


def read(folder: Path, name: str, *shape: int) -> Tensor:
    """Read ``name``, or ``name.gz`` as it was published, from ``folder``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if it is no idx file of that shape.
    """
    if (folder / name).is_file():
        with (folder / name).open("rb") as file:
            return read_idx(file, shape)
    if (folder / f"{name}.gz").is_file():
        with gzip.open(folder / f"{name}.gz") as file:
            return read_idx(file, shape)
    raise FileNotFoundError(f"neither {name} nor {name}.gz is there")


class Idx(cutk.Dataset):
    """A dataset in the form of MNIST: 70,000 grey images of 28×28 pixels in 10 classes, 60,000 of them for training."""

    title: ClassVar[str]
    folder: ClassVar[str]
    published: ClassVar[cutk.Published]
    model = "convnet-small"

    def load(self) -> cutk.Splits:
        """Read both splits. Files that are to be fetched are fetched by torchvision, which checks their MD5 sums."""
        root, download = self.options.root.expanduser(), self.options.download
        raw = root / self.folder / "raw"
        with cutk.Splits.reading(self.title, root, raw, download):
            if download:
                import torchvision  # which takes as long to import as torch itself

                getattr(torchvision.datasets, self.folder)(root, download=True)
            train, test = (
                cutk.Samples(
                    read(raw, f"{prefix}-images-idx3-ubyte", 28, 28)[:, None],
                    read(raw, f"{prefix}-labels-idx1-ubyte").long(),
                    self.published.classes,
                )
                for prefix in ("train", "t10k")
            )
        return cutk.Splits(train=train, test=test)


class Mnist(Idx):
    """70,000 handwritten digits of 28×28 pixels, 60,000 of them for training."""

    name = "mnist"
    reference = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
    title = "MNIST"
    folder = "MNIST"
    published = cutk.Published(60_000, 10_000, (1, 28, 28), tuple("0123456789"))
    recipe = {"steps": 400, "batch_size": 128, "crop_padding": 2, "flip": False}
    suggests = {
        "sgd": {"lr": 0.05},
        "convnet-small": {"width": 16},
        # The two that people confuse most.
        "interclass-confusion": {"classes": ("4", "9")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 100},
        "badt": {"steps": 100},
        "neggrad-plus": {"steps": 100},
        "relabel": {"steps": 100},
        "scrub": {"steps": 100, "forget_steps": 20},
    }

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, MNIST/raw (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")


class FashionMnist(Idx):
    """70,000 pieces of clothing in grey, 28×28 pixels, in 10 classes, 60,000 of them for training."""

    name = "fashion-mnist"
    reference = "Xiao et al., Fashion-MNIST, arXiv:1708.07747, 2017"
    title = "Fashion-MNIST"
    folder = "FashionMNIST"
    published = cutk.Published(
        60_000,
        10_000,
        (1, 28, 28),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    recipe = {"steps": 600, "batch_size": 128, "crop_padding": 0, "flip": True}
    suggests = {
        "sgd": {"lr": 0.05},
        "convnet-small": {"width": 16},
        # The two that people confuse most.
        "interclass-confusion": {"classes": ("T-shirt/top", "Shirt")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 150},
        "badt": {"steps": 150},
        "neggrad-plus": {"steps": 150},
        "relabel": {"steps": 150},
        "scrub": {"steps": 150, "forget_steps": 30},
    }

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, FashionMNIST/raw (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")


class Plugin:
    """Provides one of them: each has its own entry point, and an entry point its own plugin."""

    def __init__(self, dataset: type[cutk.Dataset]) -> None:
        self.dataset = dataset

    @cutk.hookimpl
    def cutk_datasets(self) -> list[type[cutk.Dataset]]:
        """Provide this one."""
        return [self.dataset]


mnist = Plugin(Mnist)
fashion_mnist = Plugin(FashionMnist)
