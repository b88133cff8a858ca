"""Lists of samples that people keep in files: lines of text, a column of a table, or a JSON array."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from cutk.errors import UsageError

__all__ = ["read_list"]

_HEADERS = {"id", "ids", "index", "indices", "name", "names", "file", "filename", "path", "sample"}
_MOST_BYTES = 2**28


def read_list(file: Path, advice: str) -> list[str]:
    """Return what a list names: lines of a .txt file, the first column of a .csv file, or a .json array.

    Blank lines, remarks (#) and a heading are passed over.

    Raises:
        UsageError: if the file isn't there, is no such list, or names nothing; it ends in ``advice`` on how to give it.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file() or file.suffix not in (".txt", ".csv", ".json"):
        problem = "ends otherwise" if file.is_file() else "is not there, or no regular file"
        raise UsageError(f"'{file}' {problem}: expected a .txt, .csv or .json list of samples. {advice}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            # Before it is read: asking for so much at most takes as much memory, however small the file.
            if os.fstat(lines.fileno()).st_size > _MOST_BYTES:
                raise ValueError(f"expected at most {_MOST_BYTES} bytes")
            text = lines.read()
        entries = _parse(text, file.suffix)
    except OSError as error:
        raise UsageError(f"'{file}' can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"'{file}': expected a list of ids or names, got something else ({error}).") from error
    if not entries:
        raise UsageError(f"'{file}' names no sample: expected an id or a name a line.")
    return entries


def _parse(text: str, suffix: str) -> list[str]:
    if suffix == ".json":
        content: Any = json.loads(text)
        if not isinstance(content, list) or not all(type(entry) in (int, str) for entry in content):
            raise ValueError("expected a JSON array of whole numbers and texts")
        return [str(entry) for entry in content]
    lines = text.splitlines()
    if suffix == ".csv":
        lines = [row[0] for row in csv.reader(lines) if row]
        if lines and lines[0].strip().lower() in _HEADERS:
            del lines[0]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
