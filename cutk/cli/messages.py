"""What the command line says besides results: on stderr, a line each."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cutk.errors import CutkError, one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["python_warnings", "say", "say_error", "stderr_console", "visible", "warn"]

# How cutk's own deprecations read: others' are their authors' business.
_DEPRECATED = r".*\bsince cutk \d"


def visible(text: str) -> str:
    r"""Return ``text`` in one line that a terminal can't mistake for commands.

    >>> visible("red \x1b[31m and\nnext")
    'red \\x1b[31m and next'
    """
    return printable(" ".join(text.split()))


def say(text: str) -> None:
    """Print a line on stderr, above live progress if there is some: click's echo would write past that."""
    # In one piece, even where Python doesn't buffer: workers print there, too.
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()


def say_error(error: CutkError) -> None:
    """Print an error on stderr, and below it the lines of code that it gives, which can be pasted as they are."""
    say(f"Error: {one_line(CutkError(error.message))}")
    for line in error.to_paste:
        sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"Warning: {text}")


@functools.cache
def stderr_console() -> Console:
    """Return the one console on stderr: what writes to another one would write into live progress."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def python_warnings() -> Iterator[None]:
    """Show what Python code warns of in a line, once, and cutk's deprecations of what a plugin uses as well.

    Whoever told Python itself what to do with warnings (``-W``, ``PYTHONWARNINGS``) is obeyed.
    """
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if (text := str(message)) not in told:
            told.add(text)
            warn(f"{text} ({Path(filename).name}:{lineno})")

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.filterwarnings("default", _DEPRECATED, DeprecationWarning)
        warnings.showwarning = show
        yield
