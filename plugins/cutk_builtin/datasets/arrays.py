"""The user's own images and labels as arrays in one file."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import torch
from torch import Tensor

import cutk

PREFIXES = ("train_", "test_", "val_", "validation_", "")
KEYS = [prefix + what for prefix in PREFIXES for what in ("images", "labels")]
CHANNELS = (1, 3, 4)

Layout = Literal["channels-first", "channels-last"]


def read_npz(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Return the arrays that have known names, and the class names if the file has them.

    Raises:
        ValueError: if it is no ``.npz`` file, is damaged, or holds something else than numbers and texts.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("it is damaged, or no .npz file")
    found: dict[str, np.ndarray] = {}
    with np.load(file, allow_pickle=False) as content:
        for key in [key for key in (*KEYS, "classes") if key in content.files]:
            try:
                found[key] = content[key]
            except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{key} is damaged ({error})") from error
            except ValueError as error:
                raise ValueError(
                    f"{key} is damaged, or holds pickled objects, which are not loaded: "
                    "save numbers with a numeric dtype, and names with dtype=str"
                ) from error
    names = found.pop("classes", None)
    if names is not None and names.ndim != 1:
        raise ValueError(f"classes: expected a list of names, got the shape {list(names.shape)}")
    for key, array in found.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{key}: expected numbers, got {array.dtype}")
    # torch takes the machine's own byte order alone.
    arrays = {key: torch.from_numpy(a.astype(a.dtype.newbyteorder("="), copy=False)) for key, a in found.items()}
    return arrays, None if names is None else [str(name) for name in names.astype(str)]


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Return the tensors that have known names, and the class names if the metadata have them.

    Raises:
        ValueError: if it is no ``.safetensors`` file, is damaged, or ``classes`` is no JSON list.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            arrays = {key: content.get_tensor(key) for key in content.keys() if key in KEYS}  # noqa: SIM118
            names = (content.metadata() or {}).get("classes")
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged, or no .safetensors file ({error})") from error
    if names is None:
        return arrays, None
    try:
        parsed = json.loads(names)
    except json.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, list):
        raise ValueError(f"metadata 'classes': expected a JSON list of names, got {names!r}")
    return arrays, [str(name) for name in parsed]


def channels_first(images: Tensor, layout: Layout | None) -> Tensor:
    """Return ``images`` as ``[N, C, H, W]``.

    Args:
        images: uint8 ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``.
        layout: which of the latter two; if not given, the one that has 1, 3 or 4 channels.

    Raises:
        ValueError: for another dtype or shape, or if the layout can't be told.
    """
    shape = list(images.shape)
    if images.dtype != torch.uint8:
        dtype = str(images.dtype).removeprefix("torch.")
        raise ValueError(
            f"expected pixels 0 to 255 as uint8, got {dtype}. Convert them; for values from 0 to 1: "
            "(images * 255).round().astype('uint8')"
        )
    if images.ndim not in (3, 4) or 0 in shape:
        raise ValueError(f"expected images [N, H, W], [N, C, H, W] or [N, H, W, C], got the shape {shape}")
    if images.ndim == 3:
        return images[:, None].contiguous()
    if layout is None:
        first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
        if first == last:
            raise ValueError(
                f"expected 1, 3 or 4 channels either first or last, got the shape {shape}. "
                "Say which: set the option layout to channels-first or channels-last"
            )
        layout = "channels-first" if first else "channels-last"
    return (images if layout == "channels-first" else images.permute(0, 3, 1, 2)).contiguous()


def flat_labels(labels: Tensor, count: int) -> Tensor:
    """Return ``labels`` (whole numbers, ``[N]`` or ``[N, 1]``) as int64 ``[N]``.

    Raises:
        ValueError: if they aren't ``count`` whole numbers from 0 up.
    """
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(f"expected classes as whole numbers, got {dtype}. Convert them: labels.astype('int64')")
    if list(labels.shape) not in ([count], [count, 1]):
        raise ValueError(f"expected one label for each of the {count} images, got the shape {list(labels.shape)}")
    flat = labels.flatten().long()
    if int(flat.min()) < 0:
        raise ValueError(f"expected classes from 0 up, got {int(flat.min())}")
    return flat


def pair(arrays: Mapping[str, Tensor], prefix: str, layout: Layout | None) -> tuple[Tensor, Tensor]:
    """Return pixels and labels of the split that ``prefix`` stands for.

    Raises:
        ValueError: names the array that is missing or doesn't fit.
    """
    for what in ("images", "labels"):
        if prefix + what not in arrays:
            found = ", ".join(sorted(arrays)) or "none of them"
            raise ValueError(
                f"expected train_images, train_labels, test_images and test_labels, or images and labels alone; "
                f"{prefix}{what} is missing, found {found}"
            )
    key = prefix + "images"
    try:
        pixels = channels_first(arrays[key], layout)
        key = prefix + "labels"
        return pixels, flat_labels(arrays[key], len(pixels))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def label_splits(pairs: Mapping[str, tuple[Tensor, Tensor]], names: Sequence[str] | None) -> dict[str, cutk.Images]:
    """Return pixels and labels as images, with one list of classes; the first pair is what is trained on.

    Raises:
        ValueError: if the pairs differ in shape, or a class has no name or no training images.
    """
    (first, (pixels, labels)), *_ = pairs.items()
    for key, (other, _) in pairs.items():
        if other.shape[1:] != pixels.shape[1:]:
            raise ValueError(
                f"{key}images: expected the shape of {first}images, {list(pixels.shape[1:])} (channels, height, "
                f"width), got {list(other.shape[1:])}"
            )
    highest = max(int(given.max()) for _, given in pairs.values())
    classes = tuple(map(str, range(highest + 1))) if names is None else tuple(names)
    if highest >= len(classes):
        raise ValueError(f"classes: expected a name for each label from 0 to {highest}, got {len(classes)} names")
    counts = torch.bincount(labels, minlength=len(classes))
    if not counts.all():
        raise ValueError(
            f"{first}labels: expected images of each class from 0 to {len(classes) - 1}, "
            f"got none of class {int((counts == 0).nonzero()[0])}"
        )
    return {key: cutk.Images(*both, classes) for key, both in pairs.items()}


class Arrays(cutk.Dataset):
    """Your own images and labels, as arrays in one .npz or .safetensors file; MedMNIST's files fit as they are.

    The file holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, and may hold ``val_images``
    and ``val_labels`` (or ``validation_…``); or ``images`` and ``labels`` alone, of which a part of each class is set
    aside for testing. Images are uint8 ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, labels whole numbers
    ``[N]`` or ``[N, 1]``. Class names may be given as ``classes``: in a ``.npz`` file an array of texts, in the
    metadata of a ``.safetensors`` file a JSON list.
    """

    name = "arrays"
    reference = "Yang et al., MedMNIST v2, Scientific Data 2023 (the layout of the file)"
    variant = "file"
    model = "convnet-small"
    # No augmentation: whether a mirrored image is still of its class, cutk can't know.
    recipe = {"steps": 1000, "batch_size": 128, "crop_padding": 0, "flip": False}
    suggests = {
        # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
        "cf": {"steps": 250},
        "badt": {"steps": 250},
        "scrub": {"steps": 250, "forget_steps": 50},
    }

    class Options(cutk.Options):
        """Which file, and how it is to be read."""

        file: Path = cutk.option(Path("data.npz"), help=".npz or .safetensors file with images and labels")
        layout: Layout | None = cutk.option(
            None, help="where the channels of images with four dimensions are; none: where 1, 3 or 4 of them are"
        )
        test_fraction: float = cutk.option(
            0.2, gt=0, lt=1, help="part of each class that is for testing, if the file has no test images"
        )
        seed: int = cutk.option(0, ge=0, help="which images that part is")

    def load(self) -> cutk.Splits:
        """Read the file."""
        o = self.options
        file = o.file.expanduser()
        readers = {".npz": read_npz, ".safetensors": read_safetensors}
        if not file.is_file() or file.suffix not in readers:
            problem = "ends in neither" if file.is_file() else "is not there"
            raise cutk.UsageError(
                f"'{file}' {problem}: expected a .npz or .safetensors file with images and labels. "
                "Give it with --dataset arrays:FILE."
            )
        try:
            arrays, names = readers[file.suffix](file)
            if "train_images" in arrays:
                held_out = [prefix for prefix in ("val_", "validation_") if prefix + "images" in arrays][:1]
                prefixes = ["train_", "test_", *held_out]
            else:
                prefixes = [""]
            images = label_splits({prefix: pair(arrays, prefix, o.layout) for prefix in prefixes}, names)
        except (OSError, ValueError) as error:
            raise cutk.UsageError(f"'{file}': {error}.") from error
        if prefixes == [""]:
            return cutk.Splits.of(images[""], o.test_fraction, o.seed)
        train, test, *validation = images.values()
        return cutk.Splits(train=train, test=test, validation=validation[0] if validation else None)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``arrays``."""
    return [Arrays]
