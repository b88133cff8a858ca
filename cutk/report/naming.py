"""Names: made distinct by what differs, and sorted as people count."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from cutk.run.records import Identity

Key = TypeVar("Key", bound=Hashable)

# Ends of traits that say less to a person than the others.
_SAY_LESS = ("points", "provider", "source", "data")


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Return a key that sorts numbers within a text by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return tuple((0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts) if part)


def slug(text: str) -> str:
    """Return ``text`` as a part of file names and addresses.

    >>> slug("ssd [selection_weight=0.5]")
    'ssd-selection_weight-0.5'
    """
    return re.sub(r"[^\w.]+", "-", text, flags=re.ASCII)[:80].strip("-.").lower() or "unnamed"


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Return a slug for each name, numbered where two would be the same."""
    result: dict[str, str] = {}
    for name in names:
        base, number = slug(name), 1
        while (text := base if number == 1 else f"{base}-{number}") in result.values():
            number += 1
        result[name] = text
    return result


def compact(value: Any) -> str:
    """Return an option's value as people write it.

    >>> compact([1, 2.50]), compact(None), compact(1e-05)
    ('1,2.5', 'none', '1e-05')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(compact, value)) if isinstance(value, list | tuple) else str(value)


def listed(options: Mapping[str, Any]) -> str:
    """Return options in a row: ``steps=20, lr=0.1``."""
    return ", ".join(f"{name}={compact(value)}" for name, value in options.items())


def with_options(identity: Identity) -> str:
    """Return the choice of a component in words: ``name (option=value)``."""
    options = listed(identity.options[0]) if identity.options else ""
    return f"{identity.name} ({options})" if options else identity.name


def traits_of(identity: Identity, prefix: str = "") -> dict[str, str]:
    """Return in what two choices of one component may differ: each option's values, how many points, and whose."""
    traits: dict[str, str] = {}
    for name in dict.fromkeys(name for point in identity.options for name in point):
        values = [textwrap.shorten(compact(point.get(name)), 24, placeholder="…") for point in identity.options]
        texts = list(dict.fromkeys(values))
        traits[name] = "|".join(texts) if len(texts) <= 3 else f"{texts[0]}…{texts[-1]} ({len(texts)})"
    whose = {"points": str(len(identity.options)), "provider": identity.provider, "source": identity.source[:6]}
    return {prefix + name: text for name, text in {**traits, **whose}.items()}


def distinct(names: Mapping[Key, str], traits: Mapping[Key, Mapping[str, str]]) -> dict[Key, str]:
    """Return a name for each key that no other key has, by the traits in which those of one name differ.

    >>> distinct({1: "ssd", 2: "ssd", 3: "cf"}, {1: {"weight": "1"}, 2: {"weight": "10"}, 3: {}})
    {1: 'ssd [weight=1]', 2: 'ssd [weight=10]', 3: 'cf'}
    """
    result: dict[Key, str] = {}
    taken: Counter[str] = Counter()
    for key, name in names.items():
        alike = [traits[other] for other, its_name in names.items() if its_name == name]
        known = dict.fromkeys(trait for one in alike for trait in one)
        differing = [trait for trait in known if len({one.get(trait) for one in alike}) > 1]
        later = [trait for trait in differing if trait.endswith(_SAY_LESS)]
        shown = [trait for trait in differing if trait not in later]
        while later and len({tuple(one.get(trait) for trait in shown) for one in alike}) < len(alike):
            shown.append(later.pop(0))
        text = ", ".join(f"{trait}={traits[key][trait]}" for trait in shown if trait in traits[key])
        full = f"{name} [{text}]" if text else name
        taken[full] += 1
        # Where nothing that people wrote differs (say, two orders of one grid), a number has to do.
        result[key] = full if taken[full] == 1 else f"{full} #{taken[full]}"
    return result


def duration(seconds: float) -> str:
    """Return a length of time as people say it.

    >>> duration(0.04), duration(90), duration(5000), duration(400000)
    ('0.04 s', '1.5 min', '1.4 h', '4.6 days')
    """
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"
