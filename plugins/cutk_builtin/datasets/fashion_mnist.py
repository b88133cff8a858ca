"""Fashion-MNIST, read by torchvision."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import FashionMNIST

import cutk


class FashionMnist(cutk.Dataset):
    """70,000 pieces of clothing in grey, 28×28 pixels, in 10 classes, 60,000 of them for training."""

    name = "fashion-mnist"
    reference = "Xiao et al., Fashion-MNIST, arXiv:1708.07747, 2017"
    model = "resnet9"
    recipe = {"crop_padding": 2}
    # The two that people confuse most.
    suggests = {"interclass-confusion": {"classes": ("T-shirt/top", "Shirt")}}

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, FashionMNIST/raw (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")

    def load(self) -> cutk.Splits:
        """Read both splits; torchvision checks the MD5 sums of what it unpacks."""
        root, download = self.options.root.expanduser(), self.options.download
        with cutk.Splits.reading("Fashion-MNIST", root, root / "FashionMNIST" / "raw", download):
            train, test = (
                cutk.Images(part.data[:, None], part.targets, tuple(part.classes))
                for part in (FashionMNIST(root, train=train, download=download) for train in (True, False))
            )
        return cutk.Splits(train=train, test=test)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``fashion-mnist``."""
    return [FashionMnist]
