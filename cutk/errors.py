"""What can go wrong, by whose doing, and how to say it in one line."""

from __future__ import annotations

import difflib
import functools
import linecache
import os
import traceback
from collections.abc import Iterable, Sequence
from types import FrameType, TracebackType

_CORE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_TYPED_IN = ("<ipython-input", "<stdin", "<doctest")  # has no file, and is as much its author's


class CutkError(Exception):
    """Anything cutk raises on purpose. The message is one line: what was expected, what came, what to do.

    ``to_paste`` are lines of code that do it. The command line prints them below the message, from the left edge, so
    that they can be copied; elsewhere they end the message, and are still code.
    """

    def __init__(self, message: str = "", to_paste: Sequence[str] = ()) -> None:
        super().__init__(" ".join(filter(None, (message, "; ".join(to_paste)))))
        self.message, self.to_paste = message, tuple(to_paste)


class UsageError(CutkError):
    """The request cannot be carried out as given; the command line exits with 2."""


class CellError(CutkError):
    """One computation gave no usable result; the sweep goes on without it."""


def conjoined(texts: Sequence[str]) -> str:
    """Return texts as a sentence lists them; nothing of none.

    >>> conjoined(["a", "b", "c"]), conjoined(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def printable(text: str) -> str:
    r"""Return ``text`` with control characters, marks of direction and lone surrogates as Python writes them.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, longest: int) -> str:
    """Return ``text`` with at most ``longest`` characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def one_line(error: BaseException) -> str:
    """Describe ``error`` in one printable line: cutk's own errors by their message, others with their type."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its message cannot be shown"
    if not isinstance(error, CutkError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shortened(printable(text), 2000)


@functools.cache
def _providers() -> frozenset[str]:
    """Return the packages of installed plugins, which lie among the libraries."""
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
    """Return the author's own last line on the way to ``error`` or to what caused it as ``file:line: text``.

    An author is who wrote a plugin, a built-in one or another, or calls cutk. Empty if there is no such line.
    """
    cause: BaseException | None = error
    for _ in range(100):  # a chain of causes may have no end
        if cause is None:
            break
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
    text = shortened(" ".join(source.split()), 160)
    return printable(f"{os.path.basename(path)}:{line}" + (f": {text}" if text else ""))


def reason(error: BaseException) -> str:
    """Return ``one_line``, and ``where`` in brackets unless it is an author who raised one of cutk's errors."""
    text, place = one_line(error), where(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_said = isinstance(error, CutkError) and frames and is_authors_frame(frames[-1])
    return text if is_said or not place or place in text else f"{text} ({place})"


class Caught:
    """A block of somebody else's code whose failure becomes a value: the error, and it in one line and at length.

    Everything is caught but what the user did (Ctrl-C) and what ends a generator: ``SystemExit`` and other classes
    beside ``Exception`` too, since no plugin may end the sweep.

    >>> with Caught() as caught:
    ...     raise SystemExit(3)
    >>> caught.error
    SystemExit(3)
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


def traceback_of(error: BaseException) -> str:
    """Return all of the way to where ``error`` was raised, in lines that can be printed and stored."""
    return printable("".join(traceback.format_exception(error)))


def forget_locals(error: BaseException) -> None:
    """Let go of what the frames hold in which ``error`` and what led to it were raised: models, batches, gradients."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            left += [each for each in (one.__cause__, one.__context__) if each is not None]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, whatever its case, or an empty string."""
    spelled = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
