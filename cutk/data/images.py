"""Image files: read one at a time, turned and laid on white as people see them, when they are due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from cutk.errors import UsageError

__all__ = ["DAMAGED", "ImageFiles", "beyond_8_bits", "read_image", "unreadable"]

DAMAGED = "is damaged, or no image"

# What most image files hold, by Pillow's names, whichever of their endings they have.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
# What is read by its ending alone: some begin with too little to be told by. Left out of what Pillow reads are pages
# that another program draws (EPS), volumes and films.
_BY_ENDING = {
    **dict.fromkeys((".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **{f".{name.lower()}": name for name in ("DDS", "DIB", "ICO", "PCX", "PSD", "QOI", "SGI", "TGA")},
}


def unreadable(path: Path, error: OSError) -> UsageError:
    """Return what the user is told of a file or folder that is there, and can't be read."""
    return UsageError(f"'{path}' can't be read: {error.strerror or error}. Change that, or remove it.")


def _turned(image: Image.Image) -> Image.Image:
    """Return a copy of ``image``, turned as its EXIF data say, if they can be read."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # what Pillow raises for damaged EXIF data; the image itself is there
        return image.copy()


def beyond_8_bits(image: Image.Image) -> str:
    """Say what is wrong with an image that holds more than 8 bits a channel, nothing of others.

    Pillow cuts off what is brighter than 255, and says nothing.
    """
    if not image.mode.startswith(("I", "F")):
        return ""
    return f"expected 8 bits a channel, got the mode {image.mode}. Convert the images to 8 bits"


def read_image(file: Path, size: int | None, grey: bool, left_out: Counter[str] | None = None) -> Tensor:
    """Return one image, uint8 ``[C, H, W]``; with ``size``, its shorter side is scaled to it and its centre cropped.

    It is turned as its EXIF data say; what is transparent becomes white; of several frames the first is taken, and
    ``left_out`` counts the others.

    Raises:
        UsageError: if the file is unreadable, damaged, or no image of 8 bits a channel.
    """
    try:
        named = _BY_ENDING.get(file.suffix.lower())
        with Image.open(file, formats=_FORMATS if named is None else (named,)) as opened:
            if wrong := beyond_8_bits(opened):
                raise UsageError(f"'{file}': {wrong}.")
            if left_out is not None:
                left_out["frames behind the first"] += getattr(opened, "n_frames", 1) - 1
            image = _turned(opened)
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if grey else "RGB")
    except UsageError:
        raise
    except PermissionError as error:
        raise unreadable(file, error) from error
    except Image.DecompressionBombError as error:
        raise UsageError(f"'{file}' has more pixels than are read ({error}). Scale it down.") from error
    except Exception as error:  # Pillow's readers don't agree on what a damaged file raises
        raise UsageError(f"'{file}' {DAMAGED}. Replace it, or remove it.") from error
    from torchvision.transforms.functional import (  # which takes as long to import as torch itself
        center_crop,
        pil_to_tensor,
        resize,
    )

    if size is not None:
        image = center_crop(resize(image, size), [size, size])
    pixels: Tensor = pil_to_tensor(image)
    return pixels


class ImageFiles:
    """Images that are read from their files when they are asked for: a map-style dataset that needs no memory.

    Item ``i`` is uint8 ``[C, H, W]``, as ``read_image`` gives it.
    """

    SUFFIXES = (
        *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"),
        *(".apng", ".jfif", ".jpe", ".pbm", ".pnm"),
        *_BY_ENDING,
    )

    def __init__(self, files: Sequence[Path], size: int | None = None, grey: bool = False) -> None:
        self.files, self.size, self.grey = list(files), size, grey

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.files[index], self.size, self.grey)

    def read(self, left_out: Counter[str] | None = None) -> Tensor:
        """Return all images, uint8 ``[N, C, H, W]``; ``left_out`` counts frames behind the first.

        Raises:
            UsageError: if one can't be read, or differs from the first in size, or all don't fit into memory.
        """
        first = self[0]
        try:
            pixels = torch.empty(len(self), *first.shape, dtype=torch.uint8)
        except (RuntimeError, MemoryError) as error:
            needed = len(self) * first.numel() / 2**30
            raise UsageError(
                f"{len(self):,} images of {'×'.join(map(str, first.shape[1:]))} pixels need {needed:,.0f} GB of "
                "memory, which isn't there. Set the option size to scale them down."
            ) from error
        for index, file in enumerate(self.files):
            image = read_image(file, self.size, self.grey, left_out)
            if image.shape != first.shape:
                (height, width), (expected_height, expected_width) = image.shape[1:], first.shape[1:]
                raise UsageError(
                    f"'{file}': expected {expected_height}×{expected_width} pixels, as '{self.files[0]}' has, got "
                    f"{height}×{width}. Set the option size to scale and crop all images to one size."
                )
            pixels[index] = image
        return pixels
