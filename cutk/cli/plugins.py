"""``cutk plugins``: which components there are, and what each can be told."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cutk.cli import completion
from cutk.cli.common import Group, load_plugins, plugin_option
from cutk.cli.plugins_check import check
from cutk.cli.plugins_new import new
from cutk.kinds import KIND_NAMES, KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from cutk.components import Unlearner
    from cutk.plugins.registry import Entry

# Characters a line from which a table of everything can be read.
ROOMY = 100


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def plugins() -> None:
    """Show which components there are and what they can be told; check plugins, and begin new ones."""


plugins.add_command(check)
plugins.add_command(new)


@plugins.command("list")
@plugin_option
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List every component, where it comes from, and whether it can be used."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from cutk.report.console import make_console

    registry = load_plugins(ctx, warnings=False)
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # Where there is little room, who provides a component can be asked with `cutk plugins show`.
    roomy = console.width >= ROOMY
    headings = ("Kind", "Name", "Summary", "Provider", "Status") if roomy else ("Name", "Summary", "Status")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=roomy and heading in ("Kind", "Name"))
    for kind in KINDS.values():
        if not roomy:
            table.add_row(f"[bold]{kind.plural}[/bold]")
        for entry in registry.of_kind(kind.name):
            provider = f"{entry.provider.distribution} {entry.provider.version}"
            status = "ambiguous name" if (kind.name, entry.component.name) in registry.ambiguous else "ok"
            summary = escape(entry.component.summary())
            cells = (kind.name, entry.name, summary, provider, status) if roomy else (entry.name, summary, status)
            table.add_row(*cells)
    for failure in registry.failures:
        provider = f"{failure.provider.distribution} {failure.provider.version}"
        name, status = escape(failure.provider.entry_point), f"[red]broken:[/red] {escape(failure.reason)}"
        table.add_row(*(("plugin", name, "", provider, status) if roomy else (name, provider, status)))
    console.print(table)


@plugins.command()
@click.argument("name", shell_complete=completion.names())
@click.option("--kind", type=click.Choice(KIND_NAMES), help="Of the components of this name, show this kind's alone.")
@plugin_option
@click.pass_context
def show(ctx: click.Context, name: str, kind: str | None) -> None:
    """Show what the component NAME does, its options, and what it searches over."""
    from cutk.report.console import make_console

    registry = load_plugins(ctx)
    before = name.partition("+")[0]
    if kind is None and before != name and any(entry.kind == "unlearner" for entry in registry.find(before)):
        kind = "unlearner"  # with a detector before it
    found = registry.find(name) if kind is None else [registry.get(kind, name)]
    console = make_console()
    for entry in found:
        _show(entry, console)


def _show(entry: Entry, console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from cutk.components import Metric, Selector, Summary, Unlearner
    from cutk.options import describe_options

    component: Any = entry.component
    title = f"[bold]{entry.name}[/bold]  ({entry.kind}, {entry.provider.distribution} {entry.provider.version})"
    console.print(title, highlight=False)
    console.print(escape(inspect.getdoc(component) or ""), highlight=False)
    if component.reference:
        console.print(f"Reference: {escape(component.reference)}", highlight=False)
    if issubclass(component, Metric | Summary):
        low, high = component.bounds
        better = "higher" if component.higher_is_better else "lower"
        console.print(f"Range: {low:g} to {high:g}; {better} is better", highlight=False)
    if issubclass(component, Selector):
        console.print(f"It looks at: {', '.join(component.measures).replace('_', ' ') or 'nothing'}", highlight=False)
    infos = describe_options(component.Options)
    if infos:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("Option", "Expected", "Default", "Meaning"):
            table.add_column(heading, overflow="fold")
        for info in infos:
            default = "required" if info.required else str(info.default)
            table.add_row(info.name, escape(info.expected), escape(default), escape(info.help))
        console.print(table)
    else:
        console.print("It takes no options.")
    if issubclass(component, Unlearner):
        console.print(escape(_grid(component)), highlight=False)
    console.print()


def _grid(component: type[Unlearner]) -> str:
    from cutk.run.search import expand_grid

    points = expand_grid(component.grid)
    if points == [{}]:
        return "Search grid: none"
    lines = [f"Search grid: {len(points)} points"]
    if isinstance(component.grid, Mapping):
        lines += [f"  {name}: {', '.join(map(_short, values))}" for name, values in component.grid.items()]
        return "\n".join(lines)
    # Not every combination: a line for each value of the first option, with what goes with it.
    first, *others = dict.fromkeys(name for point in points for name in point)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault(_short(point[first]) if first in point else "by default", []).append(point)
    for value, mine in groups.items():
        rest = [
            f"{name} {', '.join(_short(point[name]) if name in point else 'by default' for point in mine)}"
            for name in others
        ]
        lines.append(f"  {first} {value}" + (f" with {'; '.join(rest)}" if rest else ""))
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
