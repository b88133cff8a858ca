"""CIFAR-10, read by torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

import cutk


class Cifar10(cutk.Dataset):
    """60,000 colour photographs of 32×32 pixels in 10 classes, 50,000 of them for training."""

    name = "cifar10"
    reference = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    published = cutk.Published(
        50_000,
        10_000,
        (3, 32, 32),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
    model = "resnet9"
    suggests = {"interclass-confusion": {"classes": ("cat", "dog")}}

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(
            Path("data"), help="folder that holds, or is to hold, cifar-10-batches-py (--data-root)"
        )
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")

    def load(self) -> cutk.Splits:
        """Read both splits; torchvision checks the files' MD5 sums."""
        from torchvision.datasets import CIFAR10  # which takes as long to import as torch itself

        root, download = self.options.root.expanduser(), self.options.download
        with cutk.Splits.reading("CIFAR-10", root, root / "cifar-10-batches-py", download):
            train, test = (
                cutk.Samples(
                    torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
                    torch.tensor(part.targets),
                    tuple(part.classes),
                )
                for part in (CIFAR10(root, train=train, download=download) for train in (True, False))
            )
        return cutk.Splits(train=train, test=test)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``cifar10``."""
    return [Cifar10]
