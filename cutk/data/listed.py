"""Lists of samples that people keep in files: lines of text, a column of a table, or a JSON array."""

from __future__ import annotations

import codecs
import csv
import json
import os
from pathlib import Path
from typing import Any

from cutk.errors import UsageError

__all__ = ["read_list"]

_HEADERS = {
    *("file", "file_name", "filename", "filenames", "filepath", "files", "id", "ids", "image", "images", "index"),
    *("indices", "name", "names", "path", "paths", "sample", "samples"),
}
_MOST_BYTES = 2**28
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_list(file: Path, advice: str) -> list[str]:
    """Return what a list names: lines of a .txt file, the first column of a .csv file, or a .json array.

    Blank lines, remarks (#) and a heading are passed over. What separates columns is the first of comma,
    semicolon and tab that divides all lines into as many, at least two; a comma if none does. Text is UTF-8, or UTF-16
    with its mark. Bytes that are neither stand for themselves, as in the names of files that the system gives.

    Raises:
        UsageError: if the file isn't there, is no such list, or names nothing; it ends in ``advice`` on how to give it.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file() or file.suffix not in (".txt", ".csv", ".json"):
        problem = "ends otherwise" if file.is_file() else "is not there, or no regular file"
        raise UsageError(f"'{file}' {problem}: expected a .txt, .csv or .json list of samples. {advice}")
    try:
        with file.open("rb") as opened:
            # Before it is read: asking for so much at most takes as much memory, however small the file.
            if os.fstat(opened.fileno()).st_size > _MOST_BYTES:
                raise ValueError(f"expected at most {_MOST_BYTES} bytes")
            content = opened.read()
        entries = _parse(_decoded(content), file.suffix)
    except OSError as error:
        raise UsageError(f"'{file}' can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"'{file}': expected a list of ids or names, got something else ({error}).") from error
    if not entries:
        raise UsageError(f"'{file}' names no sample: expected an id or a name a line.")
    return entries


def _decoded(content: bytes) -> str:
    if content.startswith(_UTF16):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("expected text, got zeros among it")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _rows(lines: list[str]) -> list[list[str]]:
    """Return the rows of a table: its separator is the first that divides all lines into as many columns."""
    for separator in ",;\t":
        rows = list(csv.reader(lines, delimiter=separator))
        if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
            return rows
    return list(csv.reader(lines))


def _parse(text: str, suffix: str) -> list[str]:
    if suffix == ".json":
        content: Any = json.loads(text)
        if not isinstance(content, list) or not all(type(entry) in (int, str) for entry in content):
            raise ValueError("expected a JSON array of whole numbers and texts")
        return [str(entry) for entry in content]
    lines = text.splitlines()
    if suffix == ".csv":
        lines = [row[0] for row in _rows([line for line in lines if line.strip() and not line.startswith("#")])]
        if lines and lines[0].strip().lower() in _HEADERS:
            del lines[0]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
