"""What a plugin can provide.

Every hook is a plural noun without arguments and returns component classes: ``cutk_unlearners``, say. A plugin is a
module with one or more hook implementations, named in the entry-point group ``cutk`` of its distribution::

    [project.entry-points.cutk]
    neggrad = "my_package.neggrad"

or a file that is named with ``--plugin FILE`` or in ``CUTK_PLUGIN_PATH``. A plugin may say which ``API_VERSION`` it is
written for, as ``CUTK_API = "2.0"``; a cutk that hasn't as much says so instead of failing later. The documents have an
example of each hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pluggy

from cutk.kinds import KINDS, Kind

PROJECT = "cutk"
# Of what plugins build on: the hooks, the base classes, and what they are handed. The first number changes when a
# plugin may have to, the second when there is more to use.
API_VERSION = "2.1"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def _hook(kind: Kind) -> Callable[[], Sequence[type[Any]]]:
    def provide() -> Sequence[type[Any]]:
        raise NotImplementedError(f"{kind.hook} is a specification")

    provide.__name__ = provide.__qualname__ = kind.hook
    provide.__doc__ = f"Provide {kind.plural}: a list of subclasses of ``cutk.{kind.name.capitalize()}``."
    return hookspec(provide)


globals().update({kind.hook: _hook(kind) for kind in KINDS.values()})


@hookspec
def cutk_presets() -> Sequence[Path]:
    """Provide folders of plans: ``<folder>/a/b.toml`` is the preset ``a/b``."""
    raise NotImplementedError("cutk_presets is a specification")
