"""Runs on disk: content-addressed, atomic, and read instead of computed when they are there."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutk.errors import CellError, CutkError, UsageError, one_line, printable
from cutk.run.records import SCHEMA, Attempts, Failure, Run, Unlearned

__all__ = ["Damaged", "Kind", "Parcel", "Store", "Unreadable", "canonical", "key_of", "kind_of"]

Kind = Literal["train", "unlearn"]
KINDS: tuple[Kind, ...] = ("train", "unlearn")
RECORD = "record.json"
WEIGHTS = "weights.safetensors"
_TEMPORARY = ".tmp-"
_STALE_SECONDS = 30 * 24 * 3600
_LARGEST_RECORD = 2**28
_ROLES = ("original", "gold", "unlearned")
# The first line of a record holds the checksum of all that follows it. Later schemas are to keep it.
_HEAD = '{"sha256": "%s",\n'
# Attempts come last, each in a line of its own.
_ATTEMPTS, _END = b',\n "attempts": [\n', b"\n ]\n}\n"
_HEAD_LENGTH = len(_HEAD % ("0" * 64))

T = TypeVar("T", bound=BaseModel)
_log = logging.getLogger(__name__)


class Damaged(Exception):  # noqa: N818  # it says what a run is, as FileNotFound would
    """A run that is there isn't what was written; it can be computed again."""


class Unreadable(CutkError):  # noqa: N818  # as above
    """A run that is there can't be read now, which proves no damage: it stays where it is.

    ``another`` says who wrote it and what to do, of a record of another schema.
    """

    def __init__(self, text: str, another: str = "") -> None:
        super().__init__(text + another)
        self.another = another


class Parcel(NamedTuple):
    """A run that is sent somewhere, and its weights as they are stored."""

    run: Run
    weights: bytes


def canonical(value: Any) -> str:
    """Return JSON in which equal content has equal text.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(content: Mapping[str, Any] | BaseModel) -> str:
    """Return the SHA-256 of ``content``'s canonical JSON: the name of the run that it decides."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def kind_of(run: Run) -> Kind:
    """Return which of the two folders of runs is a run's."""
    return "unlearn" if isinstance(run.decided_by, Unlearned) else "train"


