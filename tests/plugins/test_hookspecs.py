from __future__ import annotations

import re
from pathlib import Path

import pytest

from cutk.kinds import KINDS
from cutk.plugins import hookspecs
from cutk.plugins.checks import problem_with
from cutk.testing import examine

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_a_hook_and_an_example_that_holds_what_is_checked(kind, tmp_path, monkeypatch):
    assert kind.plural in getattr(hookspecs, kind.hook).__doc__
    (code,) = re.findall(rf"^## `{kind.hook}`.*?```python\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": f"example_of_{kind.name}"}
    exec(code, namespace)  # noqa: S102
    (component,) = namespace[kind.hook]()
    assert problem_with(component, kind.name) is None
    monkeypatch.chdir(tmp_path)  # where an observer may write
    assert [finding for finding in examine(component) if finding.passed is False] == []
