"""Options of components and recipes: declared once, validated in one place, described in one wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from cutk.errors import UsageError, shortened, suggestion


class Options(BaseModel):
    """Base class of a component's options: immutable, and unknown names are refused.

    >>> class Mine(Options):
    ...     steps: int = option(100, ge=1, help="ascent steps")
    >>> Mine(steps=3).steps
    3
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def option(default: Any = PydanticUndefined, *, help: str, **constraints: Any) -> Any:  # noqa: A002
    """Declare one option; without a default it must be given. ``constraints`` are pydantic's, such as ``ge``."""
    return Field(default, description=help, **constraints)


@dataclass(frozen=True)
class OptionInfo:
    """One option as a person reads it."""

    name: str
    expected: str
    default: Any
    required: bool
    help: str


_TYPES = {"number": "a number", "integer": "an integer", "boolean": "true or false", "string": "a text"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_BOUNDS |= {"multipleOf": "divisible by"}


def in_words(schema: Mapping[str, Any]) -> str:
    """Put a JSON schema into words: ``a number > 0``, ``one of 'a', 'b'``, ``an integer ≥ 1 or none``."""
    if "anyOf" in schema:
        return " or ".join(in_words(part) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"'{value}'" for value in schema["enum"])
    if "const" in schema:
        return f"'{schema['const']}'"
    kind = schema.get("type")
    if kind == "null":
        return "none"
    if kind == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        length = f" of {schema['minItems']}" if schema.get("minItems") and "prefixItems" in schema else ""
        return f"a comma-separated list{length}, each {in_words(items)}"
    words = "a path" if schema.get("format") == "path" else _TYPES.get(str(kind), "a value")
    bounds = " and ".join(f"{sign} {schema[key]}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{words} {bounds}".strip()


def describe_options(cls: type[Options]) -> list[OptionInfo]:
    """List the options of ``cls`` in the order in which they are declared."""
    properties = cls.model_json_schema()["properties"] if cls.model_fields else {}
    return [
        OptionInfo(
            name=name,
            expected=in_words(properties[name]),
            default=None if field.is_required() else field.get_default(call_default_factory=True),
            required=field.is_required(),
            help=field.description or "",
        )
        for name, field in cls.model_fields.items()
    ]


def shown(value: Any) -> str:
    """Return ``value`` as it was given, cut where it is too long for a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = f"{type(value).__name__} of great length"
    return shortened(text, 100)


def _info(cls: type[Options], name: str, owner: str) -> OptionInfo:
    known = {info.name: info for info in describe_options(cls)}
    if name not in known:
        expected = f"Expected one of: {', '.join(known)}." if known else f"{owner} takes no options."
        raise UsageError(f"Unknown option '{owner}.{name}'. {expected}{suggestion(name, known)}")
    return known[name]


def _refuse(cls: type[Options], name: str, value: Any, owner: str) -> UsageError:
    expected = _info(cls, name, owner).expected
    return UsageError(f"Option '{owner}.{name}': expected {expected}, got {shown(value)}.")


def alternatives(cls: type[Options], name: str, value: Any, owner: str) -> list[Any]:
    """Return the validated values that ``value`` stands for: one, or several to search over.

    A text, as the command line gives it, is split at commas; a list is a list of alternatives. For an option that is
    a list itself both are one value.

    >>> class Mine(Options):
    ...     lr: float = option(0.1, gt=0, help="learning rate")
    >>> alternatives(Mine, "lr", "0.1,0.2", "mine")
    [0.1, 0.2]
    """
    if "a comma-separated list" in _info(cls, name, owner).expected:
        return [_read(cls, name, value, owner)]
    several = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not several:
        raise _refuse(cls, name, value, owner)
    try:
        return [_read(cls, name, one, owner) for one in several]
    except UsageError:
        raise _refuse(cls, name, value, owner) from None


def _read(cls: type[Options], name: str, value: Any, owner: str) -> Any:
    """Return one validated value; a text is read as the command line's."""
    expected = _info(cls, name, owner).expected
    if isinstance(value, str):
        value = value.strip()
        if value.lower() == "none" and expected.endswith("or none"):
            value = None
        elif "a comma-separated list" in expected:
            value = [part.strip() for part in value.split(",")]
    field = cls.model_fields[name]
    annotated: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(annotated, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        raise _refuse(cls, name, value, owner) from None


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(cls: type[OptionsT], values: Mapping[str, Any], owner: str) -> OptionsT:
    """Validate ``values`` into ``cls``; a text is read as the command line's, and errors say ``owner.option``."""
    single = {name: _read(cls, name, value, owner) for name, value in values.items()}
    try:
        return cls(**single)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            info = _info(cls, str(first["loc"][0]), owner)
            option = f"{owner}.{info.name}"
            raise UsageError(
                f"Option '{option}' is required: {info.expected} ({info.help}). Give it with -o {option}=…"
            ) from None
        about = f"Option '{owner}.{first['loc'][0]}'" if first["loc"] else f"Options of '{owner}'"
        raise UsageError(f"{about}: {first['msg'].removeprefix('Value error, ')}.") from None
