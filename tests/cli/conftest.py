"""What the tests of the commands share."""

from __future__ import annotations

import pytest


@pytest.fixture
def error_of():
    """Return the one line that a refused command prints; nothing else may be there."""

    def read(ran):
        assert ran.code == 2, ran.out + ran.err
        assert ran.out == ""
        assert ran.err.startswith("Error: ")
        assert ran.err.count("\n") == 1, ran.err
        return ran.err.removeprefix("Error: ").rstrip("\n")

    return read


METHOD = '''
import {imports}
import cutk


class Mine(cutk.Unlearner):
    """Returns the original."""

    name = "mine"

    class Options(cutk.Options):
        steps: int = cutk.option(1, ge=1, help="steps")

    def unlearn(self, task, state=None):
        {line}
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Mine]
'''


@pytest.fixture
def write(tmp_path):
    """Write a plugin file with a method that does one thing before it returns the original."""

    def put(line="pass", *, imports="os", name="mine.py"):
        path = tmp_path / name
        path.write_text(METHOD.format(line=line, imports=imports))
        return path

    return put
