from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import field_validator, model_validator

import cutk
from cutk.options import alternatives, describe_options, parse_options


class Mine(cutk.Options):
    lr: float = cutk.option(0.1, gt=0, help="learning rate")
    steps: int = cutk.option(10, ge=1, le=50, help="steps")
    mode: Literal["fast", "slow"] = cutk.option("fast", help="how")
    count: int | None = cutk.option(None, ge=1, help="how many")
    classes: tuple[str, ...] = cutk.option(("a",), help="which")
    flag: bool = cutk.option(False, help="whether")
    root: Path = cutk.option(Path("x"), help="where")


class Needy(cutk.Options):
    path: str = cutk.option(help="where it is")

    @model_validator(mode="after")
    def not_empty(self):
        if not self.path:
            raise ValueError("path must not be empty")
        return self


def test_options_are_described_in_words():
    words = {info.name: info.expected for info in describe_options(Mine)}
    assert words == {
        "lr": "a number > 0",
        "steps": "an integer ≥ 1 and ≤ 50",
        "mode": "one of 'fast', 'slow'",
        "count": "an integer ≥ 1 or none",
        "classes": "a comma-separated list, each a text",
        "flag": "true or false",
        "root": "a path",
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lr", "0.5", [0.5]),
        ("lr", "1e-3, 1", [0.001, 1.0]),
        ("steps", "7", [7]),
        ("count", "none,3", [None, 3]),
        ("classes", "cat,dog", [("cat", "dog")]),
        ("flag", "true", [True]),
        ("mode", "slow", ["slow"]),
    ],
)
def test_texts_are_read_as_one_value_or_as_alternatives(name, text, expected):
    assert alternatives(Mine, name, text, "mine") == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": "fast"}, "Option 'mine.lr': expected a number > 0, got 'fast'."),
        ({"lr": 0}, "Option 'mine.lr': expected a number > 0, got 0."),
        ({"lr": "nan"}, "Option 'mine.lr': expected a number > 0, got 'nan'."),
        ({"steps": "2.5"}, "Option 'mine.steps': expected an integer ≥ 1 and ≤ 50, got '2.5'."),
        ({"steps": "1,2"}, "Option 'mine.steps': expected an integer ≥ 1 and ≤ 50, got '1,2'."),
        ({"mode": "medium"}, "Option 'mine.mode': expected one of 'fast', 'slow', got 'medium'."),
        (
            {"step": "3"},
            "Unknown option 'mine.step'. Expected one of: lr, steps, mode, count, classes, flag, root. "
            "Did you mean 'steps'?",
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected_and_what_came(values, message):
    with pytest.raises(cutk.UsageError) as error:
        parse_options(Mine, values, "mine")
    assert str(error.value) == message


def test_a_comma_is_part_of_a_single_text():
    assert parse_options(Mine, {"root": "a,b.npz", "classes": "cat,dog"}, "mine").root == Path("a,b.npz")
    assert alternatives(Mine, "root", "a,b", "mine") == [Path("a"), Path("b")]


@pytest.mark.parametrize("value", [10**5000, "9" * 5000, ["x" * 5000], "\ud800"], ids=["int", "text", "list", "lone"])
def test_whatever_came_is_said_in_a_line(value):
    with pytest.raises(cutk.UsageError, match=r"Option 'mine.steps': expected an integer") as error:
        parse_options(Mine, {"steps": value}, "mine")
    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


def test_a_missing_option_says_how_to_give_it():
    with pytest.raises(cutk.UsageError, match=r"'needy.path' is required: a text \(where it is\). Give it with -o"):
        parse_options(Needy, {}, "needy")


def test_a_rule_across_options_is_one_line():
    with pytest.raises(cutk.UsageError, match=r"^Options of 'needy': path must not be empty\.$"):
        parse_options(Needy, {"path": ""}, "needy")


class Even(cutk.Options):
    steps: int = cutk.option(2, help="steps")

    @field_validator("steps")
    @classmethod
    def must_be_even(cls, value):
        if value % 2:
            raise ValueError("steps must be even")
        return value


def test_a_rule_of_one_option_names_it():
    with pytest.raises(cutk.UsageError, match=r"^Option 'paired.steps': steps must be even\.$"):
        parse_options(Even, {"steps": 3}, "paired")


def test_no_options_is_said_so():
    with pytest.raises(cutk.UsageError, match="none takes no options"):
        parse_options(cutk.Options, {"x": 1}, "none")


def test_options_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Mine().lr = 3
