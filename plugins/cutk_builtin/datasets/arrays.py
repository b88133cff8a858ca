"""The user's own images, features or tokens, and labels, as arrays in one file."""

from __future__ import annotations

import errno
import json
import lzma
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.lib.format as npy
import safetensors
import torch
from torch import Tensor

import cutk
from cutk_builtin.own_data import RECIPE, SUGGESTS

PREFIXES = ("train_", "test_", "val_", "validation_", "")
CONTENTS = ("images", "features", "tokens")
KEYS = [prefix + what for prefix in PREFIXES for what in (*CONTENTS, "labels")]
CHANNELS = (1, 3, 4)

# An archive may promise far more than it holds. So much of an array is read in any case (bytes), and beyond it so many
# times what it takes in the file; noise hardly shrinks, and black images to a thousandth.
ALWAYS_READ = 2**28
MOST_UNPACKED = 100
# What readers raise for a damaged archive or header.
DAMAGED = (
    *(EOFError, LookupError, MemoryError, OverflowError, RuntimeError, SyntaxError, SystemError, TypeError, ValueError),
    *(lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)

Layout = Literal["channels-first", "channels-last"]


class UnfitError(ValueError):
    """An array can't be used, and the message says why; what else is raised is damage."""


def told(error: BaseException) -> str:
    """Return an error's text in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def read_member(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """Read an array from an archive, after a look at what its header promises.

    Raises:
        UnfitError: if it is encrypted, packed in a way that isn't known, no array of numbers or texts, or far larger
            than what it takes in the file.
    """
    info = archive.getinfo(member)
    if info.flag_bits & 1:
        raise UnfitError("is encrypted. Save it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        raise UnfitError(f"is packed in a way that isn't known ({info.compress_type}). Save it with numpy.savez")
    if info.file_size > max(ALWAYS_READ, MOST_UNPACKED * info.compress_size):
        raise UnfitError(
            f"would grow from {info.compress_size:,} to {info.file_size:,} bytes when unpacked, more than is unpacked. "
            "Save it with numpy.savez"
        )
    with archive.open(info) as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise UnfitError("is no array of NumPy's. Save it with numpy.savez")
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise UnfitError(f"has the version {version[0]}.{version[1]} of NumPy's format, which isn't known")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise UnfitError(
            "holds pickled objects, which are not loaded: save numbers with a numeric dtype, and names with dtype=str"
        )
    promised = math.prod(shape) * dtype.itemsize
    if promised > info.file_size or min(shape, default=0) < 0:
        raise UnfitError(f"is damaged: {list(shape)} of {dtype} take {promised:,} bytes, and it has {info.file_size:,}")
    with archive.open(info) as stream:
        return npy.read_array(stream, allow_pickle=False)


def read_npz(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Return the arrays that have known names, and the class names if the file has them.

    Raises:
        ValueError: if it is no ``.npz`` file, is damaged, or holds something else than numbers and texts.
    """
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGED as error:
        raise ValueError("it is damaged, or no .npz file") from error
    found: dict[str, np.ndarray] = {}
    with archive:
        members = set(archive.namelist())
        for key in [key for key in (*KEYS, "classes") if f"{key}.npy" in members]:
            try:
                found[key] = read_member(archive, f"{key}.npy")
            except UnfitError as error:
                raise ValueError(f"{key} {error}") from error
            except DAMAGED as error:
                raise ValueError(f"{key} is damaged ({told(error)})") from error
    names = found.pop("classes", None)
    if names is not None and names.ndim != 1:
        raise ValueError(f"classes: expected a list of names, got the shape {list(names.shape)}")
    for key, array in found.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"{key}: expected numbers of at most 64 bits, got {array.dtype}")
    # torch takes the machine's own byte order alone.
    arrays = {key: torch.from_numpy(a.astype(a.dtype.newbyteorder("="), copy=False)) for key, a in found.items()}
    try:
        return arrays, None if names is None else [str(name) for name in names.astype(str)]
    except (SystemError, UnicodeError) as error:  # no such character
        raise ValueError(f"classes: expected a list of names, got something else ({told(error)})") from error


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Return the tensors that have known names, and the class names if the metadata have them.

    Raises:
        ValueError: if it is no ``.safetensors`` file, is damaged, or ``classes`` is no JSON list.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            arrays = {key: content.get_tensor(key) for key in content.keys() if key in KEYS}  # noqa: SIM118
            names = (content.metadata() or {}).get("classes")
    except (safetensors.SafetensorError, *DAMAGED) as error:
        raise ValueError(f"it is damaged, or no .safetensors file ({told(error)})") from error
    if names is None:
        return arrays, None
    try:
        parsed = json.loads(names)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, list) or not all(isinstance(name, str | int) for name in parsed):
        shown = repr(names) if len(names) < 100 else f"{names[:60]!r} … ({len(names):,} characters)"
        raise ValueError(f"metadata 'classes': expected a JSON list of names, got {shown}")
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


