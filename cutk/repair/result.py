"""What ``cutk.unlearn`` returns, and the folder of ``cutk unlearn`` that it writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from cutk.errors import Caught, UsageError
from cutk.repair.bundle.code import code_of
from cutk.repair.bundle.digests import digest_of_tensors
from cutk.repair.bundle.material import Material, entries_of, material_of
from cutk.repair.bundle.writing import require_libraries, write_bundle
from cutk.repair.page import page
from cutk.repair.records import RepairReport, Suspect
from cutk.repair.suspects import as_csv
from cutk.repair.writing import require_free, save_weights, written
from cutk.run.files import apart

if TYPE_CHECKING:
    from cutk.data.given import Given
    from cutk.repair.problem import Methods, Problem

__all__ = ["Repair", "handed_over"]

_MODEL = "model.safetensors"
# How errors about the folder name what is asked for here.
_SPOKEN = {"--out:": "folder:", " with --out DIR": "", " with --out": "", "--force": "force=True"}


@dataclass
class Repair:
    """What ``cutk.unlearn`` returns; a notebook shows its report.

    Attributes:
        model: the repaired model, a copy of the one that was passed in; an unchanged copy where nothing helped.
        report: what was found; ``report.repaired`` says whether anything helped, ``report.verdict`` what.
        suspects: further training samples that look like the bad ones, the most suspicious first.
    """

    model: nn.Module
    report: RepairReport
    suspects: list[Suspect]
    pictures: list[tuple[str, str]]
    _material: Material | str = field(default="nothing is known of it", repr=False)  # of which a bundle is made
    _metadata: dict[str, str] = field(default_factory=dict, repr=False)  # of the weights' file

    def save(self, folder: str | os.PathLike[str], *, bundle: bool = False, force: bool = False) -> None:
        """Write what ``cutk unlearn`` writes: ``model.safetensors`` if it was repaired, the report, the suspects.

        Args:
            folder: is made; it is there wholly or not at all.
            bundle: write evidence beside it, too; needs ``cutk[bundle]``. The dataset is read once more.
            force: replace an earlier repair.

        Raises:
            UsageError: if something else lies there, or it can't be written.
        """
        _save(self, Path(folder).expanduser(), bundle, force)

    def html(self) -> str:
        """Return the report as one self-contained page."""
        return page(self.report, self.suspects, self.pictures)

    def _repr_html_(self) -> str:
        return page(self.report, self.suspects, self.pictures, part=True)


def handed_over(
    model: nn.Module, problem: Problem, methods: Methods, given: Given, held_out: Given | None
) -> Material | str:
    """Return what a bundle needs to know later of what was passed in, or why it can't be told."""
    with Caught() as caught:
        original, code = digest_of_tensors(model.state_dict()), code_of(model, entries_of(methods))
        return material_of(problem, given, held_out, original, code)
    return caught.reason


def _save(repair: Repair, folder: Path, bundle: bool, force: bool) -> None:
    """Write a repair's folder in one step; see ``Repair.save``."""
    try:
        require_free(folder, force)
        if bundle:
            require_libraries("bundle=True")
            if isinstance(repair._material, str):
                raise UsageError(f"bundle=True: what was passed in can't be told: {repair._material}")
        model = repair.model if repair.report.repaired else None

        def write(inside: Path) -> None:
            if model is not None:
                save_weights(inside / _MODEL, apart(model.state_dict()), repair._metadata)
            if bundle and isinstance(repair._material, Material):
                write_bundle(inside, repair._material, repair.report, model, _MODEL)

        texts = {"report.html": repair.html(), "suspects.csv": as_csv(repair.suspects)}
        written(folder, repair.report, texts, write, force=force)
    except UsageError as error:
        text = str(error)
        for option, spoken in _SPOKEN.items():
            text = text.replace(option, spoken)
        raise UsageError(text) from None
