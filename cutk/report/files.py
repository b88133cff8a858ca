"""Files that are there wholly or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cutk.errors import UsageError


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there in one step; folders are made as needed.

    Raises:
        UsageError: if it can't be written.
    """
    if not path.name:
        raise UsageError(f"'{path}' cannot be written (it is a folder). Choose another place.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written ({error.strerror}). Choose another place.") from None
