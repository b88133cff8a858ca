"""What to run: a plan as people write it, and plans that are laid over each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from cutk.errors import UsageError, one_line, suggestion
from cutk.learning.recipe import RecipeOptions
from cutk.options import in_words
from cutk.plugins.registry import Registry

__all__ = ["Plan", "layer", "over_default", "read_preset", "require_types"]

BASE_PRESET = "default"
MOST_SEEDS = 100_000


class Plan(BaseModel):
    """A benchmark as people write it, on the command line or in a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    summary: str = Field("", description="what this plan is for")
    dataset: str
    manipulations: tuple[str, ...] = Field(min_length=1, description="several at once are joined by +")
    identification: str
    model: str = Field("", description="the dataset's own suggestion if empty")
    unlearners: tuple[str, ...] = Field(min_length=1)
    detector: str = Field("", description="who finds more of S_m before each unlearner begins; nobody if empty")
    select: str = Field(description="the rule that chooses among the points of a grid")
    metrics: tuple[str, ...] = Field(min_length=1)
    summaries: tuple[str, ...] = ()
    # Whether they are numbers at all is asked below, with the other limits of α.
    alphas: tuple[Annotated[float, Field(allow_inf_nan=True)], ...] = Field(min_length=1)
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] | tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        description="how many, counted from 0, or which"
    )
    search: str = Field("grid", description="grid, default, or random:N for N points of the grid")
    evaluate: Literal["selected", "all"] = "selected"
    oracle: bool = False
    validation_fraction: float = Field(0.05, ge=0, lt=1)
    device: str = "auto"
    precision: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field("auto", description="of each worker")
    isolate: bool = Field(False, description="whether methods work in processes that never had the truth")
    executor: str = Field(description="where cells are computed")
    observers: tuple[str, ...] = ()
    recipe: dict[str, Any] = Field({}, description="its name, and its options")
    options: dict[str, dict[str, Any]] = {}
    suggests: dict[str, dict[str, Any]] = Field({}, description="options of components that it may be asked to use")

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Plan:
        """Validate a plan; a ``UsageError`` names the entry, what was expected and what came."""
        for name in content:
            if name not in cls.model_fields:
                raise UsageError(
                    f"Unknown entry '{name}' in the plan. Expected one of: {', '.join(cls.model_fields)}."
                    f"{suggestion(name, cls.model_fields)}"
                )
        try:
            plan = cls(**content)
        except ValidationError as error:
            raise _refused(error.errors()[0], content) from None
        if not re.fullmatch(r"grid|default|random:[1-9]\d*", plan.search):
            raise UsageError(
                f"Search: expected grid, default, or random:N with N ≥ 1, such as random:20, got '{plan.search}'."
            )
        if plan.seeds == ():
            raise UsageError("Seeds: expected a number of seeds, or at least one of them, got none.")
        for alpha in plan.alphas:
            if not 0 < alpha <= 1:
                raise UsageError(f"Alpha: expected a fraction above 0 and at most 1, got {alpha!r}.")
        # Which point is best on the test set can only be told once every one of them has been measured.
        return plan.model_copy(update={"evaluate": "all"}) if plan.oracle else plan

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, each once."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(dict.fromkeys(self.seeds))


def _refused(error: ErrorDetails, content: Mapping[str, Any]) -> UsageError:
    if not error["loc"]:  # a name that is no text
        return UsageError(f"Expected names of plan entries as text, got {error['input']!a}.")
    name = str(error["loc"][0])
    words = in_words(Plan.model_json_schema()["properties"][name]).replace("a comma-separated list", "a list")
    expected = "a table" if words == "a value" else words
    came = "nothing" if error["type"] == "missing" else repr(content[name])
    return UsageError(f"Plan entry '{name}': expected {expected}, got {came}.")


def require_types(content: Mapping[str, Any]) -> None:
    """Refuse an entry of the wrong type with a ``UsageError``, before ``content`` is laid over another plan.

    What it lacks, or has in excess, is no matter yet.
    """
    try:
        Plan(**content)
    except ValidationError as error:
        for each in error.errors():
            if each["type"] not in ("missing", "extra_forbidden"):
                raise _refused(each, content) from None


