"""``--pdb``: look at the first error where it happened."""

from __future__ import annotations

import pdb
import sys
from types import FrameType, TracebackType

from cutk.cli.messages import say
from cutk.errors import is_authors_frame, one_line

__all__ = ["PostMortem"]


def _root_of(error: BaseException) -> BaseException:
    """Return the error that an error of cutk's was made from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class _Debugger(pdb.Pdb):
    """Begins at the last frame that the author wrote, from where ``down`` leads to what it called."""

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        stack, last = super().get_stack(f, t)
        return stack, next((i for i in range(last, -1, -1) if is_authors_frame(stack[i][0])), last)

    @property
    def quitted(self) -> bool:
        """Whether the user has seen enough."""
        return bool(getattr(self, "_user_requested_quit", False))


class PostMortem:
    """Opens the debugger on the first error that it is told, and on no other."""

    def __init__(self) -> None:
        self._seen = False

    def __call__(self, error: BaseException) -> None:
        """Let the user look at ``error``.

        Raises:
            KeyboardInterrupt: if the user quits; with ``continue`` the other cells are computed.
        """
        root = _root_of(error)
        if self._seen or root.__traceback__ is None:
            return
        self._seen = True
        say(f"Failed: {one_line(root)}")
        debugger = _Debugger(stdout=sys.stderr)
        debugger.reset()
        debugger.interaction(None, root.__traceback__)
        if debugger.quitted:
            raise KeyboardInterrupt
