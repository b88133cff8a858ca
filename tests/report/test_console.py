from __future__ import annotations

import pytest

from cutk.report.console import PIPE_WIDTH, make_console


@pytest.mark.parametrize(
    ("columns", "width"), [("60", 60), ("200", 200), ("3", 40), ("", PIPE_WIDTH), ("wide", PIPE_WIDTH)]
)
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width


def test_a_pipe_without_columns_is_wide(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width == PIPE_WIDTH
