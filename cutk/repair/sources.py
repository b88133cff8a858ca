"""What a command line names, found: a network, samples, and which of them are bad."""

from __future__ import annotations

import hashlib
import importlib
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cutk.components import Dataset, Model
from cutk.data.given import Given
from cutk.data.images import ImageFiles
from cutk.data.listed import read_list
from cutk.data.samples import Samples
from cutk.errors import UsageError, one_line, reason
from cutk.options import parse_options
from cutk.plugins.registry import Entry, Registry, import_file

__all__ = ["bad_in", "builder", "data_of", "digests_of", "in_order", "overlap", "readable", "sample_shape"]

Build = Callable[[], nn.Module]
_NAMED = 10


def data_of(entry: Entry, given: Mapping[str, Any]) -> Given:
    """Return the training samples of a dataset, none set aside; ``given`` are its options."""
    made: Dataset = _made(entry, given)
    found = made.given()
    return Given.of(made.load()) if found is None else found


def _made(entry: Entry, given: Mapping[str, Any]) -> Any:
    options = parse_options(entry.component.Options, {**entry.given, **given}, entry.name)
    return entry.component(options)


def sample_shape(given: Given) -> tuple[int, ...]:
    """Return the shape of one sample: the first that can be read."""
    if isinstance(given.content, Samples):
        return given.content.shape
    first: UsageError | None = None
    for index in range(len(given)):
        try:
            return tuple(given.content[index].shape)
        except UsageError as error:  # which is told where it is needed
            first = first or error
    raise first or UsageError("The data hold no samples.")


