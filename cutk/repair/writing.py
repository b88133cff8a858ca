"""The folder of a repair: whole, or not there at all."""

from __future__ import annotations

import errno
import os
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

__all__ = ["REPORT", "require_free", "save_weights", "written"]

REPORT = "report.json"


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
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise UsageError(f"--out: '{parent}' can't be written to. Choose another place with --out DIR.")


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
) -> None:
    """Write a repair's folder beside its place, and move it there in one step.

    Raises:
        UsageError: if it can't be written; then nothing is there.
    """
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
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        why = "there is no space left" if full else getattr(error, "strerror", None) or one_line(error)
        raise UsageError(f"--out: '{folder}' can't be written ({why}). Nothing was kept there.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.is_dir():
            shutil.rmtree(old, ignore_errors=True)
