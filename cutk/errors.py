"""What can go wrong, by whose doing, and how to say it in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CutkError(Exception):
    """Anything cutk raises on purpose. The message is one line: what was expected, what came, what to do."""


class UsageError(CutkError):
    """The request cannot be carried out as given; the command line exits with 2."""


class CellError(CutkError):
    """One computation gave no usable result; the sweep goes on without it."""


def printable(text: str) -> str:
    r"""Return ``text`` with everything but its line ends shown that a terminal, a file or a parser might trip over.

    Control characters, escape sequences, marks that turn the direction of writing, and lone surrogates are written
    as Python writes them.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """Describe ``error`` in one line: cutk's own errors by their message, others with their type.

    >>> one_line(UsageError("no such file"))
    'no such file'
    >>> one_line(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    text = " ".join(str(error).split())
    if isinstance(error, CutkError):
        return printable(text)
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, whatever its case, or an empty string.

    >>> suggestion("SDD", ["ssd", "rewod"])
    " Did you mean 'ssd'?"
    """
    spelled = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
