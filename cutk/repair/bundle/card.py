"""A fragment of a model card: what a repository of models reads at the head, and what people read below."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from cutk.repair.bundle.evidence import Evidence
from cutk.repair.page import rows
from cutk.repair.records import RepairReport
from cutk.report.naming import listed

__all__ = ["card", "task_of"]

_TAGS = ("machine-unlearning", "corrective-unlearning", "cutk")


def task_of(samples: Tensor) -> str:
    """Return what a model does that takes such samples, ``[n, …]``, as repositories of models call it."""
    if not samples.is_floating_point():
        return "text-classification"
    return {2: "tabular-classification", 4: "image-classification"}.get(samples.ndim, "other")


def card(evidence: Evidence, report: RepairReport, task: str) -> str:
    """Return a model card in Markdown with its metadata; ``task`` says what the model does."""
    return f"---\n{_yaml(_metadata(evidence, report, task))}---\n\n{_body(evidence, report)}"


def _metadata(evidence: Evidence, report: RepairReport, task: str) -> dict[str, Any]:
    about: dict[str, Any] = {"library_name": "pytorch", "pipeline_tag": task, "tags": list(_TAGS)}
    shown = report.taken or report.original
    if shown.validation is None or evidence.validation is None:
        return about
    # In the form that is read: a list of models, each with what was measured on which data.
    result = {
        "task": {"type": task},
        "dataset": {"type": "validation", "name": evidence.validation.source or "validation samples"},
        "metrics": [{"type": "accuracy", "value": shown.validation.value}],
    }
    return {**about, "model-index": [{"name": evidence.code.model, "results": [result]}]}


def _yaml(value: Any, indent: int = 0) -> str:
    """Return mappings, lists and what they hold as YAML; texts and numbers as JSON writes them, which is YAML, too."""
    pad = " " * indent
    if isinstance(value, dict):
        return "".join(
            f"{pad}{name}:\n{_yaml(inner, indent + 2)}"
            if isinstance(inner, dict | list)
            else f"{pad}{name}: {_plain_yaml(inner)}\n"
            for name, inner in value.items()
        )
    return "".join(
        f"{pad}- {_yaml(inner, indent + 2).lstrip()}"
        if isinstance(inner, dict | list)
        else f"{pad}- {_plain_yaml(inner)}\n"
        for inner in value
    )


def _plain_yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _body(evidence: Evidence, report: RepairReport) -> str:
    taken, verdict = report.taken, evidence.verdict
    heading, *lines = rows(report)
    parts = [
        f"## Repair\n\n{_plain(verdict.text)}\n\n{evidence.about}",
        "### Limits\n\n"
        + _table(
            ("limit", "wanted", "measured", "kept"),
            *((c.name, c.wanted, _number(c.measured), "yes" if c.passed else "no") for c in evidence.checks),
        )
        + f"\nTaken together: **{'passed' if verdict.passed else 'not passed'}**. Measured on {verdict.measured_on}.",
        "### Measured\n\n" + _table(tuple(heading), *lines),
        "### How\n\n" + _how(evidence, taken.options if taken else {}),
        "### What can't be known\n\n" + "\n".join(f"- {_plain(text)}" for text in evidence.unknown),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _how(evidence: Evidence, options: dict[str, Any]) -> str:
    portable = [
        f"{name} ({one.agree} of {one.samples} predictions agree)"
        for name, one in evidence.portable.items()
        if one.written
    ]
    facts = [
        ("Method", f"{evidence.search.chosen} ({listed(options)})" if evidence.search.chosen else "none was taken"),
        ("Chosen by", evidence.selector),
        ("Training samples", f"{evidence.training.samples}, {evidence.bad.count} of them on the list of bad ones"),
        ("SHA-256 of the training samples", f"`{evidence.training.sha256}`"),
        ("SHA-256 of the weights before", f"`{evidence.original.sha256}`"),
        ("SHA-256 of the weights after", f"`{evidence.repaired.sha256}`" if evidence.repaired else "–"),
        ("A sample", f"{'×'.join(map(str, evidence.training.shape))}, {_normalised(evidence)}"),
        ("Also as", ", ".join(portable) or "–"),
        ("cutk", evidence.code.cutk),
        ("Seed", str(evidence.seed)),
        ("Command", f"`{evidence.command}`" if evidence.command else "–"),
    ]
    return _table(("", ""), *facts)


def _normalised(evidence: Evidence) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in each[:4]) for each in evidence.normalisation)
    return f"normalised with mean {mean} and deviation {std}" if mean else "as it is"


def _number(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\*_[]<>#|" else c for c in " ".join(text.split()))


def _table(*lines: tuple[str, ...]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"

    heading, *rest = lines
    return line(heading) + line(("---",) * len(heading)) + "".join(map(line, rest))
