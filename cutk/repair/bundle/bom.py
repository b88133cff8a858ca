"""The repair as a bill of materials: CycloneDX 1.6, by its own library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cutk.repair.bundle.evidence import BUNDLE, CARD, EVIDENCE, ONNX, Data, Evidence
from cutk.repair.records import RepairReport

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

__all__ = ["bom"]

_MODEL, _ORIGINAL, _TRAINING, _VALIDATION = "model", "original", "training-data", "validation-data"


def bom(evidence: Evidence, report: RepairReport, task: str) -> str:
    """Return the bill of materials as JSON: the model, what it was before, its data, and what made it.

    The library knows no model cards yet, which the specification wants of a model: the card is put into what it
    writes. ``task`` says what the model does.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    model = _model(evidence)
    data = [_data(evidence.training, _TRAINING, "training samples")]
    if evidence.validation is not None:
        data.append(_data(evidence.validation, _VALIDATION, "validation samples"))
    found = Bom(components=[*data, *_libraries(evidence)])
    found.metadata.component = model
    found.metadata.tools.components.add(_tool(evidence))
    found.register_dependency(model, data)
    written = json.loads(JsonV1Dot6(found).output_as_string())
    written["metadata"]["component"]["modelCard"] = _card(evidence, report, task, [each.bom_ref.value for each in data])
    return json.dumps(written, indent=1, ensure_ascii=False) + "\n"


def _model(evidence: Evidence) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    now = evidence.repaired or evidence.original
    properties = {
        "cutk:status": evidence.verdict.status,
        "cutk:passed": str(evidence.verdict.passed).lower(),
        "cutk:chosen": evidence.search.chosen or "",
        "cutk:command": evidence.command,
        "cutk:bad-list-sha256": evidence.bad.file.sha256 if evidence.bad.file else "",
        "cutk:bad-indices-sha256": evidence.bad.indices_sha256,
    }
    kinds = {
        "report.json": ExternalReferenceType.EVIDENCE,
        f"{BUNDLE}/{CARD}": ExternalReferenceType.MODEL_CARD,
        f"{BUNDLE}/{ONNX}": ExternalReferenceType.DISTRIBUTION,
    }
    references = [
        ExternalReference(type=kinds[file.path], url=XsUri(file.path), hashes=_hashes(file.sha256))
        for file in evidence.files
        if file.path in kinds
    ]
    # Which holds the hash of this file, and not the other way round.
    references.append(ExternalReference(type=ExternalReferenceType.EVIDENCE, url=XsUri(f"{BUNDLE}/{EVIDENCE}")))
    return Component(
        name=evidence.code.model,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        version=now.sha256[:12],
        description=evidence.verdict.text,
        hashes=_hashes(now.sha256) if now.of == "file" else (),
        properties=[Property(name=name, value=value) for name, value in properties.items() if value],
        external_references=references,
        # Where nothing was repaired, the model is the original.
        pedigree=Pedigree(ancestors=[_original(evidence)], notes=evidence.about) if evidence.repaired else None,
    )


def _original(evidence: Evidence) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    before = evidence.original
    known = {"cutk:path": before.path or "", "cutk:tensors-sha256": before.sha256 if before.of == "tensors" else ""}
    return Component(
        name=evidence.code.model,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_ORIGINAL,
        version=before.sha256[:12],
        description="The model before the repair: put it back to undo it.",
        hashes=_hashes(before.sha256) if before.of == "file" else (),
        properties=[Property(name=name, value=value) for name, value in known.items() if value],
    )


def _data(data: Data, ref: str, what: str) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    known = {"cutk:samples": str(data.samples), "cutk:samples-sha256": data.sha256}
    return Component(
        name=data.source or what,
        type=ComponentType.DATA,
        bom_ref=ref,
        version=data.sha256[:12],
        description=f"{data.samples} {what} in {len(data.classes)} classes",
        properties=[Property(name=name, value=value) for name, value in known.items()],
    )


def _tool(evidence: Evidence) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(name="cutk", type=ComponentType.APPLICATION, version=evidence.code.cutk, bom_ref="cutk")


def _libraries(evidence: Evidence) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found = []
    for name, version in evidence.code.packages.items():
        if name == "cutk":
            continue
        purl = PackageURL("pypi", None, name.lower(), version)
        found.append(
            Component(name=name, type=ComponentType.LIBRARY, version=version, purl=purl, bom_ref=purl.to_string())
        )
    return found


def _hashes(sha256: str) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]


def _card(evidence: Evidence, report: RepairReport, task: str, data: list[str | None]) -> dict[str, Any]:
    """Return the specification's own model card: what was measured, on what, and what can't be known."""
    shown = report.taken or report.original
    metrics = []
    if shown.validation is not None:
        low, high = shown.validation.low, shown.validation.high
        metrics.append(
            {
                "type": "accuracy",
                "value": f"{shown.validation.value:.6g}",
                "slice": evidence.verdict.measured_on,
                "confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"},
            }
        )
    return {
        "modelParameters": {"task": task, "datasets": [{"ref": ref} for ref in data]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": list(evidence.unknown)},
    }
