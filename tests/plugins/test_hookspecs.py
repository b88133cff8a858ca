from __future__ import annotations

import pytest

from cutk.kinds import KINDS
from cutk.plugins import hookspecs
from cutk.plugins.checks import problem_with


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_a_hook_whose_example_works(kind):
    docstring = getattr(hookspecs, kind.hook).__doc__
    code = docstring.partition("Example::\n")[2]
    indented = [line for line in code.splitlines() if line.strip()]
    depth = len(indented[0]) - len(indented[0].lstrip())
    namespace: dict[str, object] = {"__name__": f"example_of_{kind.name}"}
    exec("\n".join(line[depth:] for line in code.splitlines()), namespace)  # noqa: S102
    (component,) = namespace[kind.hook]()
    assert problem_with(component, kind.name) is None
