"""A repair's report as one page that needs nothing but itself, and the pictures on it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import torch
from PIL import Image

from cutk.data.batches import TrainSet
from cutk.repair.calibration import shown_as
from cutk.repair.records import Judged, RepairReport, Suspect
from cutk.repair.suspects import NOBODY, advice_on
from cutk.repair.verdict import points
from cutk.report.naming import duration, listed
from cutk.report.origins import machine, versions
from cutk.report.page import template

__all__ = ["page", "rows", "thumbnails"]

# Pictures are scaled to at most so many pixels, and so many suspects stand on the page.
_PICTURE, _SUSPECTS = 96, 50


def thumbnails(train: TrainSet, moved: Sequence[tuple[int, str]], bgr: bool = False) -> list[tuple[str, str]]:
    """Return the pictures of samples as data URIs, each with its caption; none where samples are no images.

    ``bgr`` says that their channels are in that order.
    """
    if train.form != "images" or train.shape[0] not in (1, 3) or not moved:
        return []
    which = torch.tensor([index for index, _ in moved])
    (read,) = [x for _, x in train._read(iter([[which]]))]
    found = []
    read = read.flip(1) if bgr else read
    for (_, caption), pixels in zip(moved, read.to(torch.uint8).cpu(), strict=True):
        array = pixels.permute(1, 2, 0).squeeze(2).numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array)
        largest = max(picture.size)
        times = _PICTURE / largest if largest > _PICTURE else max(1, math.floor(_PICTURE / largest))
        size = (max(1, round(picture.width * times)), max(1, round(picture.height * times)))
        smooth = Image.Resampling.LANCZOS if times < 1 else Image.Resampling.NEAREST
        buffer = io.BytesIO()
        picture.resize(size, smooth).save(buffer, "PNG")
        text = base64.b64encode(buffer.getvalue()).decode()
        found.append((f"data:image/png;base64,{text}", caption))
    return found


def rows(report: RepairReport) -> list[tuple[str, ...]]:
    """Return the table of the original and its candidates, as texts, its heading first."""
    accuracy = "accuracy on training samples" if report.stands_in else "validation accuracy"
    heading = ["model", accuracy, "95 %", "bad as labelled", "no longer", "agrees elsewhere", "time", ""]
    if report.original.attack:
        heading.insert(6, "trigger works")
    lines: list[tuple[str, ...]] = [tuple(heading)]
    for one in (report.original, *report.candidates):
        original = one is report.original
        remark = "taken" if one.name == report.chosen else "" if one.within else "beyond the limits"
        attack = [one.attack.percent if one.attack else "–"] if report.original.attack else []
        lines.append(
            (
                "original" if original else one.name,
                one.validation.percent if one.validation else "–",
                one.validation.interval if one.validation else "–",
                f"{one.as_labelled.count} of {one.as_labelled.of}",
                "–" if original else f"{one.no_longer} of {one.counted}",
                "–" if original or one.agreement is None else one.agreement.percent,
                *attack,
                "–" if one.seconds is None else duration(one.seconds),
                remark,
            )
        )
    return lines


def facts(report: RepairReport) -> list[tuple[str, str]]:
    """Return what else a reader wants to know, as terms and texts."""
    samples = report.samples
    mean, std = (", ".join(f"{value:.4g}" for value in each[:4]) for each in report.normalisation)
    found = [
        ("Samples", f"{samples['train']:,} trained on, {samples['bad']:,} known to be bad"),
        (
            "Validation",
            f"{samples['validation']:,} training samples that aren't on the list stand in"
            if report.stands_in
            else f"{samples['validation']:,} samples",
        ),
        ("Before any work", report.sanity.line),
        ("Limits", _limits(report)),
        ("Chosen by", report.selector),
        ("Recipe", listed(report.recipe)),
        ("Normalisation", f"mean {mean}; deviation {std}" if mean else "none"),
        ("Machine", f"{machine(report.environment)}; {versions(report.environment)}"),
    ]
    if report.sanity.fits:
        found.insert(3, ("What would fit better", f"{report.sanity.fits}; tried: {report.sanity.tried}"))
    if samples.get("unreadable"):
        found.insert(1, ("Left out", f"{samples['unreadable']:,} of the images, which can't be read"))
    if report.peak_bytes:
        found.append(("Peak memory", f"{report.peak_bytes / 2**20:,.0f} MiB, data and libraries included"))
    found += [(f"SHA-256 of the {what}", text) for what, text in report.hashes.items()]
    return [*found, ("Command", report.command)] if report.command else found


def _limits(report: RepairReport) -> str:
    loss = f"at most {points(report.limits.max_accuracy_loss)} of validation accuracy lost"
    budget = report.limits.budget_seconds
    return loss if budget is None else f"{loss}, {duration(budget)}"


def page(
    report: RepairReport, suspects: Sequence[Suspect], pictures: Sequence[tuple[str, str]], *, part: bool = False
) -> str:
    """Return the report as an HTML page, or for a notebook the ``part`` of it that goes into a cell."""
    shown = [report.original, *report.candidates]
    names = [name for name in report.classes if any(name in one.classes or name in one.predictions for one in shown)]
    heading, *lines = rows(report)
    return template("repair_part.html.j2" if part else "repair.html.j2").render(
        report=report,
        heading=heading,
        lines=lines,
        facts=facts(report),
        per_class=[(name, [one.classes.get(name) for one in shown]) for name in names],
        predicted=[(name, [one.predictions.get(name, 0) for one in shown]) for name in names],
        shown=["original", *(one.name for one in report.candidates)],
        suspects=suspects[:_SUSPECTS],
        advice=advice_on(report, suspects),
        nobody=NOBODY,
        pictures=pictures,
        version=report.cutk,
        options=_options(report.candidates),
        calibration=report.calibration and shown_as(report.calibration, report.limits.max_accuracy_loss),
    )


def _options(candidates: Sequence[Judged]) -> dict[str, str]:
    return {one.name: listed(one.options) for one in candidates}
