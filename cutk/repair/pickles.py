"""What ``torch.save`` wrote, read without running code; of what can't be read so, why, and what to do about it."""

from __future__ import annotations

import pickle
import pickletools
import shlex
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cutk.data.plain import load_plain
from cutk.errors import UsageError, one_line, shortened

__all__ = ["NESTED", "few", "unpickled"]

# Under which a checkpoint keeps its state dict beside other things.
NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
# Modules whose members a checkpoint has no use for.
_DANGEROUS = {
    *("builtins", "__builtin__", "code", "ctypes", "functools", "importlib", "nt", "operator", "os", "pickle", "posix"),
    *("pty", "runpy", "shutil", "socket", "subprocess", "sys", "urllib", "webbrowser"),
}
# What a state dict is made of.
_PLAIN = ("collections.", "torch._utils.", "torch._tensor.", "torch.storage.", "torch.serialization.", "torch.nn.param")
_HARMLESS = (
    *("set", "frozenset", "dict", "list", "slice", "bytearray", "complex", "object", "int", "float", "str", "bool"),
    *("tuple", "bytes", "range"),
)
# Records of a training that no code is run for.
_RECORDS = ("argparse.Namespace", "_codecs.encode", "numpy.dtype", "numpy.ndarray")


def few(names: Iterable[str], most: int = 4) -> str:
    """Return some of the names as a list in quotes."""
    listed = list(names)
    return ", ".join(f"'{name}'" for name in listed[:most]) + (", …" if len(listed) > most else "")


def unpickled(file: Path) -> Any:
    """Return what ``torch.save`` wrote, if it is nothing but tensors and plain data.

    Raises:
        UsageError: names what code it wants to run, or gives the lines that make a state dict of it.
    """
    if any(name.endswith("constants.pkl") or "/code/" in name for name in _members(file)):
        what = "is TorchScript, which carries code of its own"
        raise _convertible(file, what, "model = torch.jit.load({}, 'cpu')", "model.state_dict()")
    try:
        return load_plain(file)
    except pickle.UnpicklingError as error:
        wanted = _wanted(file)
        code = [name for name in wanted.names if _runs_code(name)]
        if code:
            raise UsageError(
                f"'{file}' wants to run code ({few(code)}), which was not run: expected a state dict. Weights have "
                "no use for that; ask whoever made the file."
            ) from None
        if wanted.names and wanted.within is not None:
            what = f"holds more than weights ({few(wanted.names)}), and reading that runs code"
            load = f"held = torch.load({{}}, 'cpu', weights_only=False)[{wanted.within!r}]"
            saved = "held.state_dict() if isinstance(held, torch.nn.Module) else held"
            raise _convertible(file, what, load, saved) from None
        if wanted.names:
            what = f"is a whole pickled module ({few(wanted.names)}), and reading one runs code"
            load = "model = torch.load({}, 'cpu', weights_only=False)"
            raise _convertible(file, what, load, "model.state_dict()") from None
        raise UsageError(f"'{file}' is damaged, or no state dict ({_shortly(error)}).") from None
    except Exception as error:  # readers of damaged files don't agree on what they raise
        raise UsageError(f"'{file}' is damaged, or no state dict ({_shortly(error)}).") from None


def _members(file: Path) -> list[str]:
    """Return the names in an archive; none of what is no archive, or damaged."""
    try:
        if not zipfile.is_zipfile(file):
            return []
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except OSError:
        raise
    except Exception:  # of damage, for which there are many kinds of errors; torch says of it what it can
        return []


def _convertible(file: Path, what: str, load: str, saved: str) -> UsageError:
    """Return a refusal of a file that ``load`` reads, with the two lines that make a state dict of it."""
    made = f"{file.stem}-weights.pt"
    return UsageError(
        f"'{file}' {what}: expected a state dict. Where you trust it, make one in Python, and give "
        f"{shlex.quote(made)} in its place:",
        (f"import torch; {load.format(repr(str(file)))}", f"torch.save({saved}, {made!r})"),
    )


def _shortly(error: BaseException) -> str:
    return shortened(one_line(error).partition(". ")[0], 200)


class _Wanted(NamedTuple):
    """What a pickle names beside tensors and plain data, and under which name a mapping seems to hold weights."""

    names: list[str]
    within: str | None = None


def _wanted(file: Path) -> _Wanted:
    """Return what the pickle in a file names, read without running any of it."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                content = archive.read(member)
        else:
            content = file.read_bytes()
    except Exception:  # as above, and no such member
        return _Wanted([])
    found: list[str] = []
    texts: list[str] = []
    memo: dict[int, str] = {}
    first = ""
    try:
        for operation, argument, _ in pickletools.genops(content):
            name = operation.name
            if name not in ("PROTO", "FRAME"):
                first = first or name
            if name in ("GLOBAL", "INST"):
                found.append(str(argument).replace(" ", "."))
            elif name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
            elif name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[_number(argument)] = texts[-1] if texts else ""
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                texts.append(memo.get(_number(argument), ""))
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # noqa: S110  # what is damaged further on has named enough, or nothing
        pass
    names = [
        name
        for name in dict.fromkeys(found)
        if not name.startswith(_PLAIN) and not name.endswith("Storage") and name.rpartition(".")[2] not in _HARMLESS
    ]
    is_mapping = first == "EMPTY_DICT"
    return _Wanted(names, next((name for name in NESTED if name in texts), None) if is_mapping else None)


def _number(argument: object) -> int:
    return int(str(argument))


def _runs_code(name: str) -> bool:
    root, last = name.partition(".")[0], name.rpartition(".")[2]
    is_record = name in _RECORDS or name.startswith(("numpy.core.multiarray.", "numpy._core.multiarray."))
    return root in _DANGEROUS or (root != "torch" and not last[:1].isupper() and not is_record)
