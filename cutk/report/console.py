"""The terminal that results are printed on."""

from __future__ import annotations

import os

from rich.console import Console

# Where output is no terminal nothing has to fit a screen.
PIPE_WIDTH = 140
_LEAST = 40


def make_console() -> Console:
    """Return a console on stdout: as wide as COLUMNS says, or as the terminal; wide where there is neither."""
    console = Console()
    columns = os.environ.get("COLUMNS", "")
    if not columns.isdecimal() and not console.is_terminal:
        console.width = PIPE_WIDTH
    console.width = max(console.width, _LEAST)
    return console
