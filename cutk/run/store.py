"""Runs on disk: content-addressed, atomic, and read instead of computed when they are there."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutk.errors import CutkError, UsageError, one_line, printable
from cutk.run.records import SCHEMA, Failure, Run, Unlearned

__all__ = ["Damaged", "Kind", "Store", "Unreadable", "canonical", "key_of", "kind_of"]

Kind = Literal["train", "unlearn"]
KINDS: tuple[Kind, ...] = ("train", "unlearn")
RECORD = "record.json"
WEIGHTS = "weights.safetensors"
_FAILED = "failed"
_TEMPORARY = ".tmp-"
_STALE_SECONDS = 30 * 24 * 3600
_LARGEST_RECORD = 2**28
_ROLES = ("original", "gold", "unlearned")
# The first line of a record holds the checksum of all that follows it. Later schemas are to keep it.
_HEAD = '{"sha256": "%s",\n'
_HEAD_LENGTH = len(_HEAD % ("0" * 64))


T = TypeVar("T", bound=BaseModel)


class Damaged(Exception):  # noqa: N818  # it says what a run is, as FileNotFound would
    """A run that was there isn't what was written; it was set aside, and can be computed again."""


class Unreadable(CutkError):  # noqa: N818  # as above
    """A run that is there and can't be read now, which proves no damage: it stays where it is."""


class _Broken(ValueError):  # noqa: N818  # as above
    """What a file holds isn't what was written."""


