"""A run's two files, and what becomes of them: read, checked, written, moved, and recognised when they were left."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cutk.errors import CellError, CutkError, one_line
from cutk.run.records import SCHEMA, Attempts, Run

__all__ = [
    "RECORD",
    "TEMPORARY",
    "WEIGHTS",
    "Damaged",
    "Unreadable",
    "apart",
    "is_abandoned",
    "load_weights",
    "move_run",
    "own_name",
    "parse_record",
    "reading",
    "regular",
    "uncollected",
    "unwritten",
    "whole_run",
    "write_over",
    "write_record",
]

RECORD = "record.json"
WEIGHTS = "weights.safetensors"
TEMPORARY = ".tmp-"
_STALE_SECONDS = 30 * 24 * 3600
_LARGEST_RECORD = 2**28
# The first line of a record holds the checksum of all that follows it. Later schemas are to keep it.
_HEAD = '{"sha256": "%s",\n'
# Attempts come last, each in a line of its own.
_ATTEMPTS, _END = b',\n "attempts": [\n', b"\n ]\n}\n"
_HEAD_LENGTH = len(_HEAD % ("0" * 64))

T = TypeVar("T", bound=BaseModel)


class Damaged(Exception):  # noqa: N818  # it says what a run is, as FileNotFound would
    """A run that is there isn't what was written; it can be computed again."""


class Unreadable(CutkError):  # noqa: N818  # as above
    """A run that is there can't be read now, which proves no damage: it stays where it is.

    ``another`` says who wrote it and what to do, of a record of another schema.
    """

    def __init__(self, text: str, another: str = "") -> None:
        super().__init__(text + another)
        self.another = another


# Who a temporary file belongs to.


def _host() -> str:
    """Return a name for all that can tell whether a process of ours is alive: a machine, or a container on it."""
    space = ""
    with contextlib.suppress(OSError):
        space = "." + "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] + space


