"""The terminal that results are printed on."""

from __future__ import annotations

from rich.console import Console

__all__ = ["make_console"]

# Where output isn't a terminal nothing has to fit a screen.
PIPE_WIDTH = 140


def make_console() -> Console:
    """Return a console on stdout, wide where it is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console
