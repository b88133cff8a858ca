"""The command line. Each command's module is imported when that command runs, so that ``--help`` is immediate."""

from __future__ import annotations

import io
import sys
from importlib import import_module

import click

from cutk.cli.logs import log_level_option
from cutk.cli.messages import python_warnings, say, say_error
from cutk.errors import CutkError, UsageError, one_line

__all__ = ["main"]

# Name, module, attribute, and the line that `cutk --help` shows without importing the module.
_COMMANDS = {
    "bench": ("cutk.cli.bench", "bench", "Measure how well unlearners undo a manipulation."),
    "unlearn": ("cutk.cli.unlearn", "unlearn", "Repair a model of your own that was trained on bad samples."),
    "detect": ("cutk.cli.detect", "detect", "Rank training samples by how likely they are bad."),
    "train": ("cutk.cli.train", "train", "Train a network by a recipe, and write its weights."),
    "evaluate": (
        "cutk.cli.evaluate",
        "evaluate",
        "Measure a checkpoint as bench measures its models.",
    ),
    "predict": ("cutk.cli.predict", "predict", "Write what a checkpoint predicts."),
    "presets": ("cutk.cli.presets", "presets", "Show the plans that come with cutk and its plugins."),
    "report": ("cutk.cli.report", "report", "Show stored runs as tables, figures and a page."),
    "plugins": ("cutk.cli.plugins", "plugins", "Show which components there are and what they can be told."),
}

INTERRUPTED = 130


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import platform
        from importlib.metadata import version

        import cutk
        from cutk.plugins.discovery import points

        here = f"torch {version('torch')}, Python {platform.python_version()}"
        click.echo(f"cutk {cutk.__version__} (plugin API {cutk.API_VERSION}, {here})")
        for line in dict.fromkeys(f"{provider.distribution} {provider.version}" for provider, _ in points()):
            if not line.startswith("cutk "):
                click.echo(line)
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of cutk and of whoever provides plugins.",
)
@log_level_option
@click.option("--traceback", is_flag=True, expose_value=False, help="Show where an error comes from.")
def cli() -> None:
    """Corrective machine unlearning: undo the damage of bad training data when only a part of it is known.

    \b
    Measure methods:  cutk bench --unlearner ssd
    Repair a model:   cutk unlearn --model … --weights … --data … --bad … -u ssd
    """  # noqa: D301  # click looks for the character itself


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some cells failed, 2 usage, 130 interrupted."""
    given = sys.argv[1:] if args is None else args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no α shows a question mark
    show_traceback = "--traceback" in given
    try:
        # The flag means the same behind a command as before it, so it is taken out before click assigns it to one.
        rest = [arg for arg in given if arg != "--traceback"]
        with python_warnings():
            about = {"traceback": show_traceback, "arguments": rest}
            code = cli.main(rest, prog_name="cutk", standalone_mode=False, obj=about)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.ClickException as error:
        say(f"Error: {error.format_message()}")
        sys.exit(2)
    except CutkError as error:
        if show_traceback:
            raise
        say_error(error)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`cutk … | head`).
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if show_traceback:
            raise
        say(f"Error: {one_line(error)}. Finished cells are kept.")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