def own_name() -> str:
    """Return a new name for a temporary file that says whose it is."""
    return f"{TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(path: Path, now: float) -> bool:
    """Say whether the process that made a temporary file is gone: of another machine's, by its age alone."""
    owner = re.fullmatch(rf"{re.escape(TEMPORARY + _host())}-([1-9]\d{{0,9}})-\w+", path.name)
    if owner is None or os.name == "nt":  # where asking for a process would end it
        return now - path.lstat().st_mtime > _STALE_SECONDS
    try:
        os.kill(int(owner[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    with contextlib.suppress(OSError):  # one that is over may still be there, if nobody asked how it ended
        return Path(f"/proc/{owner[1]}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return False


# Reading.


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leave the garbage collector out of it: thousands of records hold no cycles, and it takes longer than they do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Let pass that ``path`` isn't there; any other ``OSError`` proves no damage.

    What is there after all was being replaced by another process, and is worth a second look, as a damaged one is.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            if error.errno == errno.ENOENT and os.path.exists(path):  # a library says so of whatever it can't open
                raise Damaged("it was being replaced") from None
            if not os.path.lexists(path):  # and no link to what isn't there now
                raise
        raise Unreadable(
            f"'{path}' is there and cannot be read ({error.strerror or error}). It stays where it is: make it "
            "readable, or choose another folder with --runs DIR."
        ) from None


def regular(path: str | Path) -> BufferedReader:
    """Open a file and nothing else: a FIFO would wait for a writer, and a device might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Damaged("it is not a file")
    return open(path, "rb", opener=os.open)


def write_weights(path: Path, weights: Mapping[str, Tensor] | bytes) -> tuple[str, int]:
    """Write tensors, or what they are as a file, durably; return the file's SHA-256 and how many bytes it has."""
    if isinstance(weights, bytes):
        path.write_bytes(weights)
    else:
        safetensors.torch.save_file(apart(weights), path)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def load_weights(path: str | Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors in a file; raises ``Damaged`` if it isn't that file, ``Unreadable`` if it can't be read."""
    try:
        with reading(path):
            with regular(path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise Damaged("its checksum differs")
            try:
                return load_file(path)
            except SafetensorError as error:  # the library's words, the system's reason
                if said := re.search(r"os error (\d+)", str(error)):
                    raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from None
                raise
    except (FileNotFoundError, SafetensorError) as error:
        raise Damaged(one_line(error)) from None


def parse_record(path: str | Path, schema: type[T]) -> T:
    """Return what ``write_record`` wrote; ``Damaged`` if it isn't that, ``Unreadable`` if another version wrote it."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST_RECORD:
            raise OSError(errno.EFBIG, f"it is larger than {_LARGEST_RECORD >> 20} MiB")
        content = file.read(size)
    # What isn't asked for isn't parsed: most runs are read for one of their attempts.
    head, listed, lines = content.partition(_ATTEMPTS)
    try:
        plain = from_json(head + b"\n}" if listed else content, allow_inf_nan=False)
    except ValueError as error:
        raise Damaged(f"it is not JSON: {one_line(error).removeprefix('ValueError: ')}") from None
    if not isinstance(plain, dict):
        raise Damaged("it is not a record")
    version, another = plain.get("schema", 0), ""
    if isinstance(version, int) and version > SCHEMA:
        another = f"a later cutk (its schema is {version}, and this one reads {SCHEMA}). Update cutk, or choose another"
    elif content.startswith(b"{\n") and not version and {"labels", "decided_by", "sha256"} <= plain.keys():
        another = (
            "cutk 0.1, whose records this one does not read. Report on it with cutk 0.1, or compute it again into "
            "another"
        )
    if another:
        raise Unreadable(f"'{path}' was ", f"written by {another} folder with --runs DIR.")
    if not content.startswith((_HEAD % hashlib.sha256(content[_HEAD_LENGTH:]).hexdigest()).encode()):
        raise Damaged("its checksum differs")
    if listed:
        plain["attempts"] = Attempts(lines.removesuffix(_END).split(b",\n"))
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")) from None


def whole_run(folder: Path) -> Run | None:
    """Return the run that was written to a folder, if it was to the end; what can't be read raises."""
    try:
        run = parse_record(folder / RECORD, Run)
        there = (folder / WEIGHTS).stat()
    except (FileNotFoundError, Damaged):
        return None
    return run if there.st_size == run.weights_bytes and re.fullmatch("[0-9a-f]{64}", run.key) else None


# Writing.


def apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of each tensor: safetensors refuses those that share memory, and copies are cheap."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record, with the checksum of it in its first line."""
    plain = record.model_dump(mode="json", by_alias=True)
    attempts = plain.pop("attempts", None)
    as_text = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    # What no text can hold, half of a character, can't stand in JSON either.
    body = as_text(plain, indent=1).removeprefix("{\n").encode("utf-8", "replace")
    if attempts is None:
        body += b"\n"
    else:  # a line for each
        lines = ",\n".join(as_text(attempt) for attempt in attempts).encode("utf-8", "replace")
        body = body.removesuffix(b"\n}") + _ATTEMPTS + lines + _END
    with path.open("wb") as file:
        file.write((_HEAD % hashlib.sha256(body).hexdigest()).encode() + body)
        file.flush()
        os.fsync(file.fileno())


def write_over(path: Path, record: BaseModel, *, beside: Path) -> None:
    """Put a record in the place of the one at ``path`` in one step, by way of a file in the folder ``beside``."""
    temporary = beside / own_name()
    try:
        write_record(temporary, record)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def move_run(new: Path, folder: Path, *, replace: bool = False) -> bool:
    """Move a run to its place, unless one is there that isn't to be replaced; that is lost in no case."""
    old = new.with_name(f"{new.name}o")  # which ``open`` finds
    if replace:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
    try:
        new.rename(folder)
        moved = True
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            with contextlib.suppress(OSError):
                old.rename(folder)
            raise
        moved = False  # another process was first
    if replace:
        shutil.rmtree(old, ignore_errors=True)
    return moved


def unwritten(folder: Path, error: OSError | SafetensorError) -> CellError:
    """Return what to say of a run that can't be written."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return CellError(
        f"'{folder}' cannot be written ({why}). Finished cells are kept: mend that, or choose another folder with "
        "--runs DIR."
    )
