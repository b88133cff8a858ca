"""``--log-level``: what cutk's modules log, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cutk.cli.messages import stderr_console
from cutk.errors import printable

if TYPE_CHECKING:
    import logging

__all__ = ["log_level_option", "shown"]

F = TypeVar("F", bound=Callable[..., Any])
LEVELS = ("debug", "info", "warning", "error")
_PLAIN = "%(asctime)s %(levelname)s [%(processName)s %(process)d] %(name)s: %(message)s"
_RICH = "[%(processName)s %(process)d] %(name)s: %(message)s"


def _handler() -> logging.Handler:
    """Return what writes to stderr, above live progress if there is some."""
    import logging

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    console = stderr_console()
    if console.is_terminal:
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=console, show_path=False, log_time_format="%X")
        handler.setFormatter(Formatter(_RICH))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter(_PLAIN))
    return handler


@contextmanager
def shown(level: str) -> Iterator[None]:
    """Show what is logged at a level and above while the block runs."""
    import logging

    logger = logging.getLogger("cutk")
    before = logger.level, list(logger.handlers), logger.propagate
    logger.setLevel(level.upper())
    logger.handlers[:], logger.propagate = [_handler()], False
    try:
        yield
    finally:
        (level_before, logger.handlers[:], logger.propagate) = before
        logger.setLevel(level_before)


def _show(ctx: click.Context, _parameter: click.Parameter, level: str | None) -> None:
    if level is not None and not ctx.resilient_parsing:
        ctx.with_resource(shown(level))


def log_level_option(function: F) -> F:
    """Give a command the option ``--log-level``."""
    return click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        expose_value=False,
        callback=_show,
        help="Log on stderr what happens from this level on; warning if not given.",
    )(function)
