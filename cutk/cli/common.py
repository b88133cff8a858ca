"""What several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cutk.cli.messages import warn
from cutk.errors import UsageError

if TYPE_CHECKING:
    from cutk.plugins.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    *("Command", "Group", "load_plugins", "plugin_files", "plugin_option"),
    *("recipe_in", "setting", "settings", "sorted_words"),
]

# What `--option` takes, in words.
OPTION = "COMPONENT.NAME=VALUE, such as badnet.size=2"


class Command(click.Command):
    """A command that refuses an option of one value that is given several times: click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        args = settings_of_models(args) if any(option.name == "option" for option in self.params) else args
        given = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args([*args])[2]
        for one in given:
            if isinstance(one, click.Option) and not (one.multiple or one.is_flag) and given.count(one) > 1:
                raise UsageError(f"{max(one.opts, key=len)}: expected once, got it {given.count(one)} times.")
        return super().parse_args(ctx, args)


def settings_of_models(args: Sequence[str]) -> list[str]:
    """Return arguments with what follows a model's name as the option ``-o`` says it.

    >>> settings_of_models(["--model", "torchvision:resnet18", "weights=a.pt", "-u", "ssd"])
    ['--model', 'torchvision:resnet18', '-o', 'torchvision.weights=a.pt', '-u', 'ssd']
    """
    found: list[str] = []
    family = last = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if family and equals and name.isidentifier():
            found += ["-o", f"{family}.{arg}"]
            continue
        model = arg if last == "--model" else value if name == "--model" else ""
        family, last = model.partition(":")[0], arg
        found.append(arg)
    return found


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


def sorted_words(options: Mapping[str, Any], command: str) -> tuple[list[str], list[str]]:
    """Return the plain arguments that belong to ``--recipe``, and those that belong to ``--option``.

    ``--recipe steps=10 lr=0.1``: what follows the first setting arrives as a plain argument.

    Raises:
        UsageError: if there are some, and no such option before them.
    """
    more = [text for text in options["more"] if "." not in text.partition("=")[0]]
    more_options = [text for text in options["more"] if text not in more]
    if (more and not options["recipe"]) or (more_options and not options["option"]):
        raise UsageError(f"Unexpected argument '{options['more'][0]}'. See: cutk {command} --help")
    return more, more_options


def recipe_in(given: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Read ``--recipe NAME key=value …``, of which the name may be left out.

    ``words`` are the arguments that follow the first one: click hands them over by themselves.
    """
    named = [text for text in given if text and "=" not in text]
    if len(set(named)) > 1:
        raise UsageError(f"--recipe: expected the name of one recipe, got {' and '.join(map(repr, named))}.")
    expected = "NAME, NAME=VALUE or both, such as steps=500"
    found = dict(setting(text, "--recipe", expected) for text in [*given, *words] if text not in named)
    return {**found, **({"name": named[0]} if named else {})}


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
