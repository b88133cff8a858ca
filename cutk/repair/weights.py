"""Weights as people keep them: read without running code, under their own keys, and written back the same way."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cutk.data.samples import Normalisation
from cutk.errors import UsageError, one_line
from cutk.repair.pickles import NESTED, few, unpickled
from cutk.run.files import apart

__all__ = ["Weights", "fitted", "matched", "noted", "read_weights"]

# Counts the batches that a layer has seen; old files lack it, and nobody misses it.
_COUNTER = "num_batches_tracked"
# Of what is noted in a .safetensors file that cutk writes.
NOTE = "cutk"


@dataclass
class Weights:
    """Tensors by the user's own keys.

    Attributes:
        tensors: as they lie in the file.
        sha256: of the file.
        note: what cutk noted beside them: model, classes, normalisation.
        metadata: all that a .safetensors file says beside them, the note as it lies there among it.
        keys: the model's key for each of the user's, once they are ``fitted``.
        within: under which name the file kept them beside other things; empty if it held nothing else.
        content: all that ``torch.save`` wrote: a mapping that is the state dict, or holds it; None of .safetensors.
    """

    tensors: dict[str, Tensor]
    sha256: str
    note: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    within: str = ""
    content: Any = field(default=None, repr=False)

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a model's state under the user's keys and in their dtypes."""
        return apart({theirs: state[ours].to(self.tensors[theirs].dtype) for theirs, ours in self.keys.items()})

    def put_back(self, tensors: Mapping[str, Tensor]) -> Any:
        """Return what the file held, of its kinds and in its order, with ``tensors`` (under the user's keys) in place.

        Where ``torch.save`` didn't write it, these alone.
        """
        if self.content is None:
            return dict(tensors)
        held = copy.copy(self.content[self.within] if self.within else self.content)
        held.update(tensors)
        if not self.within:
            return held
        found = copy.copy(self.content)
        found[self.within] = held
        return found

    def beside(self) -> list[str]:
        """Return the names of what lies beside the weights."""
        return [str(name) for name in self.content if name != self.within] if self.within else []

    def copies(self) -> list[str]:
        """Return the names of what lies beside the weights and holds tensors of their shapes: an average of them, say.

        Nobody repairs these.
        """
        shapes = Counter(tuple(value.shape) for value in self.tensors.values() if value.ndim)

        def likely(value: Any) -> bool:
            if not isinstance(value, Mapping):
                return False
            mine = Counter(tuple(each.shape) for each in value.values() if isinstance(each, Tensor) and each.ndim)
            return not shapes - mine or any(likely(inner) for inner in value.values() if isinstance(inner, Mapping))

        return [name for name in self.beside() if likely(self.content.get(name))]


def read_weights(file: Path) -> Weights:
    """Return the tensors in a .safetensors file, or in a state dict that ``torch.save`` wrote; no code is run.

    Raises:
        UsageError: if it is something else, damaged, or wants to run code.
    """
    if not file.is_file():
        raise UsageError(f"--weights: '{file}' is not there, or no file: expected a .safetensors file or a state dict.")
    try:
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        metadata: dict[str, str] = {}
        within, content = "", None
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt") as archive:
                metadata = archive.metadata() or {}
            tensors: Any = safetensors.torch.load_file(file)
        else:
            content = unpickled(file)
            tensors, within = _state_dict(file, content)
    except SafetensorError as error:
        raise UsageError(f"'{file}' is damaged, or no safetensors file ({one_line(error)}).") from None
    except OSError as error:
        raise UsageError(f"'{file}' can't be read: {error.strerror or one_line(error)}.") from None
    if not tensors:
        raise UsageError(f"'{file}' holds no weights: expected a state dict, got an empty one.")
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise UsageError(f"'{file}': expected finite weights, got others in {few(broken)}. Did training diverge?")
    return Weights(tensors, sha256, _note(metadata), metadata, within=within, content=content)


