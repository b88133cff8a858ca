"""Weights that somebody trained on other data, as the start of a fine-tuning."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from torch import nn

from cutk.errors import UsageError
from cutk.repair.weights import Weights, matched, read_weights

__all__ = ["load_pretrained", "sha256_of"]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file of weights.

    Raises:
        UsageError: if it isn't there, or can't be read.
    """
    file = file.expanduser()
    if not file.is_file():
        raise UsageError(
            f"Option 'weights': '{file}' is not there, or no file: expected a .safetensors file or a state dict."
        )
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"Option 'weights': '{file}' can't be read: {error.strerror or error}.") from None


@functools.lru_cache(maxsize=1)  # a model is built for each cell, and more often
def _read(file: Path, sha256: str) -> Weights:
    weights = read_weights(file)
    if sha256 and weights.sha256 != sha256:
        raise UsageError(
            f"'{file}': expected the weights whose SHA-256 is {sha256[:12]}…, got {weights.sha256[:12]}…. The file has "
            "changed since the run began, or it is another one."
        )
    return weights


def load_pretrained(network: nn.Module, file: Path, num_classes: int, sha256: str = "") -> None:
    """Load pretrained weights into a network for ``num_classes``; a head for other classes keeps its new weights.

    The head are the tensors whose first dimension is the number of classes. All others have to be there and to fit. The
    file is a .safetensors file or a state dict that ``torch.save`` wrote, and no code in it is run. ``sha256`` says
    which file is expected, if that matters.

    Raises:
        UsageError: names keys that are missing or in excess, and shapes that differ.
    """
    file = file.expanduser()
    weights, expected = _read(file, sha256), network.state_dict()
    state, wrong = dict(expected), []
    for theirs, ours in matched(weights, expected, file).items():
        given, wanted = weights.tensors[theirs], expected[ours]
        if given.shape == wanted.shape:
            state[ours] = given.to(wanted.dtype)
        elif wanted.ndim == 0 or wanted.shape[0] != num_classes or given.shape[1:] != wanted.shape[1:]:
            wrong.append(f"'{theirs}' as {list(wanted.shape)}, got {list(given.shape)}")
    if wrong:
        raise UsageError(
            f"'{file}': expected {wrong[0]}"
            + (f", and {len(wrong) - 1} more of other shapes" if len(wrong) > 1 else "")
            + ". Only a head for other classes may differ: is it this architecture, for as many channels?"
        )
    network.load_state_dict(state)
