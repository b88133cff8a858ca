"""How the command's process ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading

__all__ = ["leave"]


def _is_watched() -> bool:
    """Return whether somebody looks at this process from inside, and has to do so to its end."""
    monitoring = getattr(sys, "monitoring", None)  # of Python 3.12
    tools = monitoring is not None and any(monitoring.get_tool(number) for number in range(6))
    return bool(sys.gettrace() or sys.getprofile() or sys.flags.interactive or tools)


def leave(code: int) -> None:
    """End the process with this code at once, where taking apart what is in its memory would take a while.

    That is nearly half as long as importing torch takes. What is registered to be done at the end is done, and what is
    printed is printed. Returns where the usual way is as quick, or is needed.
    """
    others = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    if "torch" not in sys.modules or others or _is_watched():
        return
    atexit._run_exitfuncs()  # as multiprocessing does before it leaves a process in this way
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return  # the usual way says that it can't, or why it need not
    os._exit(code)