def noted(classes: Iterable[str], normalisation: Normalisation | None, note: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a .safetensors file that say how samples reach the model, and what else ``note`` holds.

    ``classes`` are in the order of its outputs; None in ``note`` is nothing. Tokens have no normalisation, and of some
    samples nobody knows it.
    """
    apart = ("classes", "mean", "std")
    said = {name: value for name, value in note.items() if name not in apart and value is not None}
    said["classes"] = list(classes)
    if normalisation is not None and normalisation.mean:
        said |= {"mean": list(normalisation.mean), "std": list(normalisation.std)}
    return {NOTE: json.dumps(said)}


def _note(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(NOTE, "{}"))
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _state_dict(file: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a checkpoint, and under which name it lies there; under none if it is all of it."""

    def tensors_in(value: Any) -> bool:
        return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())

    if isinstance(content, Mapping):
        # Beside the weights, a checkpoint may hold other tensors (the best accuracy); beside those, no other mapping.
        for name, found in (*((name, content.get(name)) for name in NESTED), ("", content)):
            if found is not None and tensors_in(found):
                return {str(key): value.detach() for key, value in found.items() if isinstance(value, Tensor)}, name
    came = type(content).__name__
    if isinstance(content, Mapping):
        came += f" of {few(map(str, content))}" if content else ", an empty one"
    raise UsageError(f"'{file}': expected a state dict, names and tensors, got {came}.")


def _spellings(keys: Iterable[str]) -> list[Callable[[str], str | None]]:
    """Return the ways in which the user's keys may become a model's own; None drops a key.

    DataParallel writes ``module.`` before each, ``torch.compile`` ``_orig_mod.``, Lightning the name of the attribute
    that holds the network.
    """

    def bare(key: str) -> str:
        key = key.replace("_orig_mod.", "")
        while key.startswith("module."):
            key = key.removeprefix("module.")
        return key

    def without(head: str) -> Callable[[str], str | None]:
        return lambda key: bare(bare(key).removeprefix(head)) if bare(key).startswith(head) else None

    heads = dict.fromkeys(bare(key).partition(".")[0] + "." for key in keys)
    return [lambda key: key, bare, *(without(head) for head in heads)]


def matched(weights: Weights, expected: Mapping[str, Tensor], file: Path) -> dict[str, str]:
    """Return the model's key for each of the user's.

    Raises:
        UsageError: if keys are missing or in excess.
    """
    needed = {key for key in expected if not key.endswith(_COUNTER)}
    best: tuple[int, dict[str, str]] = (-1, {})
    for spelling in _spellings(weights.tensors):
        keys = {key: own for key in weights.tensors if (own := spelling(key)) is not None}
        hits = len(needed & set(keys.values()))
        if len(set(keys.values())) == len(keys) and hits > best[0]:
            best = hits, keys
    keys = best[1]
    there = set(keys.values())
    missing = sorted(needed - there)
    extra = sorted(theirs for theirs in weights.tensors if keys.get(theirs) not in expected)
    if missing or extra:
        parts = [
            f"{len(keys)} {what} ({few(keys)})" for keys, what in ((missing, "missing"), (extra, "in excess")) if keys
        ]
        raise UsageError(
            f"'{file}' doesn't fit the model: of {len(expected)} tensors {' and '.join(parts)}. Is --model the "
            "architecture that was trained?"
        )
    return keys


def fitted(weights: Weights, model: nn.Module, file: Path, classes: int) -> None:
    """Load weights into a model, and note which of the user's keys is which of its own.

    Raises:
        UsageError: if keys are missing or in excess, or a shape differs.
    """
    expected = model.state_dict()
    keys = matched(weights, expected, file)
    wrong = [key for key, own in keys.items() if weights.tensors[key].shape != expected[own].shape]
    if wrong:
        theirs, ours = weights.tensors[wrong[0]].shape, expected[keys[wrong[0]]].shape
        if theirs[1:] == ours[1:] and ours[0] == classes:
            raise UsageError(
                f"'{file}' tells {theirs[0]} classes apart ('{wrong[0]}'), and the data have {classes}: expected as "
                "many of both. Where the data lack some, name all in the order of the model's outputs, with --classes."
            )
        raise UsageError(
            f"'{file}': expected '{wrong[0]}' as {list(ours)}, got {list(theirs)}"
            + (f", and {len(wrong) - 1} more of other shapes" if len(wrong) > 1 else "")
            + ". Is --model the architecture that was trained, on samples of this shape?"
        )
    there = set(keys.values())
    counters = {key: value for key, value in expected.items() if key not in there}
    model.load_state_dict({**counters, **{own: weights.tensors[key] for key, own in keys.items()}})
    weights.keys = keys
