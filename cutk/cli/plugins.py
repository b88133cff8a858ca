"""``cutk plugins``: which components there are, and what each can be told."""

from __future__ import annotations

import inspect
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cutk.components import KINDS, Metric, Unlearner
from cutk.options import describe_options
from cutk.plugins import Entry, load_registry
from cutk.report.console import make_console


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def plugins() -> None:
    """Show which components there are and what they can be told."""


@plugins.command("list")
def list_() -> None:
    """List every component, where it comes from, and whether it can be used."""
    registry = load_registry()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Kind", "Name", "Summary", "Provider", "Status"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Kind", "Name"))
    for kind in KINDS:
        for entry in registry.of_kind(kind):
            provider = f"{entry.provider.distribution} {entry.provider.version}"
            status = "ambiguous name" if (kind, entry.component.name) in registry.ambiguous else "ok"
            table.add_row(kind, entry.name, escape(entry.component.summary()), provider, status)
    for failure in registry.failures:
        provider = f"{failure.provider.distribution} {failure.provider.version}"
        status = f"[red]broken:[/red] {escape(failure.reason)}"
        table.add_row("plugin", escape(failure.provider.entry_point), "", provider, status)
    make_console().print(table)


@plugins.command()
@click.argument("name")
def show(name: str) -> None:
    """Show what the component NAME does, its options, and what it searches over."""
    registry = load_registry()
    console = make_console()
    for entry in registry.find(name):
        _show(entry, console)


def _show(entry: Entry, console: Console) -> None:
    component: Any = entry.component
    title = f"[bold]{entry.name}[/bold]  ({entry.kind}, {entry.provider.distribution} {entry.provider.version})"
    console.print(title, highlight=False)
    console.print(escape(inspect.getdoc(component) or ""), highlight=False)
    if component.reference:
        console.print(f"Reference: {escape(component.reference)}", highlight=False)
    if issubclass(component, Metric):
        low, high = component.bounds
        better = "higher" if component.higher_is_better else "lower"
        console.print(f"Range: {low:g} to {high:g}; {better} is better", highlight=False)
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
        console.print(_grid(component), highlight=False)
    console.print()


def _grid(component: type[Unlearner]) -> str:
    from cutk.search import expand_grid

    points = expand_grid(component.grid)
    if points == [{}]:
        return "Search grid: none"
    lines = [f"Search grid: {len(points)} points"]
    for name in points[0]:
        values = list(dict.fromkeys(point[name] for point in points))
        shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values[:12])
        more = f", … ({len(values)} values)" if len(values) > 12 else ""
        lines.append(f"  {name}: {shown}{more}")
    return escape("\n".join(lines))
