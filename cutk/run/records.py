"""What is known of a computed cell: one schema, from the worker that fills it to the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import core_schema

__all__ = [
    "HISTOGRAM",
    "SCHEMA",
    "Attempt",
    "Attempts",
    "Environment",
    "Failure",
    "Identity",
    "Labels",
    "Measured",
    "Record",
    "Recorded",
    "Role",
    "Run",
    "Scalars",
    "Trained",
    "Unlearned",
    "canonical",
]

# Of ``Run`` as JSON; the first was cutk 0.1's, which had none.
SCHEMA = 2

# How the names of two curves end that are a histogram together.
HISTOGRAM = ("_edges", "_counts")

Role = Literal["original", "gold", "unlearned"]
Scalars = dict[str, list[float | None]]


def canonical(value: Any) -> str:
    """Return JSON in which equal content has equal text.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Recorded(BaseModel):
    """A part of a record, which stays as it is and says the same in the same words."""

    # What a later version of cutk adds is no reason to refuse a record.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @cached_property
    def canonical(self) -> str:
        """Its canonical JSON; that of parts, which thousands of others may share, is made once."""
        parts = {name: value.canonical for name, value in self if isinstance(value, Recorded)}
        texts = {name: canonical(value) for name, value in self.model_dump(mode="json", exclude=set(parts)).items()}
        return "{" + ",".join(f'"{name}":{text}' for name, text in sorted((texts | parts).items())) + "}"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, whose canonical JSON may be another one."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("canonical", None)
        return copied


class Identity(Recorded):
    """A component as it decides a result: who provides it, a hash of its code, and its options.

    There is more than one point of options only where a search goes over them.
    """

    name: str
    provider: str
    source: str = ""
    options: list[dict[str, Any]]


class Trained(Recorded):
    """Everything that decides what a training gives."""

    role: Literal["original", "gold"]
    data: str
    corruption: str
    manipulation: list[Identity]
    model: Identity
    recipe: Identity
    validation_fraction: float
    seed: int
    precision: str
    device: str
    threads: int


class Unlearned(Recorded):
    """Everything that decides what an unlearner gives."""

    original: Trained
    unlearner: Identity
    identification: Identity
    identified: str
    selector: Identity
    alpha: float


class Labels(Recorded):
    r"""What a run is called; ``manipulated`` is \|S_m\|, ``identified`` \|S_f\|. Trainings have no S_f and no α."""

    role: Role
    dataset: str
    manipulation: str
    model: str
    recipe: str
    unlearner: str | None = None
    alpha: float | None = None
    seed: int
    manipulated: int
    identified: int | None = None


class Measured(Recorded):
    """What a reader has to know of a metric; an open end of its bounds is None."""

    name: str
    provider: str = ""
    summary: str = ""
    higher_is_better: bool = True
    bounds: tuple[float | None, float | None] = (0.0, 1.0)
    objective: Literal["", "unlearning", "utility"] = ""

    @property
    def is_fraction(self) -> bool:
        """Whether every value lies between 0 and 1."""
        return self.bounds == (0, 1)


class Environment(Recorded):
    """Where a run was computed.

    ``capability`` is the CPU's instruction set as torch uses it, or the GPU's and what it computes in TF32: float
    results differ from one to the next. Of each distribution that took part, ``providers`` holds the version.
    ``isolated`` says that the method worked in a process that never had what only the evaluator knows.
    """

    torch: str
    python: str
    device: str
    hardware: str
    capability: str = ""
    threads: int
    precision: str
    providers: dict[str, str] = {}
    isolated: bool = False

    @property
    def machine(self) -> tuple[Any, ...]:
        """What two runs must share for their last digits to be comparable."""
        return tuple(self.model_dump(exclude={"providers", "isolated"}).values())