class _Foreign(Unreadable):
    """A record of another schema; ``who`` says who wrote it and what to do."""

    def __init__(self, path: Path, who: str) -> None:
        super().__init__(f"'{path}' was {who}")
        self.who = who


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

    Args:
        root: the folder; it is made by ``open``, and stays the same if the working folder changes.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))

    def open(self) -> None:
        """Make the folder, see that it can be written to, and clear what killed processes left.

        Raises:
            UsageError: if it can't be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UsageError(
                f"Runs folder '{self.root}' cannot be written to ({error.strerror}). Choose another with --runs DIR."
            ) from None
        for left in self.root.glob(f"*/{_TEMPORARY}*"):
            with contextlib.suppress(OSError, _Broken, Unreadable):
                if _is_abandoned(left):
                    self._clear(left)

    def has(self, kind: Kind, key: str) -> bool:
        """Say whether a run is there, sound or not, without reading it."""
        return os.path.lexists(self._folder(kind, key) / RECORD)

    def peek(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there or is damaged; nothing is set aside.

        Raises:
            Unreadable: as for ``read``.
        """
        try:
            return self._sound(kind, key)
        except _Broken:
            return None

    def read(self, kind: Kind, key: str) -> Run | None:
        """Return a run, or None if it isn't there.

        Raises:
            Damaged: if it isn't what was written; it is out of the way then.
            Unreadable: if it can't be read now, or is of another version of cutk; it stays where it is.
        """
        for _ in range(2):  # another process may have put another in its place between two looks at it
            try:
                return self._sound(kind, key)
            except _Broken as error:
                broken = error
        raise self._set_aside(kind, key, str(broken))

    def runs(
        self, keys: Iterable[str] | None = None, warn: Callable[[str], None] | None = None, *, missing_ok: bool = False
    ) -> list[Run]:
        """Return runs by their labels' order; nothing is set aside, and weights aren't looked at.

        Args:
            keys: which ones to read, those that aren't there left out; all in the folder if not given.
            warn: told of what is there and can't be read, a line for each reason.
            missing_ok: whether an empty folder, or none, has no runs instead of being an error.

        Raises:
            UsageError: if all are asked for and there is no such folder, or no run in it that can be read.
        """
        say = warn or (lambda _: None)
        runs, foreign, seen = [], Counter[str](), 0
        with _uncollected():
            for kind, key in self._all(missing_ok) if keys is None else ((k, key) for key in keys for k in KINDS):
                seen += 1
                try:
                    run = self._record(kind, key)
                except _Foreign as error:
                    foreign[error.who] += 1
                except Unreadable as error:
                    say(f"Left out: {one_line(error)}")
                except _Broken as error:
                    say(f"{printable(str(self._folder(kind, key)))} is left out: {_why(error)}")
                else:
                    runs += [run] if run else []
        for text, count in foreign.items():
            runs_are = "1 run is" if count == 1 else f"{count} runs are"
            say(f"{runs_are} left out in '{printable(str(self.root))}': {text}")
        if keys is None and not runs and not missing_ok:
            what = f"None of the {seen} runs in '{self.root}' can be read" if seen else f"No runs in '{self.root}'"
            raise UsageError(f"{what}. Expected a folder that cutk bench --runs DIR filled.")
        return sorted(runs, key=_order)

    def weights(self, kind: Kind, key: str) -> dict[str, Tensor]:
        """Return a run's weights, on the CPU.

        Raises:
            Damaged: if they aren't there or aren't what was written; the run is out of the way then.
            Unreadable: if they can't be read now.
        """
        path = self._folder(kind, key) / WEIGHTS
        run = self.read(kind, key)
        if run is None:
            raise Damaged(f"{path.parent} is not there")
        try:
            with _reading(path):
                with _regular(path) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != run.weights_sha256:
                        raise _Broken("its checksum differs")
                return load_file(path)
        except (FileNotFoundError, _Broken, SafetensorError) as error:
            raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read ({_why(error)})") from None

    def write(self, run: Run, weights: Mapping[str, Tensor], *, replace: bool = False) -> Run:
        """Write a run, and return it with the checksum of its weights.

        One that is there already stays as it is, since it was computed from the same key, unless ``replace`` says
        that the new one holds more.
        """
        folder = self._folder(kind_of(run), run.key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.parent / _own_name()
        temporary.mkdir()
        try:
            # safetensors refuses tensors that share memory; a copy of each is cheap beside training.
            own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
            save_file(own, temporary / WEIGHTS)
            with (temporary / WEIGHTS).open("rb") as file:
                about = {
                    "weights_sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                    "weights_bytes": os.fstat(file.fileno()).st_size,
                }
            run = run.model_copy(update=about)
            _write(temporary / RECORD, run)
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(temporary / "replaced")
            try:
                temporary.rename(folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return run  # another process was first; its result is as good
            shutil.rmtree(folder / "replaced", ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return run

    def update(self, run: Run) -> None:
        """Put ``run`` in the place of the record that is there; the weights stay."""
        kind = kind_of(run)
        there = self.read(kind, run.key)
        if there is None:
            return  # another process set it aside: there is nothing to add to
        about = {"weights_sha256": there.weights_sha256, "weights_bytes": there.weights_bytes}
        folder = self._folder(kind, run.key)
        # Beside the run's folder and not in it, where ``open`` finds what a killed process left.
        self._replace(folder / RECORD, run.model_copy(update=about), beside=folder.resolve().parent)

    def note_failure(self, key: str, failure: Failure) -> None:
        """Keep why a cell gave no run, until it gives one."""
        with contextlib.suppress(OSError):  # it is reported anyway; a full disk is no reason to stop
            path = self.root / _FAILED / f"{key}.json"
            path.parent.mkdir(exist_ok=True)
            self._replace(path, failure, beside=path.parent)

    def forget_failure(self, key: str) -> None:
        """Drop what ``note_failure`` kept, if anything."""
        with contextlib.suppress(OSError):
            (self.root / _FAILED / f"{key}.json").unlink(missing_ok=True)

    def failures(self, warn: Callable[[str], None] | None = None) -> list[Failure]:
        """Return why cells gave no run, in the order of their labels; ``warn`` is told of what can't be read."""
        found = []
        for path in (self.root / _FAILED).glob("[!.]*.json"):
            try:
                found.append(_parse(path, Failure))
            except FileNotFoundError:  # it has just been computed
                continue
            except (OSError, _Broken) as error:
                if warn:
                    warn(f"{printable(str(path))} is left out: {_why(error)}")

        def at(f: Failure) -> tuple[Any, ...]:
            return (f.dataset, f.model, f.manipulation, f.unlearner or "", f.alpha or 0.0, f.seed or 0, f.reason)

        return sorted(found, key=at)

    # Reading.

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key

    def _all(self, missing_ok: bool) -> Iterator[tuple[Kind, str]]:
        if not missing_ok and not self.root.is_dir():
            raise UsageError(
                f"Runs folder '{self.root}' is not there. Expected the folder that cutk bench --runs DIR filled."
            )
        for kind in KINDS:
            names: list[str] = []
            with contextlib.suppress(FileNotFoundError), _reading(self.root / kind):
                names = sorted(os.listdir(self.root / kind))
            yield from ((kind, name) for name in names if not name.startswith("."))

    def _sound(self, kind: Kind, key: str) -> Run | None:
        """Return a run, having looked at whether its weights are there in full."""
        run = self._record(kind, key)
        if run is None:
            return None
        # Their checksum is compared when they are needed; that they are there can be seen at once.
        path = self._folder(kind, key) / WEIGHTS
        try:
            with _reading(path):
                there = os.stat(path)
        except FileNotFoundError:
            raise _Broken(f"{WEIGHTS} cannot be read (it is missing)") from None
        if not stat.S_ISREG(there.st_mode):
            raise _Broken(f"{WEIGHTS} cannot be read (it is not a file)")
        if there.st_size != run.weights_bytes:
            raise _Broken(f"{WEIGHTS} cannot be read (it is cut off)")
        return run

    def _record(self, kind: Kind, key: str) -> Run | None:
        path = self._folder(kind, key) / RECORD
        try:
            with _reading(path):
                run = _parse(path, Run)
        except FileNotFoundError:
            if os.path.isdir(path.parent):
                raise _Broken(f"{RECORD} is missing") from None
            return None
        except _Broken as error:
            raise _Broken(f"{RECORD} cannot be read ({error})") from None
        if run.key != key:
            raise _Broken(f"{RECORD} cannot be read (it is not the record of this run)")
        return run

    # Writing.

    @staticmethod
    def _replace(path: Path, record: BaseModel, *, beside: Path) -> None:
        temporary = beside / _own_name()
        try:
            _write(temporary, record)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _clear(self, left: Path) -> None:
        if left.is_symlink() or not left.is_dir():
            left.unlink()
            return
        if (left / "replaced").is_dir():  # its process was killed between the two steps of a replacement
            run = _parse(left / RECORD, Run)
            shutil.rmtree(left / "replaced")
            with contextlib.suppress(OSError):  # there is another by now
                left.rename(self._folder(kind_of(run), run.key))
        shutil.rmtree(left, ignore_errors=True)

    def _set_aside(self, kind: Kind, key: str, reason: str) -> Damaged:
        folder = self._folder(kind, key)
        aside = self.root / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            number = sum(name.startswith(f"{kind}-{key[:16]}-") for name in os.listdir(aside))
            while os.path.lexists(target := aside / f"{kind}-{key[:16]}-{number}"):
                number += 1
            with contextlib.suppress(FileNotFoundError):  # another process set it aside
                folder.rename(target)
        except OSError as error:
            raise Unreadable(
                f"{folder}: {reason}, and it cannot be set aside ({error.strerror}). Remove it, "
                "or choose another folder with --runs DIR."
            ) from None
        return Damaged(f"{folder}: {reason}; set aside as {target}")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave the garbage collector out of it: thousands of records hold no cycles, and it takes longer than they do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # both together make everything old, which is looked at least often
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _why(error: Exception) -> str:
    """Return what is wrong with a file, without the type of a check of ours."""
    if isinstance(error, OSError):
        return error.strerror or one_line(error)
    return printable(str(error)) if isinstance(error, _Broken) else one_line(error)


def _order(run: Run) -> tuple[Any, ...]:
    labels = run.labels
    at = (labels.dataset, labels.model, labels.manipulation, labels.recipe, _ROLES.index(labels.role))
    return (*at, labels.unlearner or "", labels.alpha or 0.0, labels.seed, run.key)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Let pass that ``path`` isn't there; any other ``OSError`` proves no damage."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):  # and no link to what isn't there now
            raise
        raise Unreadable(
            f"'{path}' is there and cannot be read ({error.strerror}). It stays where it is: make it readable, "
            "or choose another folder with --runs DIR."
        ) from None


# Who a temporary file belongs to.


def _host() -> str:
    """Return a name for all that can tell whether a process of ours is alive: a machine, or a container on it."""
    space = ""
    with contextlib.suppress(OSError):
        space = "." + "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] + space


def _own_name() -> str:
    return f"{_TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_abandoned(path: Path) -> bool:
    """Say whether the process that made a temporary file is gone: of another machine's, by its age alone."""
    owner = re.fullmatch(rf"{re.escape(_TEMPORARY + _host())}-([1-9]\d{{0,9}})-\w+", path.name)
    if owner is None or os.name == "nt":  # where asking for a process would end it
        return time.time() - path.lstat().st_mtime > _STALE_SECONDS
    try:
        os.kill(int(owner[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    return False


# Files.


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file and nothing else: a FIFO would wait for a writer, and a device might never end.

    Raises:
        _Broken: if it is something else.
        OSError: if it can't be opened.
    """
    # Looked at before, since opening a device can do something, and after, since it may be another one by then.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _Broken("it is not a file")
    flags = ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY")
    opened = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise _Broken("it is not a file")
        yield file


def _content(path: Path) -> bytes:
    with _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST_RECORD:
            raise OSError(errno.EFBIG, f"it is larger than {_LARGEST_RECORD >> 20} MiB")
        return file.read(size)


def _parse(path: Path, schema: type[T]) -> T:
    """Return what ``_write`` wrote.

    Raises:
        _Broken: if it isn't that.
        _Foreign: if another version of cutk wrote it.
        OSError: if it can't be read.
    """
    content = _content(path)
    try:
        plain = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise _Broken(f"it is not JSON: {one_line(error).removeprefix('ValueError: ')}") from None
    if not isinstance(plain, dict):
        raise _Broken("it is not a record")
    version = plain.get("schema", 0)
    if isinstance(version, int) and version > SCHEMA:
        raise _Foreign(
            path,
            f"written by a later cutk (its schema is {version}, and this one reads {SCHEMA}). Update cutk, or choose "
            "another folder with --runs DIR.",
        )
    if content.startswith(b"{\n") and not version and {"labels", "decided_by", "sha256"} <= plain.keys():
        raise _Foreign(
            path,
            "written by cutk 0.1, whose records this one does not read. Report on it with cutk 0.1, or compute it "
            "again into another folder with --runs DIR.",
        )
    if not content.startswith((_HEAD % hashlib.sha256(content[_HEAD_LENGTH:]).hexdigest()).encode()):
        raise _Broken("its checksum differs")
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _Broken(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _write(path: Path, record: BaseModel) -> None:
    text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False, allow_nan=False)
    # What no text can hold, half of a character, can't stand in JSON either.
    body = (text.removeprefix("{\n") + "\n").encode("utf-8", "replace")
    with path.open("wb") as file:
        file.write((_HEAD % hashlib.sha256(body).hexdigest()).encode() + body)
        file.flush()
        os.fsync(file.fileno())
