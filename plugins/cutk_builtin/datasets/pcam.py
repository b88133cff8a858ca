"""PatchCamelyon, read from its HDF5 files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import PCAM

import cutk

SPLITS = {"train": "train", "validation": "valid", "test": "test"}
AT_ONCE = 4096


def read_pixels(file: Path, crop: int) -> Tensor:
    """Return the centre ``crop`` × ``crop`` pixels of all patches, uint8 ``[N, 3, crop, crop]``.

    The file's ``x`` is uint8 ``[N, H, W, 3]``. It is read some thousand patches at a time, so that no more of it than
    the crop is ever in memory: the training patches are 7 GB.

    Raises:
        ValueError: if ``x`` has another dtype or shape, or its patches are smaller than ``crop``.
    """
    import h5py

    with h5py.File(file, "r") as content:
        x = content["x"]
        if x.dtype != "uint8" or x.ndim != 4 or x.shape[3] != 3 or min(x.shape[1:3]) < crop:
            raise ValueError(f"expected x uint8 [N, {crop} or more, {crop} or more, 3], got {x.dtype} {list(x.shape)}")
        count, height, width, channels = x.shape
        top, left = (height - crop) // 2, (width - crop) // 2
        pixels = torch.empty(count, channels, crop, crop, dtype=torch.uint8)
        for start in range(0, count, AT_ONCE):
            part = torch.from_numpy(x[start : start + AT_ONCE, top : top + crop, left : left + crop])
            pixels[start : start + AT_ONCE] = part.permute(0, 3, 1, 2)
    return pixels


def read_labels(file: Path) -> Tensor:
    """Return the labels, int64 ``[N]``; the file's ``y`` is ``[N, 1, 1, 1]``."""
    import h5py

    with h5py.File(file, "r") as content:
        return torch.from_numpy(content["y"][()]).flatten().long()


class PCam(cutk.Dataset):
    """327,680 colour patches of lymph node tissue, 96×96 pixels, with or without tumour in the centre.

    A patch's label speaks of its centre 32×32 pixels alone, and these are what is kept by default, as in the paper.
    262,144 patches are for training; validation and test set have 32,768 each.
    """

    name = "pcam"
    reference = "Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018"
    model = "wide-resnet"
    suggests = {"interclass-confusion": {"classes": ("normal", "tumour")}}

    class Options(cutk.Options):
        """Where the files lie, and how much of a patch is kept."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, pcam (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")
        crop: int = cutk.option(32, ge=1, le=96, help="side of the square in the centre that is kept, in pixels")

    def load(self) -> cutk.Splits:
        """Read all three splits. torchvision only fetches them: it opens the file anew for every patch."""
        try:
            import h5py  # noqa: F401
        except ImportError:
            raise cutk.UsageError(
                "The dataset 'pcam' needs h5py to read HDF5 files. Install it: pip install 'cutk[pcam]'"
            ) from None
        root, download = self.options.root.expanduser(), self.options.download
        stem = "camelyonpatch_level_2_split_"
        with cutk.Splits.reading("PCam", root, root / "pcam" / (stem + "{train,valid,test}_{x,y}.h5"), download):
            if download:
                for split in ("train", "val", "test"):
                    PCAM(root, split=split, download=True)
            parts = {
                name: cutk.Images(
                    read_pixels(root / "pcam" / f"{stem}{split}_x.h5", self.options.crop),
                    read_labels(root / "pcam" / f"{stem}{split}_y.h5"),
                    ("normal", "tumour"),
                )
                for name, split in SPLITS.items()
            }
        return cutk.Splits(**parts)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``pcam``."""
    return [PCam]
