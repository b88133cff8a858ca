"""Whatever a user hands in works, or is refused in one line."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def load(name):
    """Return a module beside this one, which no package holds."""
    spec = importlib.util.spec_from_file_location(f"cutk_test_{name}", Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parsers = load("parsers")
SEEDS = parsers.seeds()
TOML = [b"[", b"]", b"=", b'"', b"\n", b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 400, b"true", b"1979-05-27", b"{}"]
PIECES = [*TOML, b",", b".", b":", b"+", b"\x00", b"\xff", b"\xed\xa0\x80", b"\x1b[31m", b"none", b"null", b"random:0"]
WORDS = sorted({*parsers.Plan.model_fields, *(entry.name for entry in parsers.REGISTRY.entries)})


@st.composite
def changed(draw, seeds):
    """Something sound, of which pieces are cut, doubled or replaced."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 12))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8), st.sampled_from(WORDS).map(str.encode)))
        content = content[:start] + draw(st.sampled_from([piece, b"", content[start:end] * 2])) + content[end:]
    return content


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_what_is_nearly_sound_works_or_is_one_line(name):
    @given(changed(SEEDS[name]))
    @settings(max_examples=20 if name == "plan" else 60)
    def hand_in(content):
        with tempfile.TemporaryDirectory() as folder:
            parsers.hand_in(name, content, folder)

    hand_in()


SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS)),
    st.sampled_from([2**63, -1, 0, 1, 10**400, "0.5", "1,2", "none", "all", "random:3", "a+b", "badnet+badnet"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*parsers.Plan.model_fields, "base", "metric"]), VALUES, max_size=4))
@settings(max_examples=200)
def test_plans_of_whatever_entries_work_or_are_one_line(entries):
    with tempfile.TemporaryDirectory() as folder:
        parsers.hand_in("entries", json.dumps(entries).encode(), folder)


OPTIONS = sorted(
    f"{entry.name}.{option}"
    for entry in parsers.REGISTRY.entries
    for option in getattr(getattr(entry.component, "Options", None), "model_fields", ())
)


@given(st.sampled_from(OPTIONS), SCALARS | st.lists(SCALARS, max_size=3))
@settings(max_examples=200)
def test_every_option_takes_a_value_or_refuses_it_in_one_line(option, value):
    text = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    owner, _, name = option.rpartition(".")
    entry = next(entry for entry in parsers.REGISTRY.entries if entry.name == owner)
    for given_value in (value, text):
        try:
            parsers.cutk.options.parse_options(entry.component.Options, {name: given_value}, owner)
            parsers.cutk.options.alternatives(entry.component.Options, name, given_value, owner)
        except parsers.cutk.UsageError as error:
            parsers.one_line(error)


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_what_is_sound_is_taken(name, tmp_path):
    """So that the tests above don't test refusals alone."""
    if name in ("record", "forged"):
        pytest.skip("it tells by itself")
    assert any(parsers.hand_in(name, content, tmp_path) for content in SEEDS[name])
