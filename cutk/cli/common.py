"""What several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cutk.cli.messages import warn
from cutk.errors import UsageError

if TYPE_CHECKING:
    from cutk.plugins.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Command", "Group", "load_plugins", "plugin_files", "plugin_option", "setting", "settings"]

# What `--option` takes, in words.
OPTION = "COMPONENT.NAME=VALUE, such as badnet.size=2"


class Command(click.Command):
    """A command that refuses an option of one value that is given several times: click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        given = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args([*args])[2]
        for one in given:
            if isinstance(one, click.Option) and not (one.multiple or one.is_flag) and given.count(one) > 1:
                raise UsageError(f"{max(one.opts, key=len)}: expected once, got it {given.count(one)} times.")
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


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


def plugin_files(ctx: click.Context) -> tuple[Path, ...]:
    """Return the files that ``--plugin`` names, absolute: a method may change the current folder."""
    return tuple(file.expanduser().absolute() for file in ctx.meta.get("cutk.inline", ()))


def load_plugins(ctx: click.Context, *, warnings: bool = True) -> Registry:
    """Load the plugins, those that ``--plugin`` names as well, and say in a line each which ones can't be used."""
    from cutk.plugins.registry import load_registry

    registry = load_registry(inline=ctx.meta.get("cutk.inline", ()))
    for failure in registry.failures if warnings else ():
        warn(f"the plugin {failure.provider} is left out: {failure.reason}")
    for remark in registry.remarks if warnings else ():
        warn(f"the plugin {remark.provider}: {remark.reason}")
    return registry


def setting(text: str, option: str, expected: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``.

    Raises:
        UsageError: if there is no equals sign, or nothing before it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{option}: expected {expected}, got '{text}'.")
    return name.strip(), value.strip()


def settings(texts: Sequence[str], option: str = "--option", expected: str = OPTION) -> dict[str, dict[str, str]]:
    """Split each ``COMPONENT.NAME=VALUE``: the values by component and option.

    Raises:
        UsageError: if a text isn't of this form.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        path, value = setting(text, option, expected)
        component, dot, name = path.rpartition(".")
        if not (dot and component and name):
            raise UsageError(f"{option}: expected {expected}, got '{text}'.")
        found.setdefault(component, {})[name] = value
    return found
