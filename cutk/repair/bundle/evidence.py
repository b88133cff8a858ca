"""What ``evidence.json`` holds: one schema, written beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from cutk.repair.records import RepairReport
from cutk.repair.verdict import Status
from cutk.run.records import Environment, Recorded

__all__ = [
    *("ABOUT", "BILL", "BUNDLE", "CARD", "EVIDENCE", "EVIDENCE_SCHEMA", "ONNX", "SCHEMA", "SUMS"),
    *("Bad", "Check", "Code", "Data", "Evidence", "File", "Part", "Portable", "Search", "Verdict"),
    *("checks_of", "schema_of", "verdict_on"),
]

# What the files are called.
BUNDLE, EVIDENCE, EVIDENCE_SCHEMA = "bundle", "evidence.json", "evidence.schema.json"
BILL, CARD, ONNX, SUMS = "bom.cdx.json", "model-card.md", "model.onnx", "SHA256SUMS"
# Of ``Evidence`` as JSON.
SCHEMA = 1
ABOUT = (
    "Evidence of what was done and measured, written by the tool that did it. It isn't signed, and vouches for nothing "
    "beyond the measurements that it lists."
)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class File(Recorded):
    """A file by its content; of a model that came from no file, its tensors."""

    path: str | None = Field(description="As it was given, or relative to the repair's folder; null if there is none.")
    sha256: Sha256
    bytes: int
    of: Literal["file", "tensors"] = Field(
        "file",
        description="What was hashed: the file, or the one that safetensors.torch.save_file writes of the state dict "
        "with the metadata {'format': 'pt'}.",
    )


class Data(Recorded):
    """Samples, by what they hold and how they are labelled."""

    samples: int
    shape: list[int] = Field(description="Of one sample as it reaches the model.")
    classes: list[str]
    sha256: Sha256 = Field(
        description="Of a text in UTF-8 with a line for each sample, in their order: the SHA-256 of what it holds, its "
        "class and its name (or index), separated by spaces."
    )
    of: Literal["files", "values"] = Field(
        description="What a sample holds: its file's bytes, or its numbers' in C order, little-endian."
    )
    source: str = Field("", description="As it was named: folder:DIR, csv:FILE, a dataset; empty from Python.")


class Bad(Recorded):
    """The list of bad samples."""

    count: int
    file: File | None = None
    indices_sha256: Sha256 = Field(description="Of a text with the index of each, ascending, a line each.")


class Part(Recorded):
    """A component that took part; ``source`` begins a hash of the code that decides what it does."""

    kind: str
    name: str
    provider: str
    source: str


class Code(Recorded):
    """What ran: cutk, its components, and the code that makes the model."""

    cutk: str
    cutk_sha256: Sha256 = Field(
        description="Of a text with a line for each of its Python files, by name: the SHA-256, two spaces, the name."
    )
    model: str = Field(description="As it was named, or its class.")
    files: list[File] = Field(description="Of the model's code, as far as it isn't installed.")
    untraced: list[str] = Field([], description="Modules whose code lies in no file.")
    components: list[Part]
    packages: dict[str, str] = Field(description="The versions of cutk's own requirements.")


class Check(Recorded):
    """A limit: what was wanted, what was measured, and whether that is within it."""

    name: str
    wanted: str
    at_most: float | None = None
    measured: float | str | None = Field(description="Null if there was nothing to measure.")
    passed: bool
    decides: bool = Field(True, description="Whether the verdict depends on it.")


class Verdict(Recorded):
    """Whether the repair passes: every check that decides does."""

    passed: bool
    status: Status
    text: str
    measured_on: Literal["validation samples", "training samples that stand in"]


class Search(Recorded):
    """What was tried, and what wasn't."""

    tried: list[str]
    chosen: str | None
    options: dict[str, Any] = Field({})
    left_out: list[str] = Field(description="What there was no time for.")
    failed: dict[str, str] = Field(description="Methods that gave no model, and why.")
    seconds: float | None = None


class Portable(Recorded):
    """The model in another form, and how far it agrees with it: on the CPU, in float32."""

    written: bool
    reason: str = Field("", description="Why it wasn't.")
    file: str | None = None
    samples: int = Field(0, description="On how many both were asked.")
    agree: int = Field(0, description="On how many both predict the same class.")
    largest_difference: float | None = Field(None, description="Of any two logits.")
    largest_logit: float | None = Field(None, description="What that is to be compared with.")
    versions: dict[str, str] = Field({})


class Evidence(Recorded):
    """What was done to a model, what went in and came out, and whether the stated limits were kept."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False, title="Evidence of a repair by cutk"
    )

    version: int = Field(SCHEMA, alias="schema")
    about: str = ABOUT
    created: str = Field(description="ISO 8601, UTC.")
    command: str = Field(description="In full, quoted for a shell; empty if it was done from Python.")
    verdict: Verdict
    checks: list[Check]
    search: Search
    original: File = Field(description="The weights before: put these back to undo the repair.")
    repaired: File | None = Field(description="The weights after; null if nothing was repaired.")
    training: Data
    validation: Data | None = Field(description="Null if training samples stood in.")
    bad: Bad
    unreadable: int = Field(0, description="How many images were left out since they can't be read.")
    code: Code
    seed: int
    recipe: dict[str, Any]
    selector: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = Field(description="Mean and deviation.")
    environment: Environment
    platform: str
    portable: dict[str, Portable] = Field(description="By its form: onnx.")
    unknown: list[str] = Field(description="What can't be known.")
    lacking: dict[str, str] = Field({}, description="Files of the bundle that couldn't be made, and why.")
    files: list[File] = Field(description="All others in the repair's folder.")


def checks_of(report: RepairReport) -> list[Check]:
    """Return each stated limit beside what was measured.

    A budget bounds the search and says nothing of the model, so the verdict doesn't depend on it.
    """
    limits, taken = report.limits, report.taken
    loss = None
    if taken is not None and taken.validation is not None and report.original.validation is not None:
        loss = (report.original.validation.count - taken.validation.count) / taken.validation.of
    found = [
        Check(name="status", wanted="repaired, or in part", measured=report.status, passed=report.repaired),
        Check(
            name="max_accuracy_loss",
            wanted=f"at most {limits.max_accuracy_loss:g} of validation accuracy lost",
            at_most=limits.max_accuracy_loss,
            measured=loss,
            passed=loss is not None and loss <= limits.max_accuracy_loss + 1e-9,
        ),
    ]
    if limits.budget_seconds is not None:
        found.append(
            Check(
                name="budget",
                wanted=f"at most {limits.budget_seconds:g} seconds of search",
                at_most=limits.budget_seconds,
                measured=report.seconds,
                passed=report.seconds is not None and report.seconds <= limits.budget_seconds,
                decides=False,
            )
        )
    return found


def verdict_on(report: RepairReport, checks: Sequence[Check]) -> Verdict:
    """Return what the checks come to."""
    return Verdict(
        passed=all(check.passed for check in checks if check.decides),
        status=report.status,
        text=report.verdict,
        measured_on="training samples that stand in" if report.stands_in else "validation samples",
    )


def schema_of() -> str:
    """Return the schema of ``evidence.json`` as JSON Schema."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Evidence.model_json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
