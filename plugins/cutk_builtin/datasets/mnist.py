"""MNIST, read by torchvision."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import MNIST

import cutk


class Mnist(cutk.Dataset):
    """70,000 handwritten digits of 28×28 pixels, 60,000 of them for training."""

    name = "mnist"
    reference = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
    model = "convnet-small"
    recipe = {"steps": 1000, "lr": 0.05, "crop_padding": 2, "flip": False}
    suggests = {
        # The two that people confuse most.
        "interclass-confusion": {"classes": ("4", "9")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 250},
        "badt": {"steps": 250},
        "scrub": {"steps": 250, "forget_steps": 50},
    }

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, MNIST/raw (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")

    def load(self) -> cutk.Splits:
        """Read both splits; torchvision checks the MD5 sums of what it unpacks."""
        root, download = self.options.root.expanduser(), self.options.download
        with cutk.Splits.reading("MNIST", root, root / "MNIST" / "raw", download):
            train, test = (
                cutk.Images(part.data[:, None], part.targets, tuple("0123456789"))
                for part in (MNIST(root, train=train, download=download) for train in (True, False))
            )
        return cutk.Splits(train=train, test=test)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``mnist``."""
    return [Mnist]
