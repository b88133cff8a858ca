"""The kinds of components, declared once: the command line, hooks, checks and plans follow from this table.

It imports nothing, so that help and completion can read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutk.components import Component


@dataclass(frozen=True)
class Kind:
    """A kind of component, whose base class is in the module ``home``; a benchmark takes one of it or ``several``.

    ``cutk bench`` asks for one by ``--NAME`` or ``flag``, or by ``short``; some share the option of another kind.
    """

    name: str
    plural: str
    several: bool = False
    home: str = "cutk.components"
    flag: str = ""
    short: str = ""
    help: str = ""

    @property
    def base(self) -> type[Component]:
        """Its base class, imported when it is first asked for."""
        found: type[Component] = getattr(import_module(self.home), self.name.capitalize())
        return found

    @property
    def hook(self) -> str:
        """The hook that provides components of it."""
        return f"cutk_{self.plural}"

    @property
    def option(self) -> str:
        """The option of ``cutk bench`` that names one."""
        return self.flag or f"--{self.name}"


# A new kind is one line here, its base class, its checks in testing/PLURAL.py and its template for `cutk plugins new`.
# Recipes need torch: their base class is with the training loop.
_TABLE = (
    Kind("dataset", "datasets", short="-d", help="Data to train on"),
    Kind("manipulation", "manipulations", several=True, short="-m", help="What goes wrong with the data"),
    Kind("identification", "identifications", help="How samples are found: who is in S_f"),
    Kind("model", "models", help="Network; by default the one that suits the dataset"),
    Kind("recipe", "recipes", home="cutk.learning.recipe", help="How models are trained"),
    Kind("unlearner", "unlearners", several=True, short="-u", help="Method to measure, or 'all'"),
    Kind("detector", "detectors", help="Who finds more of S_m before each unlearner begins"),
    Kind("selector", "selectors", flag="--select", help="Rule that chooses among the points of a grid"),
    Kind("metric", "metrics", several=True, help="Measure this, too"),
    Kind("summary", "summaries", several=True, flag="--metric"),
    Kind("executor", "executors", home="cutk.run.executor", help="Where cells are computed"),
    Kind("observer", "observers", several=True, home="cutk.run.observer", help="Is told how it goes, too"),
)
KINDS = {kind.name: kind for kind in _TABLE}
KIND_NAMES = tuple(KINDS)


def asked_as(name: str) -> list[Kind]:
    """Return the kinds whose components are asked for as ``name``: itself, and those that share its option.

    >>> [kind.name for kind in asked_as("metric")]
    ['metric', 'summary']
    """
    return [KINDS[name], *(kind for kind in KINDS.values() if kind.flag == KINDS[name].option and kind.name != name)]
