"""Runs on disk: content-addressed, atomic, and read instead of computed when they are there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutk.errors import UsageError, one_line

FAILED = "failed"

__all__ = ["Damaged", "Store", "canonical", "key_of", "parse_record"]

RECORD = "record.json"
WEIGHTS = "weights.safetensors"
_STALE_SECONDS = 24 * 3600


def canonical(value: Any) -> str:
    """Return JSON in which equal content has equal text.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``content``'s canonical JSON: the name of the run that it decides."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def parse_record(text: str, key: str) -> dict[str, Any]:
    """Return the record of the run called ``key`` from its text.

    Raises:
        ValueError: if it isn't that, or isn't what was written.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or record.get("key") != key:
        raise ValueError("it is not the record of this run")
    if record.pop("sha256", None) != key_of(record):
        raise ValueError("its checksum differs")
    return record


class Damaged(Exception):  # noqa: N818  # it says what a run is, as FileNotFound would
    """A run that is there but can't be read; it was set aside."""


class Store:
    """A runs folder: ``<root>/<kind>/<key>/record.json``, and beside it the weights.

    A run is written into a temporary folder and moved to its place in one step, so that it is there wholly or not at
    all. When two processes compute the same run, the first to finish puts it there and the other one's is dropped.

    Args:
        root: the folder; it is made by ``open``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> None:
        """Make the folder, see that it can be written to, and clear what killed processes left a day ago or more.

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
        for left in self.root.glob("*/.tmp-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left)

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def peek(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return a run's record, or None if it isn't there or is damaged; nothing is set aside."""
        try:
            return parse_record((self._folder(kind, key) / RECORD).read_text(encoding="utf-8"), key)
        except (OSError, ValueError, RecursionError):
            return None

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return a run's record, or None if it isn't there.

        Raises:
            Damaged: if it can't be read; it is out of the way then, and can be computed again.
        """
        path = self._folder(kind, key) / RECORD
        try:
            record = parse_record(path.read_text(encoding="utf-8"), key)
        except FileNotFoundError:
            if path.parent.is_dir():
                raise self._set_aside(kind, key, "record.json is missing") from None
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self._set_aside(kind, key, f"record.json cannot be read ({one_line(error)})") from None
        # Their checksum is compared when they are needed; that they are there can be seen at once.
        weights = path.with_name(WEIGHTS)
        if not weights.is_file() or weights.stat().st_size != record["weights_bytes"]:
            raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read (it is missing, or cut off)")
        return record

    def weights(self, kind: str, key: str) -> dict[str, Tensor]:
        """Return a run's weights.

        Raises:
            Damaged: if they can't be read, or aren't what was written.
        """
        path = self._folder(kind, key) / WEIGHTS
        record = self.read(kind, key) or {}
        try:
            if _sha256(path) != record.get("weights_sha256"):
                raise ValueError("the checksum differs")
            return load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise self._set_aside(kind, key, f"{WEIGHTS} cannot be read ({one_line(error)})") from None

    def write(
        self,
        kind: str,
        key: str,
        record: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        *,
        replace: bool = False,
    ) -> None:
        """Write a run.

        One that is there already stays as it is, since it was computed from the same key, unless ``replace`` says
        that the new one holds more.
        """
        folder = self._folder(kind, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            # safetensors refuses tensors that share memory; a copy of each is cheap beside training.
            own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
            save_file(own, temporary / WEIGHTS)
            about = {
                "key": key,
                "weights_sha256": _sha256(temporary / WEIGHTS),
                "weights_bytes": (temporary / WEIGHTS).stat().st_size,
            }
            _write_text(temporary / RECORD, _pretty({**record, **about}))
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(temporary / "replaced")
            try:
                temporary.rename(folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return  # another process was first; its result is as good
            shutil.rmtree(folder / "replaced", ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def update(self, kind: str, key: str, changes: Mapping[str, Any]) -> None:
        """Change parts of a run's record; its weights stay."""
        record = self.read(kind, key)
        if record is None:
            return  # another process set it aside: there is nothing to add to
        path = self._folder(kind, key) / RECORD
        temporary = path.with_name(f".tmp-{os.getpid()}")
        _write_text(temporary, _pretty({**record, **changes}))
        os.replace(temporary, path)

    def note_failure(self, key: str, text: str) -> None:
        """Keep why a cell gave no run, until it gives one."""
        path = self.root / FAILED / f"{key}.txt"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}")
        _write_text(temporary, text)
        os.replace(temporary, path)

    def forget_failure(self, key: str) -> None:
        """Drop what ``note_failure`` kept, if anything."""
        (self.root / FAILED / f"{key}.txt").unlink(missing_ok=True)

    def _set_aside(self, kind: str, key: str, reason: str) -> Damaged:
        folder = self._folder(kind, key)
        for number in range(1000):
            target = self.root / "damaged" / f"{kind}-{key[:16]}-{number}"
            if not target.exists():
                break
        target.parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # another process set it aside
            folder.rename(target)
        return Damaged(f"{folder}: {reason}; set aside as {target}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pretty(record: Mapping[str, Any]) -> str:
    """Return a record as text, with a checksum of all else in it."""
    return json.dumps({**record, "sha256": key_of(record)}, indent=1, allow_nan=False)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
