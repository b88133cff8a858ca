"""SHA-256 of what was handed over, each by a formula that anyone can follow without cutk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from cutk.data.given import Given
from cutk.data.images import ImageFiles, unreadable
from cutk.errors import printable
from cutk.learning.recipe import Progress
from cutk.repair.bundle.evidence import Data, File
from cutk.repair.sources import digests_of
from cutk.run.files import apart

__all__ = ["data_of", "digest_of_indices", "digest_of_lines", "digest_of_tensors", "file_at"]


def file_at(path: Path, shown: str | None = None) -> File:
    """Return a file by its content, under the name that it is ``shown`` by."""
    with path.open("rb") as content:
        sha256 = file_digest(content, "sha256").hexdigest()
    return File(path=printable(path.as_posix() if shown is None else shown), sha256=sha256, bytes=path.stat().st_size)


def digest_of_tensors(state: Mapping[str, Any]) -> File:
    """Return a state dict by its content: that of the file which safetensors writes of it."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    content = safetensors.torch.save(apart(tensors), metadata={"format": "pt"})
    return File(path=None, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), of="tensors")


def digest_of_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of a text in UTF-8 of these lines, each with its end.

    >>> digest_of_lines(["a", "b"])[:16]
    '911169ddaaf146af'
    """
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def digest_of_indices(indices: Tensor) -> str:
    """Return the SHA-256 of indices, int64 ``[n]``: a line each, ascending."""
    return digest_of_lines(map(str, sorted(indices.tolist())))


def data_of(given: Given, shape: tuple[int, ...], tell: Progress, source: str = "") -> Data:
    """Return samples by what they hold, read one after another."""
    in_files = isinstance(given.content, ImageFiles)

    def lines() -> Iterator[str]:
        labels, names = given.labels.tolist(), given.names
        for index, digest in enumerate(_digests(given.content)):
            name = str(index) if names is None else names[index]
            yield f"{digest.hex()} {given.classes[labels[index]]} {name}"
            tell(index + 1, len(given))

    return Data(
        samples=len(given),
        shape=list(shape),
        classes=list(given.classes),
        sha256=digest_of_lines(lines()),
        of="files" if in_files else "values",
        source=printable(source),
    )


def _digests(content: Any) -> Iterator[bytes]:
    if not isinstance(content, ImageFiles):
        yield from digests_of(content)
        return
    for path in content.files:
        try:
            with path.open("rb") as file:
                yield file_digest(file, "sha256").digest()
        except OSError as error:
            raise unreadable(path, error) from None
