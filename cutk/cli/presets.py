"""``cutk presets``: the plans that come with cutk and its plugins."""

from __future__ import annotations

import click

from cutk.cli import completion
from cutk.cli.common import Group, load_plugins, plugin_option


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def presets() -> None:
    """Show the plans that come with cutk and its plugins."""


@presets.command("list")
@plugin_option
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List every preset, and what it is for."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from cutk.errors import CutkError, one_line
    from cutk.report.console import make_console
    from cutk.run.plan import read_preset

    registry = load_plugins(ctx)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Preset", "Summary", "Provider"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "Preset")
    for name, preset in sorted(registry.presets.items()):
        try:
            summary = escape(str(read_preset(name, registry).get("summary", "")))
        except CutkError as error:
            summary = f"[red]broken:[/red] {escape(one_line(error))}"
        table.add_row(escape(name), summary, f"{preset.provider.distribution} {preset.provider.version}")
    console = make_console()
    console.print(table)
    console.print("Run one with: cutk bench --preset NAME", highlight=False)


@presets.command()
@click.argument("name", shell_complete=completion.plans)
@plugin_option
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Show the plan NAME (a preset, or a .toml file) as it would be run: whole, with all that it builds on."""
    import tomli_w

    from cutk.run.plan import over_default
    from cutk.run.setup import resolve_content

    registry = load_plugins(ctx)
    content = over_default(name, registry)
    resolve_content(content, registry)
    click.echo(tomli_w.dumps(content), nl=False)