def builder(spec: str, registry: Registry, options: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> Build:
    """Return a function that makes a network with new weights.

    ``spec`` is a model's name, or ``package.module:function`` or ``file.py:function``, which is user's code.

    Raises:
        UsageError: if there is no such thing, or it gives no network.
    """
    head, colon, function = spec.rpartition(":")
    families = {entry.component.name for entry in registry.of_kind("model")}
    if not colon or head.partition(":")[0] in families:
        entry = registry.get("model", spec)
        made: Model = _made(entry, options)
        return lambda: made.build(shape, classes)
    file = Path(head).expanduser().absolute() if head.endswith(".py") else None
    with _from(Path.cwd() if file is None else file.parent):
        try:
            module = importlib.import_module(head) if file is None else _imported(file)
        except Exception as error:  # whatever the user's own module raises
            known = "" if "." in head or head.endswith(".py") else f" Known models: {', '.join(sorted(families))}."
            raise UsageError(f"--model: '{head}' can't be imported: {one_line(error).rstrip('.')}.{known}") from error
    if options:
        raise UsageError(
            f"--model: '{spec}' is a function, which is called without options, got {', '.join(sorted(options))}. Set "
            "them in the function, or make it a model that cutk knows: cutk plugins new NAME --kind model."
        )
    made_by = getattr(module, function, None)
    if not callable(made_by):
        raise UsageError(f"--model: '{head}' has no function '{function}': expected one that returns the network.")

    def build() -> nn.Module:
        try:
            network = made_by()
        except Exception as error:  # whatever the user's own function raises
            raise UsageError(f"--model: {function}() failed: {reason(error)}") from error
        if not isinstance(network, nn.Module):
            raise UsageError(
                f"--model: expected {function}() to return a torch.nn.Module, got {type(network).__name__}."
            )
        if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
            raise UsageError(
                f"--model: {function}() returns modules that are lazy: run a sample through the network before it is "
                "returned."
            )
        return network

    return build


def _imported(file: Path) -> Any:
    return import_file(file, hashlib.sha256(file.read_bytes()).hexdigest()[:12])


@contextmanager
def _from(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported, as ``python -m`` does."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def in_order(given: Given, classes: Sequence[str], what: str) -> Given:
    """Return the same samples with the classes in another order: that of the model's outputs.

    Raises:
        UsageError: if the data have a class that isn't among ``classes``.
    """
    unknown = [name for name in given.classes if name not in classes]
    if unknown or len(set(classes)) < len(classes):
        raise UsageError(
            f"{what}: expected classes among {', '.join(classes[:_NAMED])}, each once, got "
            f"{', '.join(unknown[:_NAMED]) or ', '.join(classes[:_NAMED])}."
        )
    place = torch.tensor([classes.index(name) for name in given.classes], dtype=torch.int64)
    labels, content = place[given.labels], given.content
    if isinstance(content, Samples):
        content = Samples(content.x, labels, tuple(classes), content.ids, content.names, content.published)
    held_out = None if given.validation is None else in_order(given.validation, classes, what)
    return replace(given, content=content, labels=labels, classes=tuple(classes), validation=held_out)


def bad_in(file: Path, given: Given, root: Path | None) -> tuple[Tensor, str]:
    """Return the indices that a list names, int64 ``[n]``, sorted, and its SHA-256.

    An entry is a file's name, relative to the data or as it is opened from here, also as Windows writes it, or an
    index.

    Raises:
        UsageError: lists what matches nothing, is out of range, or there twice.
    """
    entries = read_list(file, "Give it with --bad FILE.")
    known = {name: index for index, name in enumerate(given.names or ())}
    # Some systems write what looks the same otherwise: ä as one character, or as a and two dots.
    composed = {unicodedata.normalize("NFC", name): index for name, index in known.items()}
    heads = () if root is None else (root.as_posix().rstrip("/") + "/", root.absolute().as_posix() + "/")
    found: Counter[int] = Counter()
    unknown = []
    for entry in entries:
        plain, turned = Path(entry).as_posix(), Path(entry.replace("\\", "/")).as_posix()
        spellings = [entry, plain, turned, *(each.removeprefix(head) for each in (plain, turned) for head in heads)]
        index = next((known[each] for each in spellings if each in known), None)
        if index is None and len(composed) == len(known):
            alike = (unicodedata.normalize("NFC", each) for each in spellings)
            index = next((composed[each] for each in alike if each in composed), None)
        if index is None and entry.isascii() and entry.isdecimal() and len(entry) < 20 and int(entry) < len(given):
            index = int(entry)
        if index is None:
            unknown.append(entry)
        else:
            found[index] += 1
    if unknown:
        first = f", such as '{given.names[0]}'" if given.names else ""
        raise UsageError(
            f"--bad: {len(unknown)} of {len(entries)} entries match no sample: {_few(unknown)}. Expected "
            f"{'names relative to the data' + first + ', or ' if given.names else ''}indices from 0 to "
            f"{len(given) - 1}. Nothing was computed."
        )
    if twice := [index for index, count in found.items() if count > 1]:
        named = [given.names[index] if given.names else str(index) for index in twice]
        raise UsageError(f"--bad: expected each sample once, got {_few(named)} twice.")
    if len(found) == len(given):
        raise UsageError(
            f"--bad: all {len(given)} samples are said to be bad, and nothing is left to know. Train anew."
        )
    return torch.tensor(sorted(found), dtype=torch.int64), hashlib.sha256(file.read_bytes()).hexdigest()


def _few(texts: Sequence[str]) -> str:
    return ", ".join(f"'{text[:80]}'" for text in texts[:_NAMED]) + (", …" if len(texts) > _NAMED else "")


def readable(given: Given, tell: Callable[[int, int], None]) -> tuple[Given, Tensor]:
    """Return the samples whose files can be read, and where they stood among all, int64 ``[n]``."""
    content = given.content
    if not isinstance(content, ImageFiles):
        return given, torch.arange(len(given))
    kept = []
    for index in range(len(content)):
        try:
            content[index]
            kept.append(index)
        except UsageError:
            pass
        tell(index + 1, len(content))
    which = torch.tensor(kept, dtype=torch.int64)
    part = ImageFiles([content.files[i] for i in kept], content.size, content.grey)
    names = None if given.names is None else tuple(given.names[i] for i in kept)
    return replace(given, content=part, labels=given.labels[which], names=names), which


def overlap(train: Given, held_out: Given) -> list[int]:
    """Return which validation samples are among the training samples, byte for byte."""
    a, b = train.content, held_out.content
    if isinstance(a, ImageFiles) and isinstance(b, ImageFiles):
        sizes = [{file: file.stat().st_size for file in each.files} for each in (a, b)]
        both = set(sizes[0].values()) & set(sizes[1].values())
        there = {_digest(file.read_bytes()) for file in a.files if sizes[0][file] in both}
        return [i for i, file in enumerate(b.files) if sizes[1][file] in both and _digest(file.read_bytes()) in there]
    there = set(digests_of(a))
    return [i for i, digest in enumerate(digests_of(b)) if digest in there]


def digests_of(content: Any) -> Iterator[bytes]:
    """Yield the SHA-256 of each sample's numbers, in C order."""
    for index in range(len(content)):
        x = content.x[index] if isinstance(content, Samples) else content[index]
        yield _digest(np.ascontiguousarray(x).tobytes())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
