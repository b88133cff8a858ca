"""The folder of a repair: whole, or not there at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from cutk.errors import UsageError, one_line
from cutk.repair.records import RepairReport

__all__ = ["REPORT", "require_free", "require_place", "require_room", "save_weights", "why_unwritten", "written"]

REPORT = "report.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# With less left, a disk counts as full.
_LEFT = 2**20


def require_free(folder: Path, force: bool) -> None:
    """Refuse a folder that holds something, unless it is an earlier repair and ``force`` says that it may go.

    Raises:
        UsageError: if it can't be written to.
    """
    if os.path.lexists(folder):
        if not folder.is_dir():
            raise UsageError(f"--out: '{folder}' is there, and no folder. Choose another with --out DIR.")
        if any(folder.iterdir()):
            if not force:
                raise UsageError(f"--out: '{folder}' is there already. Choose another, or replace it with --force.")
            if not (folder / REPORT).is_file():
                raise UsageError(
                    f"--out: '{folder}' holds something else than an earlier repair, and --force replaces no other "
                    "folder. Choose another with --out DIR."
                )
    require_place(folder)


def _above(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def require_place(path: Path) -> None:
    """Refuse to write a file or folder where nothing can be written, before it is made."""
    parent = _above(path)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"--out: '{parent}' can't be written to. Choose another place with --out.")


def require_room(path: Path, needed: int) -> None:
    """Refuse to begin where fewer bytes are left than what is to be written takes at least."""
    parent = _above(path)
    left = shutil.disk_usage(parent).free
    if left < needed:
        raise UsageError(
            f"--out: expected room for {needed / 2**20:.1f} MB, got {left / 2**20:.1f} MB at '{parent}'. Make room, or "
            "choose another place with --out."
        )


def why_unwritten(error: Exception, place: Path) -> str:
    """Return in words why something couldn't be written to a folder: libraries have many words for a full disk."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else getattr(error, "errno", None)
    with suppress(OSError):
        if number in _FULL or (number is None and shutil.disk_usage(place).free < _LEFT):
            return "there is no space left"
    return os.strerror(number) if number else one_line(error)


def save_weights(file: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a ``.safetensors`` file, or as a state dict, or what holds one, to any other."""
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, file, metadata={"format": "pt", **(metadata or {})})
        mask = os.umask(0)
        os.umask(mask)
        file.chmod(0o666 & ~mask)  # the library makes it its owner's alone
    else:
        torch.save(tensors, file)


def written(
    folder: Path,
    report: RepairReport,
    texts: dict[str, str],
    weights: Callable[[Path], None] | None,
    *,
    force: bool,
) -> None:
    """Write a repair's folder beside its place, and move it there in one step.

    Raises:
        UsageError: if it can't be written; then nothing is there. Also if something came there meanwhile that
            ``require_free`` refuses; then that stays.
    """
    require_free(folder, force)
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        (temporary / REPORT).write_text(report.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        if weights is not None:
            weights(temporary)
        if folder.is_dir():
            folder.rename(old)
        temporary.rename(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        with suppress(OSError):
            if old.is_dir() and not folder.exists():
                old.rename(folder)
        why = why_unwritten(error, _above(folder))
        advice = "Change that, or choose another place with --out"
        raise UsageError(f"--out: '{folder}' can't be written ({why}), and nothing is there. {advice}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.is_dir():
            shutil.rmtree(old, ignore_errors=True)
