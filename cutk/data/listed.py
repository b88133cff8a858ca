"""Lists and tables of samples that people keep in files: lines of text, columns, or a JSON array."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cutk.errors import UsageError

__all__ = ["read_list", "read_table"]

_HEADERS = {
    *("file", "file_name", "filename", "filenames", "filepath", "files", "id", "ids", "image", "images", "index"),
    *("indices", "name", "names", "path", "paths", "sample", "samples"),
}
_MOST_BYTES, _MOST_BYTES_OF_TABLE = 2**28, 2**30
_SEPARATORS = ",;\t"
# A blank line, or a remark. What begins with # and goes on at once may be a file's name.
_PASSED_OVER = re.compile(r"\s*$|#+(\s|$)")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_list(file: Path, advice: str) -> list[str]:
    """Return what a list names: lines of a .txt file, the first column of a .csv file, or a .json array.

    Blank lines, remarks (``# …``, with a space: a name may begin with #) and a heading are passed over. What separates
    columns is the first of comma, semicolon and tab that divides all lines into as many, at least two; a comma if none
    does. Text is UTF-8, or UTF-16 with its mark. Bytes that are neither stand for themselves, as in the names of files
    that the system gives.

    Raises:
        UsageError: if the file isn't there, is no such list, or names nothing; it ends in ``advice`` on how to give it.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    if not file.is_file() or file.suffix not in (".txt", ".csv", ".json"):
        problem = "ends otherwise" if file.is_file() else "is not there, or no regular file"
        raise UsageError(f"'{file}' {problem}: expected a .txt, .csv or .json list of samples. {advice}")
    try:
        entries = _parse(_text_of(file, _MOST_BYTES), file.suffix)
    except OSError as error:
        raise UsageError(f"'{file}' can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"'{file}': expected a list of ids or names, got something else ({error}).") from error
    if not entries:
        raise UsageError(f"'{file}' names no sample: expected an id or a name a line.")
    return entries


def read_table(file: str | Path, what: str = "a table") -> list[list[str]]:
    """Return the rows of a table in a text file, the heading first, without those that are empty.

    What separates columns is the first of comma, semicolon and tab that divides all rows into as many, at least two;
    where none does, what divides the heading into most. Text is read as by ``read_list``.

    Raises:
        UsageError: if the file isn't there, or is no such table; it says that ``what`` was expected.
    """
    # Pipes and devices are no regular files: they could go on for ever.
    file = Path(file)
    if not file.is_file():
        raise UsageError(f"'{file}' is not there, or no file: expected {what}.")
    try:
        return _rows(io.StringIO(_text_of(file, _MOST_BYTES_OF_TABLE), newline=""), headed=True)
    except OSError as error:
        raise UsageError(f"'{file}' can't be read: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"'{file}': expected {what}, got something else ({' '.join(str(error).split())}).") from error


def _text_of(file: Path, most: int) -> str:
    with file.open("rb") as opened:
        # Before it is read: asking for so much at most takes as much memory, however small the file.
        if os.fstat(opened.fileno()).st_size > most:
            raise ValueError(f"expected at most {most} bytes")
        content = opened.read()
    if content.startswith(_UTF16):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("expected text, got zeros among it")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _rows(lines: Iterable[str], headed: bool) -> list[list[str]]:
    """Return the rows of a table that aren't empty, divided by what divides all of them into as many columns.

    Where nothing does, by what divides the heading into most, by commas where there is none.
    """
    lines, found = list(lines), []
    for separator in _SEPARATORS:
        rows = [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
        if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
            return rows
        found.append(rows)
    return max(found, key=lambda rows: len(rows[0]) if rows else 0) if headed else found[0]


def _parse(text: str, suffix: str) -> list[str]:
    if suffix == ".json":
        content: Any = json.loads(text)
        if not isinstance(content, list) or not all(type(entry) in (int, str) for entry in content):
            raise ValueError("expected a JSON array of whole numbers and texts")
        return [str(entry) for entry in content]
    lines = text.splitlines()
    if suffix == ".csv":
        kept = [line for line in lines if not _PASSED_OVER.match(line)]
        rows = _rows(kept, headed=False)
        if rows and len(rows[0]) > 1 and not rows[0][0].strip():
            raise ValueError(
                "expected names or indices in the first column, got one without a heading, as an index has: write the "
                "table without (index=False)"
            )
        lines = [row[0] for row in rows]
        if lines and lines[0].strip().lower() in _HEADERS:
            del lines[0]
    return [line.strip() for line in lines if not _PASSED_OVER.match(line)]
