"""What two processes say to each other when one of them isn't trusted: JSON and tensors, neither of which runs code."""

from __future__ import annotations

import contextlib
import json
import queue
import struct
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cutk.run.files import apart

__all__ = ["Line", "Message"]

_SIZES = struct.Struct(">QQ")


class Message(NamedTuple):
    """Its name says what it is."""

    name: str
    plain: Mapping[str, Any]
    tensors: dict[str, Tensor]


class Line:
    """One end of the two pipes between two processes.

    Args:
        reader: what the other end writes to.
        writer: what the other end reads.
        longest: bytes that a message may have.
        ended: called in a thread of its own when the other end is gone.
    """

    def __init__(
        self, reader: IO[bytes], writer: IO[bytes], longest: int = 2**62, ended: Callable[[], None] = lambda: None
    ) -> None:
        self._reader, self._writer, self._longest, self._ended = reader, writer, longest, ended
        self._turn = threading.Lock()
        self._heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ear = threading.Thread(target=self._read, daemon=True)
        self._ear.start()

    def send(
        self, name: str, plain: Mapping[str, Any] | None = None, tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Say something; an ``OSError`` says that nobody listens."""
        text = json.dumps([name, plain or {}]).encode()
        data = safetensors.torch.save(apart(tensors)) if tensors else b""
        with self._turn:
            self._writer.write(_SIZES.pack(len(text), len(data)))
            self._writer.write(text)
            self._writer.write(data)
            self._writer.flush()

    def receive(self, alive: Callable[[], bool] = lambda: True) -> Message:
        """Return what is said next.

        Raises:
            EOFError: if the other end is gone. ``alive`` is asked now and then, since processes that the other one
                started may hold its end open.
            ValueError: if it isn't a message.
        """
        while True:
            lived = alive()
            try:
                heard = self._heard.get(timeout=1)
            except queue.Empty:
                if not lived:
                    raise EOFError from None
                continue
            if heard is None:
                raise EOFError
            return _parsed(heard)

    def close(self) -> None:
        """Say nothing more, and hear the rest, unless somebody holds the other end open."""
        with contextlib.suppress(OSError):  # what nobody has read
            self._writer.close()
        self._ear.join(1)

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._reader:
            while len(head := self._reader.read(_SIZES.size)) == _SIZES.size:
                size = sum(_SIZES.unpack(head))
                if size > self._longest:
                    self._heard.put(b"")  # which is no message
                    break
                if len(body := self._reader.read(size)) < size:
                    break
                self._heard.put(head + body)
        self._heard.put(None)
        self._ended()


def _parsed(heard: bytes) -> Message:
    """Return a message; a ``ValueError`` says that it is none, whatever was sent."""
    try:
        start = _SIZES.size
        middle = start + _SIZES.unpack_from(heard)[0]
        name, plain = json.loads(heard[start:middle])
        tensors = safetensors.torch.load(heard[middle:]) if len(heard) > middle else {}
    except (ValueError, TypeError, RecursionError, struct.error, SafetensorError, KeyError) as error:
        raise ValueError(f"no message: {error}") from None
    if not isinstance(name, str) or not isinstance(plain, dict):
        raise ValueError("no message: expected a name and what belongs to it")
    return Message(name, plain, tensors)
