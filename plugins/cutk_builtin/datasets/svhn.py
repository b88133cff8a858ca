"""Street View House Numbers, read by torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

import cutk


class Svhn(cutk.Dataset):
    """99,289 colour photographs of digits on houses, 32×32 pixels, 73,257 of them for training."""

    name = "svhn"
    reference = "Netzer et al., Reading Digits in Natural Images, NIPS workshop 2011"
    published = cutk.Published(73_257, 26_032, (3, 32, 32), tuple("0123456789"))
    model = "convnet-small"
    recipe = {"steps": 1000, "batch_size": 128, "crop_padding": 2, "flip": False}
    suggests = {
        "sgd": {"lr": 0.05},
        "convnet-small": {"width": 16},
        # The two that people confuse most.
        "interclass-confusion": {"classes": ("1", "7")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 250},
        "badt": {"steps": 250},
        "neggrad-plus": {"steps": 250},
        "relabel": {"steps": 250},
        "scrub": {"steps": 250, "forget_steps": 50},
    }

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(
            Path("data"), help="folder that holds, or is to hold, train_32x32.mat and test_32x32.mat (--data-root)"
        )
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")

    def load(self) -> cutk.Splits:
        """Read both splits; torchvision checks the files' MD5 sums, and numbers the digit 0 as 0."""
        try:
            import scipy.io  # noqa: F401  # torchvision reads the files with it
        except ImportError:
            raise cutk.UsageError(
                "The dataset 'svhn' needs SciPy to read MATLAB's files. Install it: pip install 'cutk[svhn]'"
            ) from None
        from torchvision.datasets import SVHN  # which takes as long to import as torch itself

        root, download = self.options.root.expanduser(), self.options.download
        with cutk.Splits.reading("SVHN", root, root / "{train,test}_32x32.mat", download):
            train, test = (
                cutk.Samples(
                    torch.from_numpy(part.data).contiguous(), torch.from_numpy(part.labels), tuple("0123456789")
                )
                for part in (SVHN(root, split=split, download=download) for split in ("train", "test"))
            )
        return cutk.Splits(train=train, test=test)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``svhn``."""
    return [Svhn]
