"""Turn the docstrings' plain text into the Markdown that the site is made of; an extension of griffe.

Four things are written in the code as people read them there, and shown on the site as what they are: doctests and the
blocks after ``::`` as code, an option's help as its description, and the remark behind a field as the attribute's.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

import griffe

_BLOCK = re.compile(r"^(?P<before>.*):: *\n\n(?P<code>(?:    .*\n|\n)+)", flags=re.MULTILINE)
_FIELD = re.compile(r"^    (?P<name>\w+): .*?  # (?:type: ignore\S*  # )?(?P<remark>.*)$")
_DOCTEST = re.compile(r"^>>> .*\n(?:(?!\n).+\n)*", flags=re.MULTILINE)


def _block(match: re.Match[str]) -> str:
    code = textwrap.dedent(match["code"]).strip("\n")
    language = "toml" if code.startswith("[") else "console" if code.startswith("cutk ") else "python"
    return f"{match['before']}:\n\n```{language}\n{code}\n```\n\n"


def markdown(text: str) -> str:
    r"""Return a docstring with its literal blocks and doctests as fenced code.

    >>> print(markdown("Say so::\n\n    import cutk"))
    Say so:
    <BLANKLINE>
    ```python
    import cutk
    ```
    """
    text = _BLOCK.sub(_block, text + "\n")
    return _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}```\n", text).rstrip("\n")


def _quoted(remark: str) -> str:
    return re.sub(r"\[[^]]*\]", r"`\g<0>`", remark)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def attributes(lines: list[str]) -> str:
    """Return the section of a docstring that describes a class's fields by the remarks behind them; empty if none.

    >>> attributes(["class A:", "    x: int = 3  # how many [n]", "    y: int"]).splitlines()
    ['Attributes:', '    x: how many `[n]`.']
    """
    fields = [match.groups() for line in lines if (match := _FIELD.match(line))]
    described = [f"    {name}: {_quoted(remark)}." for name, remark in fields]
    return "\n".join(["Attributes:", *described]) if fields else ""


class Docstrings(griffe.Extension):
    """What griffe calls for every object that it reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            parts = [markdown(obj.docstring.value), attributes(obj.lines) if obj.is_class else ""]
            obj.docstring.value = "\n\n".join(filter(None, parts))

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Describe an option by the help that it is declared with, and show its default."""
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) in ("option", "cutk.option"):
            keywords = {a.name: a.value for a in call.arguments if isinstance(a, griffe.ExprKeyword)}
            positional = [a for a in call.arguments if not isinstance(a, griffe.ExprKeyword)]
            attr.docstring = griffe.Docstring(_sentence(ast.literal_eval(str(keywords["help"]))), parent=attr)
            attr.value = positional[0] if positional else None
