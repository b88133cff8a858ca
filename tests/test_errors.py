from __future__ import annotations

import subprocess
import sys
import textwrap
import weakref

import pytest
import torch

import cutk
from cutk.errors import (
    Caught,
    CellError,
    CutkError,
    UsageError,
    forget_locals,
    one_line,
    printable,
    reason,
    suggestion,
    where,
)

NETWORK = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 2))

        def forward(self, x):
            return self.layers.fc9(x)  # line 9
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a module and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text).lstrip())
        monkeypatch.delitem(sys.modules, name, raising=False)
        try:
            return __import__(name)
        finally:
            sys.modules.pop(name, None)

    return written


def failing(work, *args):
    with Caught() as caught:
        work(*args)
    return caught


# One line.


class _Spoken(Exception):
    def __str__(self):
        raise ValueError("no words")


ODD = {
    "a surrogate": (ValueError("a\udc80b"), r"ValueError: a\udc80b"),
    "an escape sequence": (UsageError("\x1b[31mred\x07"), r"\x1b[31mred\x07"),
    "another line": (UsageError("one\ntwo\r\n\tthree\x85four\u2028five"), "one two three four five"),
    "another direction": (ValueError("a\u202eb"), r"ValueError: a\u202eb"),
    "no words": (_Spoken(), "_Spoken: its message cannot be shown"),
    "nothing": (ValueError(), "ValueError"),
    "a type of an odd name": (type("A\x1b[2J", (Exception,), {})("x"), r"A\x1b[2J: x"),
    "an end": (SystemExit(3), "SystemExit: 3"),
}


@pytest.mark.parametrize("name", ODD)
def test_any_error_is_one_printable_line(name):
    error, expected = ODD[name]
    assert one_line(error) == expected
    assert one_line(error).isprintable()
    one_line(error).encode("ascii")


def test_a_line_has_an_end():
    assert len(one_line(ValueError("x" * 10**6))) == 2000
    assert one_line(ValueError("x" * 10**6)).endswith("x…")


def test_texts_keep_their_lines_and_letters():
    assert printable("é α\nβ") == "é α\nβ"
    assert printable("\ud800\x9b1m\n") == "\\ud800\\x9b1m\n"


# Where.


def test_the_authors_last_line_is_named_and_not_the_librarys(write):
    caught = failing(write(NETWORK).Net(), torch.zeros(1, 3))
    place = "mine.py:9: return self.layers.fc9(x) # line 9"
    assert where(caught.error) == place
    assert caught.reason == f"AttributeError: 'Sequential' object has no attribute 'fc9' ({place})"
    assert "mine.py" in caught.traceback


def test_a_line_under_the_cores_is_found(write):
    module = write("""
        from cutk.errors import Caught, CellError

        class Options(dict):
            pass

        def work(call):
            return call(Options())
    """)

    def core(options):  # stands for a line of cutk's, which is nobody's
        raise CellError(f"Expected more, got {options}.")

    code = compile("def core(options):\n    raise CellError('Expected more.')", cutk.__file__, "exec")
    space = {"CellError": CellError}
    exec(code, space)  # noqa: S102
    assert failing(module.work, space["core"]).reason == "Expected more. (mine.py:7: return call(Options()))"
    assert failing(module.work, core).reason == "Expected more, got {}."


def test_what_an_author_says_on_purpose_needs_no_more(write):
    module = write("""
        from cutk import UsageError

        def work():
            raise UsageError("There is no file. Get one.")
    """)
    assert failing(module.work).reason == "There is no file. Get one."


def test_the_cause_has_the_line_that_the_error_lacks(write):
    module = write("def work(): return 1 / 0")
    inner = failing(module.work).error
    outer = CellError("prepare() failed")
    outer.__cause__ = inner
    assert reason(outer) == "prepare() failed (mine.py:1: def work(): return 1 / 0)"
    assert reason(CellError(f"prepare() failed: {reason(inner)}")) == (
        "prepare() failed: ZeroDivisionError: division by zero (mine.py:1: def work(): return 1 / 0)"
    )
    inner.__cause__ = outer  # a circle
    inner.__traceback__ = None
    assert where(outer) == ""


def test_a_file_that_does_not_parse_is_named(write):
    caught = failing(write, "x = 1\ndef work(:\n    pass\n")
    assert where(caught.error) == "mine.py:2: def work(:"


def test_errors_of_nobodys_have_no_place():
    assert where(ValueError("never raised")) == ""
    assert reason(ValueError("x")) == "ValueError: x"


def test_a_built_in_plugin_is_somebodys():
    from cutk_builtin.unlearners import cf

    (unlearner,) = cf.cutk_unlearners()
    assert where(failing(unlearner().unlearn, None).error).startswith("cf.py:")


def test_an_installed_plugin_is_somebodys_and_what_it_uses_is_not(tmp_path):
    packages = tmp_path / "lib" / "site-packages"
    (packages / "cutk_mine").mkdir(parents=True)
    (packages / "cutk_mine" / "__init__.py").write_text("import helper\ndef work(): helper.help()\n")
    (packages / "helper.py").write_text("def help(): raise ValueError('no help')\n")
    about = packages / "cutk_mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cutk-mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cutk]\nmine = cutk_mine\n")
    code = f"import sys; sys.path.append({str(packages)!r}); import cutk_mine; from cutk.errors import Caught\n" + (
        "with Caught() as caught: cutk_mine.work()\nprint(caught.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ValueError: no help (__init__.py:2: def work(): helper.help())\n"


def test_a_hostile_line_is_shown_harmless_and_short(write):
    module = write("def work(): raise ValueError # \x1b[31m" + "x" * 500)
    place = where(failing(module.work).error)
    assert place.isprintable()
    assert len(place) < 200


# Everything that can be raised.


class Odd(BaseException):
    pass


def endless():
    return endless()


def raising(error):
    raise error


@pytest.mark.parametrize(
    "error", [Odd("x"), SystemExit(1), MemoryError(), RecursionError(), CutkError("x"), ValueError()]
)
def test_whatever_a_plugin_raises_is_a_failure(error):
    caught = failing(raising, error)
    assert caught.error is error
    assert caught.reason.startswith(one_line(error))
    assert "raise error" in caught.traceback


def test_endless_recursion_is_a_failure():
    assert failing(endless).reason.startswith("RecursionError: maximum recursion depth exceeded")


def test_what_an_error_holds_can_be_let_go():
    class Large:
        pass

    held = []

    def deep():
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("deep")

    def raised():
        mine = Large()
        held.append(weakref.ref(mine))
        try:
            deep()
        except ValueError as error:
            raise CutkError("above") from error

    caught = failing(raised)
    assert all(reference() is not None for reference in held)
    forget_locals(caught.error)
    assert [reference() for reference in held] == [None, None]
    assert str(caught.error.__cause__) == "deep"


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_what_the_user_does_passes(error):
    with pytest.raises(error), Caught():
        raise error


def test_nothing_raised_is_nothing_caught():
    assert (failing(int).error, failing(int).reason, failing(int).traceback) == (None, "", "")


def test_suggestions():
    assert suggestion("sdd", ["ssd", "rewod"]) == " Did you mean 'ssd'?"
    assert suggestion("quite different", ["ssd"]) == ""
