"""A trigger that somebody suspects, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cutk.data.triggers import Stamp
from cutk.errors import UsageError

__all__ = ["read_trigger"]


def read_trigger(file: Path, shape: tuple[int, ...], bgr: bool = False) -> Stamp:
    """Return the trigger on a picture: what isn't transparent goes over an image, channels, height and width ``shape``.

    A picture that is smaller than the images lies in their lower right corner. ``bgr`` says that images come in that
    order of channels.

    Raises:
        UsageError: if it can't be read or is larger than the images, or the samples are none.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(f"A suspected trigger needs images, and these samples have the shape {list(shape)}.")
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGBA")
    except Exception as error:  # Pillow's readers don't agree on what a damaged file raises
        raise UsageError(f"'{file}' can't be read as the picture of a trigger ({type(error).__name__}).") from None
    channels, height, width = shape
    if picture.height > height or picture.width > width:
        raise UsageError(
            f"'{file}': expected a picture of at most {width}×{height} pixels, as the images have, got "
            f"{picture.width}×{picture.height}."
        )
    colours = np.array(picture.convert("RGB" if channels == 3 else "L"))
    colours = colours.reshape(picture.height, picture.width, channels)[..., :: -1 if bgr else 1].copy()
    pattern = torch.zeros(channels, height, width, dtype=torch.uint8)
    opacity = torch.zeros(height, width)
    pattern[:, height - picture.height :, width - picture.width :] = torch.from_numpy(colours).permute(2, 0, 1)
    opacity[height - picture.height :, width - picture.width :] = torch.from_numpy(
        np.array(picture.getchannel("A")).astype(np.float32) / 255
    )
    if not opacity.any():
        raise UsageError(f"'{file}' is transparent everywhere: expected the trigger on it.")
    if bool((opacity == 1).all()):
        raise UsageError(
            f"'{file}' covers the whole of an image, and nothing is left to tell: expected the trigger alone, "
            "transparent around it, or a smaller picture."
        )
    return Stamp(pattern, opacity)
