"""The bundle's folder, beside what it tells of."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from cutk.errors import Caught, UsageError, conjoined, shortened
from cutk.repair.bundle.bom import bom
from cutk.repair.bundle.card import card, task_of
from cutk.repair.bundle.digests import digest_of_indices, file_at
from cutk.repair.bundle.evidence import (
    BILL,
    BUNDLE,
    CARD,
    EVIDENCE,
    EVIDENCE_SCHEMA,
    SUMS,
    Bad,
    Evidence,
    File,
    Portable,
    Search,
    checks_of,
    schema_of,
    verdict_on,
)
from cutk.repair.bundle.material import Material
from cutk.repair.bundle.portable import onnx_of
from cutk.repair.records import RepairReport
from cutk.report.console import make_console
from cutk.report.terminal import safe

if TYPE_CHECKING:
    from cutk.repair.problem import Tell

__all__ = ["print_bundle", "require_libraries", "write_bundle"]

# Of a reason that an exporter gives, as the terminal shows it.
_LONGEST = 160
# By the names that they are imported under.
_LIBRARIES = {
    "cyclonedx": "cyclonedx-python-lib",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
}


def require_libraries(asked: str) -> None:
    """Refuse to begin without what a bundle is made with.

    Raises:
        UsageError: says what to install; ``asked`` is how the bundle was asked for.
    """
    missing = [name for module, name in _LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"{asked} needs {conjoined(missing)}, not installed here: pip install 'cutk[bundle]'")


def write_bundle(
    folder: Path,
    material: Material,
    report: RepairReport,
    model: nn.Module | None,
    weights: str,
    tell: Tell = lambda _what, _done, _total: None,
) -> Evidence:
    """Write what proves a repair beside it.

    Args:
        folder: that of the repair, with all its other files.
        material: what was handed over.
        report: what was found.
        model: the repaired one, as its ``weights`` were written; None where nothing was repaired.
        weights: the name of their file, where something was.
        tell: is told how far it has come.

    Raises:
        OSError: if it can't be written.
    """
    out = folder / BUNDLE
    out.mkdir()
    (out / EVIDENCE_SCHEMA).write_text(schema_of(), encoding="utf-8")
    form = Portable(written=False, reason="nothing was repaired")
    if model is not None:
        tell("ONNX", 0, 1)
        form = onnx_of(model, material.asked, out)
        tell("ONNX", 1, 1)
    evidence = _evidence(folder, material, report, form, None if model is None else weights, tell)
    task = task_of(material.asked)
    (out / CARD).write_text(card(evidence, report, task), encoding="utf-8")
    files = _files(folder, [] if evidence.repaired is None else [evidence.repaired])
    evidence = evidence.model_copy(update={"files": files})
    # No other distribution's ways cost anyone a repair that took hours.
    with Caught() as caught:
        bill = bom(evidence, report, task)
    if caught.error is None:
        (out / BILL).write_text(bill, encoding="utf-8")
    else:
        evidence = evidence.model_copy(update={"lacking": {f"{BUNDLE}/{BILL}": caught.reason}})
    files = _files(folder, files)
    evidence = evidence.model_copy(update={"files": files})
    (out / EVIDENCE).write_text(evidence.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    # What ``sha256sum --check`` reads, from the repair's folder.
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in _files(folder, files))
    (out / SUMS).write_text(sums, encoding="utf-8")
    return evidence


def print_bundle(folder: Path) -> None:
    """Print what the bundle in a repair's folder comes to."""
    evidence = Evidence.model_validate_json((folder / BUNDLE / EVIDENCE).read_bytes())
    make_console().print(safe(_told(evidence, folder)), highlight=False)


def _told(evidence: Evidence, folder: Path) -> str:
    verdict, form = evidence.verdict, evidence.portable["onnx"]
    said = f"Evidence in '{folder / BUNDLE}': {'all' if verdict.passed else 'not all'} checks passed. "
    if not form.written:
        return f"{said}No ONNX: {shortened(form.reason, _LONGEST).rstrip('.')}."
    differ = f"logits differ by up to {form.largest_difference:.1g}"
    return f"{said}ONNX agrees with the model on {form.agree} of {form.samples} samples; {differ}."


def _evidence(
    folder: Path, material: Material, report: RepairReport, form: Portable, weights: str | None, tell: Tell
) -> Evidence:
    def hashed(done: int, total: int) -> None:
        tell("data, hashed", done, total)

    checks, taken = checks_of(report), report.taken
    training, validation = material.data(hashed)
    return Evidence(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=report.command,
        verdict=verdict_on(report, checks),
        checks=checks,
        search=Search(
            tried=[one.name for one in report.candidates],
            chosen=report.chosen,
            options=taken.options if taken else {},
            left_out=report.left_out,
            failed=report.failed,
            seconds=report.seconds,
        ),
        original=material.original,
        repaired=None if weights is None else file_at(folder / weights, weights),
        training=training,
        validation=validation,
        bad=Bad(count=len(material.bad), file=material.bad_file, indices_sha256=digest_of_indices(material.bad)),
        unreadable=report.samples["unreadable"],
        code=material.code,
        seed=report.seed,
        recipe=report.recipe,
        selector=report.selector,
        normalisation=report.normalisation,
        environment=report.environment,
        platform=platform.platform(),
        portable={"onnx": form},
        unknown=report.unknown,
        files=[],
    )


def _files(folder: Path, known: Iterable[File]) -> list[File]:
    """Return all files in a folder by their content; those that are ``known`` aren't read again."""
    there = {file.path: file for file in known}
    found = [(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [there.get(name) or file_at(path, name) for path, name in found]