def feature_vectors(features: Tensor) -> Tensor:
    """Return ``features`` (finite real numbers ``[N, D]``) as float32.

    Raises:
        ValueError: for another shape, or if there is none, or one isn't finite as float32.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"expected features [N, D], got the shape {list(features.shape)}")
    if features.dtype.is_complex:
        raise ValueError(f"expected real numbers, got {str(features.dtype).removeprefix('torch.')}")
    x = features.float().contiguous()
    finite = torch.isfinite(x).all(1)
    if not finite.all():
        raise ValueError(f"expected finite numbers, got others in {int((~finite).sum())} rows. Fill in what is missing")
    return x


def token_rows(tokens: Tensor) -> Tensor:
    """Return ``tokens`` (whole numbers from 0 up, ``[N, L]``) as int64.

    Raises:
        ValueError: for another shape, or if there is none, or something else than a whole number from 0 up.
    """
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"expected tokens [N, L], got the shape {list(tokens.shape)}. Pad them to one length")
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex or tokens.dtype == torch.bool:
        dtype = str(tokens.dtype).removeprefix("torch.")
        raise ValueError(f"expected tokens as whole numbers, got {dtype}. Convert them: tokens.astype('int64')")
    whole = tokens.long()  # of unsigned numbers torch knows no smallest
    if int(whole.min()) < 0:
        raise ValueError(f"expected tokens from 0 up, got {int(whole.min())}")
    return whole.contiguous()


def flat_labels(labels: Tensor, count: int) -> Tensor:
    """Return ``labels`` (whole numbers, ``[N]`` or ``[N, 1]``) as int64 ``[N]``.

    Raises:
        ValueError: if they aren't ``count`` whole numbers from 0 up.
    """
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(f"expected classes as whole numbers, got {dtype}. Convert them: labels.astype('int64')")
    if list(labels.shape) not in ([count], [count, 1]):
        raise ValueError(f"expected one label for each of the {count} samples, got the shape {list(labels.shape)}")
    flat = labels.flatten().long()
    if int(flat.min()) < 0:
        raise ValueError(f"expected classes from 0 up, got {int(flat.min())}")
    return flat


def pair(arrays: Mapping[str, Tensor], prefix: str, layout: Layout | None) -> tuple[str, tuple[Tensor, Tensor]]:
    """Return contents and labels of the split that ``prefix`` stands for, and what the contents are called.

    Raises:
        ValueError: names the array that is missing or doesn't fit.
    """
    held = [what for what in CONTENTS if prefix + what in arrays]
    missing = [what for what, there in (("images", held), ("labels", prefix + "labels" in arrays)) if not there]
    if missing:
        found = ", ".join(sorted(arrays)) or "none of them"
        raise ValueError(
            "expected train_images, train_labels, test_images and test_labels, or images and labels alone "
            f"(features or tokens in place of images); {prefix}{missing[0]} is missing, found {found}"
        )
    if len(held) > 1:
        raise ValueError(f"expected one of {prefix}images, {prefix}features and {prefix}tokens, got several")
    content, labels = prefix + held[0], prefix + "labels"
    read = {"images": partial(channels_first, layout=layout), "features": feature_vectors, "tokens": token_rows}
    try:
        x = read[held[0]](arrays[content])
    except ValueError as error:
        raise ValueError(f"{content}: {error}") from error
    try:
        return content, (x, flat_labels(arrays[labels], len(x)))
    except ValueError as error:
        raise ValueError(f"{labels}: {error}") from error


def label_splits(pairs: Mapping[str, tuple[Tensor, Tensor]], names: Sequence[str] | None) -> list[cutk.Samples]:
    """Return contents and labels as samples, with one list of classes; the first pair is what is trained on.

    Raises:
        ValueError: if the pairs differ in shape, there is but one class, or a class has no name or nothing to train on.
    """
    (first, (x, labels)), *_ = pairs.items()
    for content, (other, _) in pairs.items():
        if other.shape[1:] != x.shape[1:] or other.dtype != x.dtype:
            raise ValueError(
                f"{content}: expected the shape of {first}, {list(x.shape[1:])}, got {list(other.shape[1:])}"
            )
    given = re.sub("images|features|tokens", "labels", first)
    highest = max(int(each.max()) for _, each in pairs.values())
    if highest >= len(x):
        # Before names are made: a label of some billions would ask for as many.
        raise ValueError(
            f"{given}: expected samples of each class from 0 to {highest}, got {len(x)} samples in all. "
            "Number the classes from 0 up without gaps"
        )
    classes = tuple(map(str, range(highest + 1))) if names is None else tuple(names)
    if highest >= len(classes):
        raise ValueError(f"classes: expected a name for each label from 0 to {highest}, got {len(classes)} names")
    if len(classes) < 2:
        raise ValueError(f"{given}: expected at least 2 classes, got 1")
    counts = torch.bincount(labels, minlength=len(classes))
    if not counts.all():
        raise ValueError(
            f"{given}: expected samples of each class from 0 to {len(classes) - 1}, "
            f"got none of class {int((counts == 0).nonzero()[0])}"
        )
    return [cutk.Samples(*both, classes) for both in pairs.values()]


class Arrays(cutk.Dataset):
    """Your own images, features or tokens with labels, in one .npz or .safetensors file; MedMNIST's fit as they are.

    The file holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, and may hold ``val_images``
    and ``val_labels`` (or ``validation_…``); or ``images`` and ``labels`` alone, of which a part of each class is set
    aside for testing. Images are uint8 ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, labels whole numbers
    ``[N]`` or ``[N, 1]``. Feature vectors, real numbers ``[N, D]``, are called ``features`` in place of ``images``, and
    want a model for them: ``mlp`` or ``linear``. Tokens, whole numbers from 0 up ``[N, L]``, are called ``tokens``, and
    want a model of your own. Class names may be given as ``classes``: in a ``.npz`` file an array
    of texts, in the metadata of a ``.safetensors`` file a JSON list.
    """

    name = "arrays"
    reference = "Yang et al., MedMNIST v2, Scientific Data 2023 (the layout of the file)"
    variant = "file"
    model = "convnet-small"
    recipe = RECIPE
    suggests = SUGGESTS

    class Options(cutk.Options):
        """Which file, and how it is to be read."""

        file: Path = cutk.option(Path("data.npz"), help=".npz or .safetensors file with samples and labels")
        layout: Layout | None = cutk.option(
            None, help="where the channels of images with four dimensions are; none: where 1, 3 or 4 of them are"
        )
        test_fraction: float = cutk.option(
            0.2, gt=0, lt=1, help="part of each class that is for testing, if the file has none"
        )
        seed: int = cutk.option(0, ge=0, le=2**63 - 1, help="which samples that part is")

    def load(self) -> cutk.Splits:
        """Read the file."""
        train, *others = self._read()
        if not others:
            return cutk.Splits.of(train, self.options.test_fraction, self.options.seed)
        test, *validation = others
        return cutk.Splits(train=train, test=test, validation=validation[0] if validation else None)

    def given(self) -> cutk.Given:
        """Read the file; without ``train_`` in its names, all of it was trained on."""
        train, *others = self._read()
        given = cutk.Given.of_samples(train)
        return replace(given, validation=cutk.Given.of_samples(others[-1])) if others else given

    def _read(self) -> list[cutk.Samples]:
        """Return all samples, or those to train on, to test on, and held out ones if there are some."""
        o = self.options
        file = o.file.expanduser()
        readers = {".npz": read_npz, ".safetensors": read_safetensors}
        try:
            if not file.is_file() or file.suffix not in readers:
                problem = "ends in neither" if file.is_file() else "is no file" if file.exists() else "is not there"
                raise cutk.UsageError(
                    f"'{file}' {problem}: expected a .npz or .safetensors file with samples and labels. "
                    "Give it as arrays:FILE."
                )
            with file.open("rb"):  # which fails for one reason alone, where readers have many
                pass
            arrays, names = readers[file.suffix](file)
            split = any(f"train_{what}" in arrays for what in CONTENTS)
            held_out = [p for p in ("val_", "validation_") if any(p + what in arrays for what in CONTENTS)][:1]
            prefixes = ["train_", "test_", *held_out] if split else [""]
            return label_splits(dict(pair(arrays, prefix, o.layout) for prefix in prefixes), names)
        except OSError as error:
            # Readers of damaged files seek where nothing is.
            damaged = error.errno in (None, errno.EINVAL)
            problem = f"is damaged ({told(error)})" if damaged else f"can't be read: {error.strerror}"
            raise cutk.UsageError(f"'{file}' {problem}.") from error
        except ValueError as error:
            raise cutk.UsageError(f"'{file}': {error}.") from error


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``arrays``."""
    return [Arrays]
