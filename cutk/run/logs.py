"""What cutk's modules log, brought from workers elsewhere to the study's process."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler

from cutk.run.observer import Send

__all__ = ["ABOVE", "LOG", "level", "relog", "sent"]

# The logger above all of cutk's.
ABOVE = "cutk"
# What a worker's ``send`` calls a record of the log.
LOG = "log"


def level() -> int:
    """Return the lowest level that is logged, for workers elsewhere."""
    return logging.getLogger(ABOVE).getEffectiveLevel()


class _Sender(QueueHandler):
    """Sends records, in a form that can be pickled, with the name of the machine."""

    def __init__(self, send: Send) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # there is no queue
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        record.processName = f"{platform.node() or 'elsewhere'}/{record.processName}"
        self._send(LOG, (record,))


@contextmanager
def sent(least: int, send: Send) -> Iterator[None]:
    """Have records of this level and above go to the study's process while the block runs."""
    logger, handler = logging.getLogger(ABOVE), _Sender(send)
    before = logger.level
    logger.setLevel(least)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def relog(record: logging.LogRecord) -> None:
    """Log what a worker sent, as if it had happened here."""
    logging.getLogger(record.name).handle(record)