class Attempt(BaseModel):
    """One model, and how it came about: a point of a grid, or a training.

    Attributes:
        error: why there is no model, if there is none; ``traceback`` says where that happened.
        failed_metrics: why there is no value, by the metric's identity.
        options: the unlearner's.
        seconds: wall-clock; for a point of a grid ``prepare`` and ``unlearn``, evaluation excluded.
        passes: samples drawn meanwhile, divided by |S_tr|.
        peak_bytes: the most memory meanwhile, beyond what was in use before.
        score: the selector's value; ``measured_score`` is what it was given.
        metrics: by the metric's identity: a number, several by their labels, or None where the metric means nothing.
        scalars: curves that ``unlearn`` logged.
        state: which of the prepared states it used.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    error: str = ""
    failed_metrics: dict[str, str] = {}
    options: dict[str, Any] = {}
    seconds: float | None = None
    passes: float | None = None
    peak_bytes: int | None = None
    score: float | None = None
    measured_score: dict[str, float | None] = {}
    metrics: dict[str, float | dict[str, float] | None] = {}
    scalars: Scalars = {}
    state: str = ""
    traceback: str = ""


class Attempts(Sequence[Attempt]):
    """The attempts of a run; one that is given as its JSON is parsed when it is first asked for."""

    def __init__(self, items: Iterable[Attempt | bytes]) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[each] for each in range(len(self))[position]]
        item = self._items[position]
        if isinstance(item, bytes):
            item = self._items[position] = Attempt.model_validate_json(item)
        return item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attempts) and self[:] == other[:]

    def failed(self) -> Iterator[Attempt]:
        """Yield those that lack a model or a metric."""
        for position, item in enumerate(self._items):
            if not (isinstance(item, bytes) and item.startswith(_NOTHING_FAILED)):
                yield self[position]

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def wrapped(value: Any, validate: Callable[[Any], list[Attempt]]) -> Attempts:
            return value if isinstance(value, Attempts) else cls(validate(value))

        def dumped(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
            return [attempt.model_dump(mode="json") for attempt in attempts]

        return core_schema.no_info_wrap_validator_function(
            wrapped,
            handler.generate_schema(list[Attempt]),
            serialization=core_schema.plain_serializer_function_ser_schema(dumped),
        )


# How the JSON of an attempt begins, in the order of its fields.
_NOTHING_FAILED = b'{"error": "", "failed_metrics": {}, '


class Failure(Recorded):
    """Something that gave no number: a cell, a point of a grid whose cell has others, a metric or a summary.

    ``reason`` says why in one line, with the author's own last frame. ``cell`` is a hash of what decides a cell besides
    its components' code, which may be mended.
    """

    what: Literal["cell", "point", "metric", "summary"]
    role: Role
    dataset: str
    manipulation: str
    model: str
    unlearner: str | None = None
    alpha: float | None = None
    seed: int | None = None
    options: dict[str, Any] = {}
    metric: str = ""
    reason: str
    traceback: str = ""
    cell: str = ""


class Record(Labels):
    """One model as people read it: a line of a table, an entry of ``cutk bench --json``.

    ``metrics`` holds values by the metric's name, ``breakdowns`` those of metrics that are several numbers.
    """

    options: dict[str, Any]
    selected: bool
    oracle: bool = False
    selection_score: float | None
    metrics: dict[str, float]
    breakdowns: dict[str, dict[str, float]]
    seconds: float | None
    provider: str
    key: str


class Run(Recorded):
    """A computed cell as it is stored.

    ``key`` is the SHA-256 of ``decided_by``; ``provider`` the unlearner's, or the model's for a training, as pip would
    pin it; ``prepared`` the curves that ``prepare`` logged, for each state; ``measured`` what a reader has to know of
    each metric, by its identity. ``weights_sha256`` and ``weights_bytes`` are of the file beside the record.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    version: int = Field(SCHEMA, alias="schema")
    key: str
    labels: Labels
    decided_by: Unlearned | Trained
    provider: str
    attempts: Attempts
    selected: int = Field(ge=0)
    prepared: dict[str, Scalars] = {}
    measured: dict[str, Measured] = {}
    environment: Environment
    weights_sha256: str = ""
    weights_bytes: int = 0

    @model_validator(mode="after")
    def _selected_is_there(self) -> Run:
        if self.selected >= len(self.attempts):
            raise ValueError(f"attempt {self.selected} is selected, and there are {len(self.attempts)}")
        _ = self.chosen  # which is looked at before any other
        return self

    @property
    def trained(self) -> Trained:
        """What decides the original model behind it, or the gold one."""
        return self.decided_by.original if isinstance(self.decided_by, Unlearned) else self.decided_by

    @property
    def unlearner(self) -> Identity | None:
        """The unlearner, None for the original and gold."""
        return self.decided_by.unlearner if isinstance(self.decided_by, Unlearned) else None

    @property
    def chosen(self) -> Attempt:
        """The attempt that the selector took: the one whose weights are kept."""
        chosen: Attempt = self.attempts[self.selected]
        return chosen

    @property
    def logged(self) -> Scalars:
        """All that was logged on the way to the chosen attempt."""
        return self.prepared.get(self.chosen.state, {}) | self.chosen.scalars

    @property
    def curves(self) -> Scalars:
        """What was logged on the way to the chosen attempt, histograms excluded."""
        return {name: values for name, values in self.logged.items() if not name.endswith(HISTOGRAM)}

    @property
    def parameters(self) -> dict[str, Any]:
        """Its labels, and the options of the recipe and of the chosen point as a plan calls them: ``ssd.dampening``."""
        labels = {name: value for name, value in self.labels.model_dump().items() if value is not None}
        recipe = {f"{self.labels.recipe}.{name}": value for name, value in self.trained.recipe.options[0].items()}
        return labels | recipe | {f"{self.labels.unlearner}.{name}": v for name, v in self.chosen.options.items()}

    @property
    def record(self) -> Record:
        """The chosen attempt as people read it, with all that was measured of it."""
        return self.record_of(self.selected, {identity: metric.name for identity, metric in self.measured.items()})

    def record_of(self, position: int, names: dict[str, str], *, oracle: bool = False) -> Record:
        """Return one attempt as people read it, with the metrics of these ``names``, which stand by their identity.

        ``oracle`` says that it is the one that is best on the test set.
        """
        attempt = self.attempts[position]
        there = {name: v for identity, name in names.items() if (v := attempt.metrics.get(identity)) is not None}
        return Record(
            **self.labels.model_dump(),
            options=attempt.options,
            selected=position == self.selected,
            oracle=oracle,
            selection_score=attempt.score,
            metrics={name: value for name, value in there.items() if not isinstance(value, dict)},
            breakdowns={name: value for name, value in there.items() if isinstance(value, dict)},
            seconds=attempt.seconds,
            provider=self.provider,
            key=self.key,
        )

    def failures(self, names: dict[str, str]) -> Iterator[Failure]:
        """Yield what failed inside it: points of the grid, and metrics of these ``names`` of those that came about."""
        labels = self.labels.model_dump(exclude={"recipe", "manipulated", "identified"})
        for attempt in self.attempts.failed():
            here = {**labels, "options": attempt.options}
            if attempt.error:
                yield Failure(what="point", **here, reason=attempt.error, traceback=attempt.traceback)
            for identity, reason in attempt.failed_metrics.items():
                if identity in names:
                    yield Failure(what="metric", **here, metric=names[identity], reason=reason)
