"""What comes over a line is what was sent, or is refused."""

from __future__ import annotations

import io
import os
import threading

import pytest
import torch

from cutk.run.messages import _SIZES, Line


@pytest.fixture
def line_of():
    """Return a line that hears ``sent``, raw bytes."""

    def make(sent, **kwargs):
        back, forth = os.pipe()
        with os.fdopen(forth, "wb") as writer:
            writer.write(sent)
        return Line(os.fdopen(back, "rb"), io.BytesIO(), **kwargs)

    return make


def framed(text, data=b""):
    return _SIZES.pack(len(text), len(data)) + text + data


def test_what_is_sent_arrives():
    back, forth = os.pipe()
    line = Line(os.fdopen(back, "rb"), os.fdopen(forth, "wb"))
    whole = torch.arange(6.0)
    line.send("one", {"a": [1, None]}, {"x": whole[::2], "y": whole})
    line.send("two")
    name, plain, tensors = line.receive()
    assert (name, plain) == ("one", {"a": [1, None]})
    assert tensors["x"].tolist() == [0, 2, 4]
    assert line.receive() == ("two", {}, {})
    line.close()
    with pytest.raises(EOFError):
        line.receive()


@pytest.mark.parametrize(
    "sent",
    [
        framed(b"no JSON"),
        framed(b"[" * 30_000),
        framed(b'"a text"'),
        framed(b'["name", []]'),
        framed(b"[1, {}]"),
        framed(b'["name", {}]', b"no tensors"),
        framed(b"\xff\xfe"),
        framed(b""),
    ],
)
def test_what_is_no_message_is_refused(line_of, sent):
    with pytest.raises(ValueError, match="no message"):
        line_of(sent).receive()


def test_a_message_that_is_too_long_is_refused_before_it_is_read(line_of):
    line = line_of(_SIZES.pack(2**60, 2**60), longest=1000)
    with pytest.raises(ValueError, match="no message"):
        line.receive()
    with pytest.raises(EOFError):
        line.receive()


def test_half_a_message_is_none(line_of):
    ended = threading.Event()
    line = line_of(framed(b'["name", {}]')[:-1], ended=ended.set)
    with pytest.raises(EOFError):
        line.receive()
    assert ended.wait(600)


def test_an_end_is_seen_although_somebody_holds_the_line():
    back, forth = os.pipe()
    line = Line(os.fdopen(back, "rb"), io.BytesIO())
    with pytest.raises(EOFError):
        line.receive(alive=lambda: False)
    os.close(forth)
