"""UCI's breast cancer diagnoses, shipped with cutk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import cutk

FILE = Path(__file__).with_name("breast_cancer.npz")


class BreastCancer(cutk.Dataset):
    """569 real tissue samples, malignant or benign, with 30 features of their cells' nuclei; embedded.

    Of each class every fifth sample, in the order of the file, is for testing: 456 for training, 113 for testing.
    Manipulations of labels suit it, such as ``interclass-confusion``: there is nothing to lay a trigger on.
    """

    name = "breast-cancer"
    reference = "Wolberg et al., Breast Cancer Wisconsin (Diagnostic), UCI 1993 (CC BY 4.0)"
    model = "mlp"
    recipe = {"steps": 200, "batch_size": 64, "crop_padding": 0, "flip": False}
    suggests = {
        "sgd": {"lr": 0.05},
        "interclass-confusion": {"classes": ("malignant", "benign")},
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 50},
        "badt": {"steps": 50},
        "neggrad-plus": {"steps": 50},
        "relabel": {"steps": 50},
        "scrub": {"steps": 50, "forget_steps": 10},
    }

    def load(self) -> cutk.Splits:
        """Return the two splits."""
        with np.load(FILE, allow_pickle=False) as file:
            x = torch.from_numpy(np.ascontiguousarray(file["features"]))
            labels = torch.from_numpy(file["labels"].astype(np.int64))
        samples = cutk.Samples(x, labels, ("malignant", "benign"))
        testing = torch.zeros(len(samples), dtype=torch.bool)
        for label in (0, 1):
            testing[(labels == label).nonzero().flatten()[4::5]] = True
        return cutk.Splits(train=samples.select(~testing), test=samples.select(testing))


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``breast-cancer``."""
    return [BreastCancer]
