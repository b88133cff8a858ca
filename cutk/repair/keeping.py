"""Candidates that are finished, kept until the repair is: what an interrupted one goes on from."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from torch import nn

from cutk.components import Score
from cutk.data.samples import raw
from cutk.problem.task import Suspicion
from cutk.repair.judging import Seen, seen
from cutk.repair.records import Judged
from cutk.repair.writing import why_unwritten
from cutk.run.files import (
    RECORD,
    WEIGHTS,
    Damaged,
    Unreadable,
    load_weights,
    own_name,
    parse_record,
    write_record,
    write_weights,
)
from cutk.run.keys import key_of

if TYPE_CHECKING:
    from cutk.repair.problem import Methods, Problem
    from cutk.run.chosen import Chosen

__all__ = ["Candidate", "Kept"]

_SUSPICION = "suspicion.safetensors"


@dataclass
class Candidate:
    """What a method makes of the original, what that says of the samples, and what the selector is told of it."""

    judged: Judged
    model: nn.Module
    says: Seen
    score: Score
    suspicion: Suspicion | None = None  # of the method, if it said so


class _Written(BaseModel):
    """A candidate as it is kept; its weights lie beside it, and what it suspects."""

    judged: Judged
    score: dict[str, float | None]
    weights_sha256: str
    suspicion_sha256: str | None = None
    probabilistic: bool = True


class Kept:
    """A folder of finished candidates: each lies in a folder that is called by a hash of all that decides it.

    One that is there is there wholly: it is written elsewhere and moved to its place. Without a folder nothing is kept.
    What can't be kept is told to ``warn``.
    """

    def __init__(self, folder: Path | None = None, warn: Callable[[str], None] = lambda _text: None) -> None:
        self.folder, self._warn = folder, warn
        self.found = 0  # how many candidates were read instead of made

    def opened(self, problem: Problem, methods: Methods) -> list[str]:
        """Say whose candidates, and return which methods' are there."""
        self._problem, self._methods = problem, methods
        return [one.name for one in methods.unlearners if self.folder is not None and self._place(one).is_dir()]

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What decides a candidate beside its method; what the original says of the samples stands for these."""
        from cutk import __version__

        problem, methods = self._problem, self._methods
        task, digest = problem.task, hashlib.sha256()
        for name, value in task.original.state_dict().items():
            digest.update(name.encode())
            digest.update(raw(value))
        says = [problem.says.train.of_label, problem.says.train.predicted, task.train.labels, task.identified]
        says += [] if problem.says.validation is None else [problem.says.validation]
        says += [] if task.validation is None else [task.validation.labels]
        for tensor in says:
            digest.update(raw(tensor))
        return {
            "cutk": __version__,
            "problem": digest.hexdigest(),
            "recipe": [
                problem.recipe.name,
                problem.recipe.options.model_dump(mode="json"),
                methods.recipe.identity.source,
            ],
            "selector": methods.selector.identity.model_dump(mode="json"),
            "max_accuracy_loss": methods.limits.max_accuracy_loss,
            "machine": [str(methods.device), methods.precision, torch.get_num_threads()],
            "seed": methods.seed,
        }

    def _place(self, chosen: Chosen) -> Path:
        key = key_of({**self._about, "unlearner": chosen.identity.model_dump(mode="json")})
        return (self.folder or Path()) / key

    def candidate(self, chosen: Chosen, make: Callable[[], Candidate]) -> Candidate:
        """Return a method's candidate as it was kept, or ``make`` it and keep it, if its whole grid was tried."""
        if self.folder is None:
            return make()
        place = self._place(chosen)
        with contextlib.suppress(FileNotFoundError, Damaged, Unreadable, OSError):
            return self._read(place)
        one = make()
        if not one.judged.left_out:
            try:
                self._write(place, one)
            except (OSError, SafetensorError) as error:  # a full disk is no reason to stop
                why = why_unwritten(error, self.folder.parent)
                self._warn(f"{chosen.name} isn't kept in '{self.folder}' ({why}), and is lost if this is interrupted")
        return one

    def _read(self, place: Path) -> Candidate:
        written = parse_record(place / RECORD, _Written)
        model = copy.deepcopy(self._problem.task.original)
        model.load_state_dict(load_weights(place / WEIGHTS, written.weights_sha256))
        says = seen(model, self._problem.task)
        judged = written.judged.model_copy(update=self._problem.attack(model))
        suspicion = None
        if written.suspicion_sha256 is not None:
            (values,) = load_weights(place / _SUSPICION, written.suspicion_sha256).values()
            suspicion = Suspicion(values, written.probabilistic)
        self.found += 1
        return Candidate(judged, model, says, Score(**written.score), suspicion)

    def _write(self, place: Path, one: Candidate) -> None:
        temporary = place.parent / own_name()
        try:
            temporary.mkdir(parents=True)
            digest, _ = write_weights(temporary / WEIGHTS, one.model.state_dict())
            written = _Written(judged=one.judged, score=asdict(one.score), weights_sha256=digest)
            if one.suspicion is not None:
                values, written.probabilistic = one.suspicion
                written.suspicion_sha256, _ = write_weights(temporary / _SUSPICION, {"suspicion": values})
            write_record(temporary / RECORD, written)
            shutil.rmtree(place, ignore_errors=True)  # a damaged one
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            self._leave_nothing_empty()

    def count(self) -> int:
        """Return how many candidates are there."""
        return len(self._folders())

    def _folders(self) -> list[Path]:
        if self.folder is None or not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)]

    def drop(self) -> None:
        """Remove the candidates, and the folder with them if it holds nothing else."""
        for path in self._folders():
            shutil.rmtree(path, ignore_errors=True)
        self._leave_nothing_empty()

    def _leave_nothing_empty(self) -> None:
        if self.folder is not None:
            with contextlib.suppress(OSError):  # it holds something
                self.folder.rmdir()