def _read_plan(name: str, registry: Registry) -> tuple[dict[str, Any], Path]:
    preset = registry.presets.get(name)
    if preset is None and not name.endswith(".toml"):
        raise UsageError(
            f"Unknown preset '{name}'.{suggestion(name, registry.presets)} See: cutk presets list. "
            "A plan of your own ends in .toml."
        )
    path = preset.path if preset else Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    # Numbers of thousands of digits and tables nested as deep are no TOML error, but no plan either.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Plan '{path}' cannot be read: {one_line(error).rstrip('.')}.") from None
    require_types(content)
    return content, path


def read_preset(name: str, registry: Registry) -> dict[str, Any]:
    """Read the plan called ``name``: a preset of a plugin, or the path of a TOML file.

    A plan that says ``base = "NAME"`` is laid over that one. Where that is a file, it is looked for beside the plan.

    Raises:
        UsageError: if there is neither, it can't be read, or a plan is its own base.
    """
    layers: list[dict[str, Any]] = []
    read: dict[Path, str] = {}
    while name:
        content, path = _read_plan(name, registry)
        if (file := path.resolve()) in read:
            raise UsageError(f"Plan '{name}' is its own base, by way of: {' → '.join([*read.values(), name])}.")
        read[file] = name
        base = content.pop("base", "")
        if not isinstance(base, str):
            raise UsageError(f"Plan '{name}': expected base to be the name of a plan, got {base!r}.")
        beside = base.endswith(".toml") and base not in registry.presets
        name = str(path.parent / base) if beside else base
        layers.append(content)
    result: dict[str, Any] = {}
    for content in reversed(layers):
        result = layer(result, content)
    return result


def over_default(content: Mapping[str, Any] | str | None, registry: Registry) -> dict[str, Any]:
    """Return the preset ``default`` with a plan laid over it: what that doesn't say comes from there.

    ``content`` is the plan, or the name of a preset or of a TOML file. Raises as ``read_preset`` does.
    """
    base = read_preset(BASE_PRESET, registry)
    if content is None:
        return base
    if isinstance(content, str):
        return layer(base, read_preset(content, registry))
    require_types(content)
    return layer(base, content)


def _selected(content: Mapping[str, Any]) -> set[str]:
    ones = ("dataset", "model", "identification", "detector", "select", "executor")
    names = {content.get(one, "") for one in ones}
    names.add(content.get("recipe", {}).get("name", ""))
    for manipulation in content.get("manipulations", ()):
        names.update(str(manipulation).split("+"))
    for unlearner in content.get("unlearners", ()):
        names.update(str(unlearner).split("+"))
    return names.union(*(content.get(many, ()) for many in ("unlearners", "metrics", "summaries", "observers")))


# What of a recipe suits another one, too.
_ANY_RECIPE = frozenset(RecipeOptions.model_fields) - {"lr"}


def _takes(name: str, selected: Iterable[str]) -> bool:
    """Say whether options for ``name`` are meant for one of those selected: it, or a variant of it."""
    return any(each == name or str(each).startswith(f"{name}:") for each in selected)


def layer(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the entries of ``over``; recipe, options and suggestions are merged name by name.

    Options for a component that ``base`` selects and the result doesn't go with it. Of what was meant for another
    recipe, what is common to all stays.

    >>> layer({"model": "a", "options": {"a": {"x": 1}}}, {"model": "b"})
    {'model': 'b', 'options': {}}
    """
    result = {**base, **over}
    if "recipe" in result:
        mine, theirs = base.get("recipe", {}), over.get("recipe", {})
        if theirs.get("name", mine.get("name")) != mine.get("name"):
            mine = {name: value for name, value in mine.items() if name in _ANY_RECIPE}
        result["recipe"] = {**mine, **theirs}
    if "options" in result:
        before, now = _selected(base), _selected(result)
        kept = {
            name: values
            for name, values in base.get("options", {}).items()
            if _takes(name, now) or not _takes(name, before)
        }
        result["options"] = _by_name(kept, over.get("options", {}))
    if "suggests" in result:
        result["suggests"] = _by_name(base.get("suggests", {}), over.get("suggests", {}))
    return result


def _by_name(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``base`` says of each component, with what ``over`` says of it."""
    return {**base, **{name: {**base.get(name, {}), **values} for name, values in over.items()}}
