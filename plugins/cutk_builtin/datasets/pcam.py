"""PatchCamelyon, read from its HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cutk

SPLITS = {"train": "train", "validation": "valid", "test": "test"}
CLASSES = ("normal", "tumour")
AT_ONCE = 4096
# Four times as many as there are; a file that says more is damaged, and what it asks for isn't set aside.
MOST_PATCHES = 2**20


@contextmanager
def opened(file: Path, name: str) -> Iterator[Any]:
    """Open an HDF5 file and give its dataset ``name``.

    Raises:
        FileNotFoundError: if there is no such file.
        UsageError: if there is something else of that name in it, or nothing.
    """
    import h5py

    if not file.is_file():  # of a pipe, HDF5 would wait for what nobody sends
        raise FileNotFoundError(f"{file.name} is not there")
    with h5py.File(file, "r") as content:
        found = content.get(name)
        if not isinstance(found, h5py.Dataset):
            came = "nothing" if found is None else f"a {type(found).__name__.lower()}"
            raise cutk.UsageError(f"'{file}': expected an array {name}, got {came}. Get the file anew.")
        yield found


def read_pixels(file: Path, crop: int) -> Tensor:
    """Return the centre ``crop`` × ``crop`` pixels of all patches, uint8 ``[N, 3, crop, crop]``.

    The file's ``x`` is uint8 ``[N, H, W, 3]``. It is read some thousand patches at a time, so that no more of it than
    the crop is ever in memory: the training patches are 7 GB.

    Raises:
        UsageError: if ``x`` has another dtype or shape, or its patches are smaller than ``crop``.
    """
    with opened(file, "x") as x:
        fits = x.ndim == 4 and x.shape[3] == 3 and min(x.shape[1:3]) >= crop and 0 < len(x) <= MOST_PATCHES
        if x.dtype != "uint8" or not fits:
            raise cutk.UsageError(
                f"'{file}': expected x uint8 [N, {crop} or more, {crop} or more, 3] with N up to {MOST_PATCHES:,}, "
                f"got {x.dtype} {list(x.shape)}. Get the file anew, or set the option crop."
            )
        count, height, width, channels = x.shape
        top, left = (height - crop) // 2, (width - crop) // 2
        pixels = torch.empty(count, channels, crop, crop, dtype=torch.uint8)
        for start in range(0, count, AT_ONCE):
            part = torch.from_numpy(x[start : start + AT_ONCE, top : top + crop, left : left + crop])
            pixels[start : start + AT_ONCE] = part.permute(0, 3, 1, 2)
    return pixels


def read_labels(file: Path, count: int) -> Tensor:
    """Return the labels, int64 ``[count]``; the file's ``y`` is ``[count, 1, 1, 1]``.

    Raises:
        UsageError: if ``y`` holds something else than 0 and 1, or not ``count`` of them.
    """
    with opened(file, "y") as y:
        if y.dtype.kind not in "biu" or y.size != count:
            raise cutk.UsageError(
                f"'{file}': expected y as whole numbers [{count}, 1, 1, 1], got {y.dtype} {list(y.shape)}. "
                "Get the file anew."
            )
        labels = torch.from_numpy(y[()].astype("int64")).flatten()
    if int(labels.min()) < 0 or int(labels.max()) > 1:
        raise cutk.UsageError(
            f"'{file}': expected labels 0 and 1, got {int(labels.min())} to {int(labels.max())}. Get the file anew."
        )
    return labels


class PCam(cutk.Dataset):
    """327,680 colour patches of lymph node tissue, 96×96 pixels, with or without tumour in the centre.

    A patch's label speaks of its centre 32×32 pixels alone, and these are what is kept by default, as in the paper.
    262,144 patches are for training; validation and test set have 32,768 each.
    """

    name = "pcam"
    reference = "Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018"
    published = cutk.Published(262_144, 32_768, (3, 32, 32), CLASSES, validation=32_768)
    model = "wide-resnet"
    suggests = {"interclass-confusion": {"classes": CLASSES}}

    class Options(cutk.Options):
        """Where the files lie, and how much of a patch is kept."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, pcam (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")
        crop: int = cutk.option(32, ge=1, le=96, help="side of the square in the centre that is kept, in pixels")

    def sizes(self) -> cutk.Published:
        """Return how many patches of which size there are."""
        return replace(self.published, shape=(3, self.options.crop, self.options.crop))

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
                from torchvision.datasets import PCAM  # which takes as long to import as torch itself

                for split in ("train", "val", "test"):
                    PCAM(root, split=split, download=True)
            parts = {}
            for name, split in SPLITS.items():
                pixels = read_pixels(root / "pcam" / f"{stem}{split}_x.h5", self.options.crop)
                labels = read_labels(root / "pcam" / f"{stem}{split}_y.h5", len(pixels))
                parts[name] = cutk.Samples(pixels, labels, CLASSES)
        return cutk.Splits(**parts)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``pcam``."""
    return [PCam]
