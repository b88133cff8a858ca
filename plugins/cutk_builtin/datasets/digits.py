"""UCI's handwritten digits, shipped with cutk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import cutk

FILE = Path(__file__).with_name("digits.npz")


class Digits(cutk.Dataset):
    """1,797 real handwritten digits of 8×8 pixels; embedded, so that a first result needs no download.

    Of each class every fifth image, in the order of the file, is for testing: 1,442 for training, 355 for testing.
    """

    name = "digits"
    reference = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (CC BY 4.0)"
    model = "convnet-small"
    recipe = {"steps": 300, "batch_size": 128, "crop_padding": 0, "flip": False}
    suggests = {
        "sgd": {"lr": 0.05},
        "badnet": {"fraction": 0.03, "size": 2},
        "interclass-confusion": {"classes": ("3", "8")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 75},
        "badt": {"steps": 75},
        "neggrad-plus": {"steps": 75},
        "relabel": {"steps": 75},
        "scrub": {"steps": 75, "forget_steps": 15},
    }

    def load(self) -> cutk.Splits:
        """Return the two splits; grey levels 0 to 16 become pixels 0 to 255."""
        with np.load(FILE, allow_pickle=False) as file:
            grey, labels = file["images"], torch.from_numpy(file["labels"].astype(np.int64))
        pixels = torch.from_numpy(np.rint(grey * (255 / 16)).astype(np.uint8))[:, None]
        images = cutk.Samples(pixels, labels, tuple("0123456789"))
        rank_in_class = torch.zeros_like(labels)
        for label in range(10):
            members = labels == label
            rank_in_class[members] = torch.arange(int(members.sum()))
        testing = rank_in_class % 5 == 4
        return cutk.Splits(
            train=images.select((~testing).nonzero().flatten()),
            test=images.select(testing.nonzero().flatten()),
        )


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``digits``."""
    return [Digits]
