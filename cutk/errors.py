"""What can go wrong, by whose doing, and how to say it in one line."""

from __future__ import annotations

import difflib
import functools
import linecache
import os
import traceback
from collections.abc import Iterable
from types import FrameType, TracebackType

_CORE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
# Code that was typed in has no file, and is as much its author's.
_TYPED_IN = ("<ipython-input", "<stdin", "<doctest")
_LONGEST = 2000
_LONGEST_SOURCE = 160


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


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def one_line(error: BaseException) -> str:
    """Describe ``error`` in one printable line: cutk's own errors by their message, others with their type.

    >>> one_line(UsageError("no such file"))
    'no such file'
    >>> one_line(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its message cannot be shown"
    if not isinstance(error, CutkError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _shortened(printable(text), _LONGEST)


@functools.cache
def _providers() -> frozenset[str]:
    """Return the packages that installed plugins consist of: they lie among the libraries, and aren't any."""
    import importlib.metadata  # which takes its time, and is needed where something fails alone

    try:
        points = importlib.metadata.entry_points(group="cutk")
        return frozenset(point.value.partition(":")[0].partition(".")[0].strip() for point in points)
    except Exception:  # a broken distribution, which is reported when plugins are loaded
        return frozenset()


def _is_authors(path: str, module: str = "") -> bool:
    """Say whether a file is a plugin's or a user's: neither cutk's own, nor a library's, nor Python's."""
    if path.startswith("<"):
        return path.startswith(_TYPED_IN)
    path = os.path.abspath(path)
    if path.startswith(_CORE):
        return False
    if module.partition(".")[0] in _providers():
        return True
    return not path.startswith(_LIBRARY) and not {"site-packages", "dist-packages"} & set(path.split(os.sep))


def is_authors_frame(frame: FrameType) -> bool:
    """Say whether a plugin or a user is at work in a frame."""
    return _is_authors(frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")))


def where(error: BaseException) -> str:
    """Return the author's own last line on the way to ``error`` as ``file:line: text``.

    An author is who wrote a plugin, a built-in one or another, or calls cutk. Empty if there is no such line, neither
    on the way to ``error`` nor to what caused it.
    """
    cause: BaseException | None = error
    for _ in range(100):  # a chain of causes may have no end
        if cause is None:
            return ""
        if isinstance(cause, SyntaxError) and cause.filename and _is_authors(cause.filename):
            return _place(cause.filename, cause.lineno or 1, cause.text or "")
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if is_authors_frame(frame):
                path = frame.f_code.co_filename
                linecache.checkcache(path)
                return _place(path, line, linecache.getline(path, line, frame.f_globals))
        cause = cause.__cause__
    return ""


def _place(path: str, line: int, source: str) -> str:
    place = f"{os.path.basename(path)}:{line}"
    source = _shortened(" ".join(source.split()), _LONGEST_SOURCE)
    return printable(f"{place}: {source}" if source else place)


def reason(error: BaseException) -> str:
    """Return ``one_line``, and behind it in brackets ``where``.

    What an author raises as an error of cutk's says all there is to say; nothing is put behind it.
    """
    text, place = one_line(error), where(error)
    if isinstance(error, CutkError):
        frames = list(traceback.walk_tb(error.__traceback__))
        if frames and is_authors_frame(frames[-1][0]):
            return text
    return f"{text} ({place})" if place and place not in text else text


def traceback_of(error: BaseException) -> str:
    """Return all of the way to where ``error`` was raised, in lines that can be printed and stored."""
    return printable("".join(traceback.format_exception(error)))


class Caught:
    """A block of somebody else's code whose failure becomes a value.

    Everything is caught but what the user did (Ctrl-C) and what ends a generator: ``SystemExit`` and other classes
    beside ``Exception`` too, since no plugin may end the sweep.

    >>> with Caught() as caught:
    ...     raise SystemExit(3)
    >>> caught.error
    SystemExit(3)

    Attributes:
        error: what was raised, None if nothing was.
        reason: it in one line, with the author's last line.
        traceback: all of the way to it.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.reason = self.traceback = ""

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt | GeneratorExit):
            return False
        self.error, self.reason = error, reason(error)
        self.traceback = traceback_of(error)
        return True


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, whatever its case, or an empty string.

    >>> suggestion("SDD", ["ssd", "rewod"])
    " Did you mean 'ssd'?"
    """
    spelled = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
