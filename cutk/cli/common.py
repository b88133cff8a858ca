"""What several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cutk.plugins.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["complete", "load_plugins", "plugin_option"]


def _remember(ctx: click.Context, _parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    ctx.meta["cutk.inline"] = files


def plugin_option(function: F) -> F:
    """Give a command the option ``--plugin``; ``load_plugins`` then finds what it names."""
    return click.option(
        "--plugin",
        multiple=True,
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_remember,
        metavar="FILE",
        help="Use the components in this Python file, too; repeatable. See also CUTK_PLUGIN_PATH.",
    )(function)


def complete(kind: str = "") -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes the name of a component of ``kind``, from the entry points' names, loading no plugin."""

    def names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        from cutk.plugins.discovery import entry_point_names

        return [name for name in entry_point_names(kind) if name.startswith(incomplete)]

    return names


def load_plugins(ctx: click.Context, *, warn: bool = True) -> Registry:
    """Load the plugins, those that ``--plugin`` names as well, and say in a line each which ones can't be used."""
    from cutk.plugins.registry import load_registry

    registry = load_registry(inline=ctx.meta.get("cutk.inline", ()))
    for failure in registry.failures if warn else ():
        click.echo(f"Warning: the plugin {failure.provider} is left out: {failure.reason}", err=True)
    for remark in registry.remarks if warn else ():
        click.echo(f"Warning: the plugin {remark.provider}: {remark.reason}", err=True)
    return registry