class Store:
    """A runs folder: ``<root>/<kind>/<key>/record.json``, and beside it the weights.

    A run is written into a temporary folder and moved to its place in one step, so that it is there wholly or not at
    all. When two processes compute the same run, the first to finish puts it there and the other one's is dropped.
    The folder is made by ``open``, and stays the same if the working folder changes.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))

    def open(self) -> None:
        """Make the folder, and clear what killed processes left; a ``UsageError`` says that it can't be written to."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root, prefix=_own_name()) as file:
                now = os.fstat(file.fileno()).st_mtime  # by the folder's clock: this machine's may be wrong
        except OSError as error:
            raise UsageError(
                f"Runs folder '{self.root}' cannot be written to ({error.strerror}). Choose another with --runs DIR."
            ) from None
        with contextlib.suppress(OSError):  # another time
            # A run that replaces another comes before that one, by its name.
            for left in sorted(each for name in ("", "*/") for each in self.root.glob(f"{name}{_TEMPORARY}*")):
                with contextlib.suppress(OSError, Unreadable):
                    if _is_abandoned(left, now):
                        _log.info("Clearing what a process that was killed left: '%s'", left)
                        self._clear(left)

    def peek(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there or is damaged; otherwise as ``read``, but nothing is set aside."""
        try:
            return self._sound(kind, key)
        except Damaged:
            return None

    def read(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there.

        Raises:
            Damaged: if it isn't what was written; it is out of the way then.
            Unreadable: if it can't be read now, or is of another version of cutk; it stays where it is.
        """
        with contextlib.suppress(Damaged):  # another process may have put another in its place by the second look
            return self._sound(kind, key)
        try:
            return self._sound(kind, key)
        except Damaged as damage:
            raise self._set_aside(kind, key, str(damage)) from None

    def has(self, run: Run) -> bool:
        """Say whether there is a record of a run, without reading it."""
        return (self._folder(kind_of(run), run.key) / RECORD).is_file()

    def parcel(self, kind: Kind, key: str) -> Parcel | None:
        """Return a run with its weights, or None if it isn't there; raises as ``read`` does."""
        run, path = self.read(kind, key), self._folder(kind, key) / WEIGHTS
        if run is None:
            return None
        with _reading(path), _regular(path) as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != run.weights_sha256:
            raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read (its checksum differs)")
        return Parcel(run, content)

    def runs(self, warn: Callable[[str], None] = lambda _: None) -> list[Run]:
        """Return all runs by their labels' order; nothing is set aside, and weights aren't looked at.

        Raises:
            UsageError: if there is no such folder, or no run in it that can be read. ``warn`` is told of each that
                can't be; of those of another version, a line for all.
        """
        if not self.root.is_dir():
            raise UsageError(
                f"Runs folder '{self.root}' is not there. Expected the folder that cutk bench --runs DIR filled."
            )
        runs, others, seen = [], Counter[str](), 0
        with _uncollected():
            for kind, key in self._names():
                seen += 1
                try:
                    run = self._record(kind, key)
                except Unreadable as error:
                    if not error.another:
                        warn(f"Left out: {one_line(error)}")
                    others[error.another] += 1
                except Damaged as damage:
                    warn(printable(f"{self._folder(kind, key)} is left out: {damage}"))
                else:
                    runs += [run] if run else []
        del others[""]
        for another, count in others.items():
            runs_are = "1 run is" if count == 1 else f"{count} runs are"
            warn(f"{runs_are} left out in '{printable(str(self.root))}': {another}")
        if not runs:
            what = f"None of the {seen} runs in '{self.root}' can be read" if seen else f"No runs in '{self.root}'"
            raise UsageError(f"{what}. Expected a folder that cutk bench --runs DIR filled.")
        return sorted(runs, key=_order)

    def seeds(self) -> set[int]:
        """Return the seeds of the runs that can be read."""
        found = set()
        with _uncollected():
            for kind, key in self._names():
                with contextlib.suppress(Damaged, Unreadable):
                    run = self._record(kind, key)
                    found |= {run.trained.seed} if run else set()
        return found

    def weights(self, kind: Kind, key: str) -> dict[str, Tensor]:
        """Return a run's weights, on the CPU; raises as ``read`` does, and ``Damaged`` if they aren't there."""
        for _ in range(2):  # another process may have replaced them since the record was read
            run = self.read(kind, key)
            if run is None:
                raise Damaged(f"{self._folder(kind, key)} is not there")
            try:
                return _load(self._folder(kind, key) / WEIGHTS, run.weights_sha256)
            except Damaged as damage:
                why = str(damage)
        raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read ({why})")

    def write(self, run: Run, weights: Mapping[str, Tensor] | bytes, *, replace: bool = False) -> Run:
        """Write a run, and return it with the checksum of its weights, which may be given as they are stored.

        One that is there already stays as it is, since it was computed from the same key, unless ``replace`` says
        that the new one holds more.

        Raises:
            CellError: if it can't be written; what is there stays.
        """
        folder = self._folder(kind_of(run), run.key)
        temporary = folder.parent / _own_name()
        try:
            temporary.mkdir(parents=True)
            if isinstance(weights, bytes):
                (temporary / WEIGHTS).write_bytes(weights)
            else:
                save_file(apart(weights), temporary / WEIGHTS)
            with (temporary / WEIGHTS).open("r+b") as file:
                os.fsync(file.fileno())
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size
            run = run.model_copy(update={"weights_sha256": digest, "weights_bytes": size})
            _write(temporary / RECORD, run)
            _move(temporary, folder, replace=replace)
        except (OSError, SafetensorError) as error:
            raise _unwritten(folder, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return run

    def update(self, run: Run) -> None:
        """Put ``run`` in the place of the record that is there, if it is; the weights stay. Raises as ``write``."""
        there = self.read(kind_of(run), run.key)
        if there is not None:
            about = {"weights_sha256": there.weights_sha256, "weights_bytes": there.weights_bytes}
            folder = self._folder(kind_of(run), run.key)
            # Beside the run's folder and not in it, where ``open`` finds what a killed process left.
            try:
                _replace(folder / RECORD, run.model_copy(update=about), beside=folder.resolve().parent)
            except OSError as error:
                raise _unwritten(folder, error) from error

    def _failed(self, key: str) -> Path:
        return self.root / "failed" / f"{key}.json"

    def note_failure(self, key: str, failure: Failure) -> None:
        """Keep why a cell gave no run, until it gives one."""
        with contextlib.suppress(OSError):  # it is reported anyway; a full disk is no reason to stop
            path = self._failed(key)
            path.parent.mkdir(exist_ok=True)
            _replace(path, failure, beside=path.parent)

    def forget_failure(self, key: str) -> None:
        """Drop what ``note_failure`` kept, if anything."""
        if os.path.isdir(self.root / "failed"):  # which is asked for every cell, and is seldom there
            with contextlib.suppress(OSError):
                self._failed(key).unlink(missing_ok=True)

    def failures(self) -> list[Failure]:
        """Return why cells gave no run, as far as it can be read, in the order of their labels."""
        found = []
        for path in self._failed("").parent.glob("[!.]*.json"):
            with contextlib.suppress(OSError, Damaged, Unreadable):
                found.append(_parse(path, Failure))

        def at(f: Failure) -> tuple[Any, ...]:
            return (f.dataset, f.model, f.manipulation, f.unlearner or "", f.alpha or 0.0, f.seed or 0, f.reason)

        return sorted(found, key=at)

    # Reading.

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key

    def _names(self) -> Iterator[tuple[Kind, str]]:
        for kind in KINDS:
            with contextlib.suppress(FileNotFoundError), _reading(self.root / kind):
                yield from ((kind, name) for name in sorted(os.listdir(self.root / kind)) if not name.startswith("."))

    def _sound(self, kind: Kind, key: str) -> Run | None:
        """Return a run whose weights are there in full; their checksum is compared when they are needed."""
        run = self._record(kind, key)
        if run is None:
            return None
        path, wrong = self._folder(kind, key) / WEIGHTS, ""
        try:
            with _reading(path):
                there = os.stat(path)
            if not stat.S_ISREG(there.st_mode):
                wrong = "it is not a file"
            elif there.st_size != run.weights_bytes:
                wrong = "it is cut off"
        except FileNotFoundError:
            wrong = "it is missing"
        if wrong:
            raise Damaged(f"{WEIGHTS} cannot be read ({wrong})")
        return run

    def _record(self, kind: Kind, key: str) -> Run | None:
        path = self._folder(kind, key) / RECORD
        try:
            with _reading(path), _uncollected():
                run = _parse(path, Run)
            if run.key != key:
                raise Damaged("it is not the record of this run")
        except FileNotFoundError:
            if os.path.isdir(path.parent):
                raise Damaged(f"{RECORD} is missing") from None
            return None
        except Damaged as damage:
            raise Damaged(f"{RECORD} cannot be read ({damage})") from None
        return run

    # Writing.

    def _clear(self, left: Path) -> None:
        if left.is_symlink() or not left.is_dir():
            left.unlink()
            return
        # Its process was killed before it could move a run to its place, or between the two steps of a replacement.
        if (run := _whole(left)) is not None:
            _move(left, self._folder(kind_of(run), run.key))
        shutil.rmtree(left, ignore_errors=True)

    def _set_aside(self, kind: Kind, key: str, reason: str) -> Damaged:
        folder, aside = self._folder(kind, key), self.root / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            number = 0
            while os.path.lexists(target := aside / f"{kind}-{key[:16]}-{number}"):
                number += 1
            with contextlib.suppress(FileNotFoundError):  # another process set it aside
                folder.rename(target)
        except OSError as error:
            raise Unreadable(
                f"{folder}: {reason}, and it cannot be set aside ({error.strerror}). Remove it, "
                "or choose another folder with --runs DIR."
            ) from None
        _log.info("Set aside '%s' as '%s': %s", folder, target, reason)
        return Damaged(f"{folder}: {reason}; set aside as {target}")


def apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of each tensor: safetensors refuses those that share memory, and copies are cheap."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave the garbage collector out of it: thousands of records hold no cycles, and it takes longer than they do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _order(run: Run) -> tuple[Any, ...]:
    labels = run.labels
    at = (labels.dataset, labels.model, labels.manipulation, labels.recipe, _ROLES.index(labels.role))
    return (*at, labels.unlearner or "", labels.alpha or 0.0, labels.seed, run.key)


# Who a temporary file belongs to.


def _host() -> str:
    """Return a name for all that can tell whether a process of ours is alive: a machine, or a container on it."""
    space = ""
    with contextlib.suppress(OSError):
        space = "." + "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] + space


def _own_name() -> str:
    return f"{_TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_abandoned(path: Path, now: float) -> bool:
    """Say whether the process that made a temporary file is gone: of another machine's, by its age alone."""
    owner = re.fullmatch(rf"{re.escape(_TEMPORARY + _host())}-([1-9]\d{{0,9}})-\w+", path.name)
    if owner is None or os.name == "nt":  # where asking for a process would end it
        return now - path.lstat().st_mtime > _STALE_SECONDS
    try:
        os.kill(int(owner[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    return False


# Files.


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Let pass that ``path`` isn't there; any other ``OSError`` proves no damage."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):  # and no link to what isn't there now
            raise
        raise Unreadable(
            f"'{path}' is there and cannot be read ({error.strerror or error}). It stays where it is: make it "
            "readable, or choose another folder with --runs DIR."
        ) from None


def _regular(path: Path) -> BufferedReader:
    """Open a file and nothing else: a FIFO would wait for a writer, and a device might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Damaged("it is not a file")
    return open(path, "rb", opener=os.open)


def _load(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors in a file; raises ``Damaged`` if it isn't that file, ``Unreadable`` if it can't be read."""
    try:
        with _reading(path):
            with _regular(path) as file:
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


def _parse(path: Path, schema: type[T]) -> T:
    """Return what ``_write`` wrote; raises ``Damaged`` if it isn't that, ``Unreadable`` if another version wrote it."""
    with _regular(path) as file:
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


def _whole(folder: Path) -> Run | None:
    """Return the run that was written to a folder, if it was to the end; what can't be read raises."""
    try:
        run = _parse(folder / RECORD, Run)
        there = (folder / WEIGHTS).stat()
    except (FileNotFoundError, Damaged):
        return None
    return run if there.st_size == run.weights_bytes and re.fullmatch("[0-9a-f]{64}", run.key) else None


def _move(new: Path, folder: Path, *, replace: bool = False) -> None:
    """Move a run to its place. One that is there stays, unless it is to be replaced; it is lost in no case."""
    old = new.with_name(f"{new.name}o")  # which ``open`` finds
    if replace:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was first: its is as good
            with contextlib.suppress(OSError):
                old.rename(folder)
            raise
    if replace:
        shutil.rmtree(old, ignore_errors=True)


def _unwritten(folder: Path, error: OSError | SafetensorError) -> CellError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return CellError(
        f"'{folder}' cannot be written ({why}). Finished cells are kept: mend that, or choose another folder with "
        "--runs DIR."
    )


def _write(path: Path, record: BaseModel) -> None:
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


def _replace(path: Path, record: BaseModel, *, beside: Path) -> None:
    temporary = beside / _own_name()
    try:
        _write(temporary, record)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
