"""``cutk plugins check``: does a plugin keep to what cutk expects?"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutk.cli import completion
from cutk.cli.common import Command, settings
from cutk.errors import UsageError, suggestion
from cutk.plugins.discovery import GROUP, HOME, Provider, normalised, points

if TYPE_CHECKING:
    from rich.console import Console

    from cutk.plugins.registry import Entry, Failure, Preset, Registry
    from cutk.testing import Finding

__all__ = ["check"]


@dataclass
class _Found:
    """What a target provides.

    Attributes:
        entries: the components, usable as far as loading tells.
        failures: what can't be used.
        presets: the plans that it ships.
        file: where it lies, if it isn't installed.
    """

    entries: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    presets: list[Preset] = field(default_factory=list)
    file: Path | None = None


def _of(registry: Registry, providers: set[Provider], target: str, file: Path | None = None) -> _Found:
    """Return what ``providers`` have in ``registry``.

    Raises:
        UsageError: if that is nothing.
    """
    found = _Found(
        [entry for entry in registry.entries if entry.provider in providers],
        [failure for failure in registry.failures if failure.provider in providers],
        [preset for preset in registry.presets.values() if preset.provider in providers],
        file,
    )
    if not (found.entries or found.failures or found.presets):
        raise UsageError(
            f"'{target}' provides no component and no preset: expected a function such as cutk_unlearners(), marked "
            "with @cutk.hookimpl, that returns one. See: cutk plugins new --help"
        )
    return found


def _installed(providers: set[Provider], target: str) -> _Found:
    """Load these plugins and no others."""
    from cutk.plugins.registry import load_registry

    wanted = {"CUTK_PLUGINS": ",".join(map(str, providers))}
    if all(provider.distribution != HOME for provider in providers):
        wanted["CUTK_DISABLE"] = HOME  # what isn't checked isn't imported
    return _of(load_registry(wanted), providers, target)


def _inline(file: Path, target: str) -> _Found:
    from cutk.plugins.registry import load_registry

    registry = load_registry({"CUTK_PLUGINS": "", "CUTK_DISABLE": HOME}, inline=[file])
    kept: tuple[Entry | Failure | Preset, ...] = (*registry.entries, *registry.failures, *registry.presets.values())
    return _of(registry, {one.provider for one in kept}, target, file)


def _planned(found: Sequence[_Found]) -> dict[str, str]:
    """Return each preset that targets ship, with why it can't be run, or nothing if it can."""
    from cutk.errors import CutkError, one_line
    from cutk.plugins.registry import load_registry
    from cutk.run.plan import over_default
    from cutk.run.setup import resolve_content

    shipping = [one for one in found if one.presets]
    if not shipping:
        return {}
    # With all that is installed, wanted or not: a plan may name what others provide.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("CUTK_")}
    registry = load_registry(environ, inline=[one.file for one in shipping if one.file is not None])
    names = {(preset.provider, preset.path): name for name, preset in registry.presets.items()}
    said: dict[str, str] = {}
    for preset in (preset for one in shipping for preset in one.presets):
        name = names.get((preset.provider, preset.path))
        if name is None:
            said[preset.name] = f"{preset.provider} can't be loaded beside the plugins that are installed or checked"
            continue
        try:
            resolve_content(over_default(name, registry), registry)
        except CutkError as error:
            said[name] = one_line(error)
        else:
            said[name] = ""
    return said


def _file_of_module(name: str) -> Path | None:
    """Return the file of a module that is one file and can be found, importing nothing."""
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that was put together without a file
        return None
    if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
        return None
    return Path(spec.origin) if spec.origin.endswith(".py") else None


def _unknown(target: str, known: Sequence[str]) -> UsageError:
    if Path(target).is_dir() and (Path(target) / "pyproject.toml").is_file():
        return UsageError(
            f"'{target}' is the folder of a distribution: install it with 'pip install -e {target}', and give its name."
        )
    if Path(f"{target}.py").is_file():
        return UsageError(f"No plugin '{target}' is installed. Did you mean the file './{target}.py'?")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        importlib.metadata.distribution(target)
        return UsageError(
            f"The distribution '{target}' is installed and no plugin: expected an entry point in the group '{GROUP}'."
        )
    return UsageError(
        f"'{target}' is no plugin: expected an installed distribution, a module, or a Python file."
        f"{suggestion(target, known)} See: cutk plugins list"
    )


def _find(target: str) -> _Found:
    """Return what is provided by a distribution, one of its entry points, a module or a file.

    Raises:
        UsageError: if there is no such thing, or it provides nothing.
    """
    if target.endswith(".py"):
        return _inline(Path(target), target)
    distribution, colon, rest = target.partition(":")
    name = normalised(distribution) + colon + rest
    known = list(points())
    providers = {
        provider
        for provider, point in known
        if name in (provider.distribution, str(provider)) or f"{point.module}.".startswith(f"{target}.")
    }
    if providers:
        return _installed(providers, target)
    if file := _file_of_module(target):
        return _inline(file, target)
    raise _unknown(target, sorted({provider.distribution for provider, _ in known}))


def _given(texts: Sequence[str], entries: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """Read ``COMPONENT.NAME=VALUE``: the options of each component by its name.

    Raises:
        UsageError: if a text isn't of this form, no component has this name, or the option can't be so.
    """
    from cutk.options import parse_options

    given = settings(texts, expected="COMPONENT.NAME=VALUE")
    for name, values in given.items():
        named = [entry for entry in entries if entry.component.name == name]
        if not named:
            known = ", ".join(sorted({entry.component.name for entry in entries}))
            raise UsageError(f"--option: expected one of the components to check ({known}), got '{name}'.")
        for entry in named:
            parse_options(entry.component.Options, values, name)
    return given


_MARKS = {True: "[green]ok[/green]", False: "[bold red]FAILS[/bold red]", None: "[yellow]not judged[/yellow]"}


def _print_presets(said: dict[str, str], console: Console) -> None:
    from rich.markup import escape

    for name, reason in said.items():
        told = f"cannot be run: {reason}" if reason else "every name and option of it is there"
        console.print(f"{_MARKS[not reason]} [bold]{escape(name)}[/bold]  (preset): {escape(told)}", highlight=False)


def _print_findings(entry: Entry, findings: Sequence[Finding], console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    counts = [sum(finding.passed is outcome for finding in findings) for outcome in (True, False, None)]
    summary = f"{counts[0]} hold, {counts[1]} fail, {counts[2]} not judged"
    provider = f"{entry.provider.distribution} {entry.provider.version}"
    console.print(f"[bold]{escape(entry.name)}[/bold]  ({entry.kind}, {provider}): {summary}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("What should hold", overflow="fold")
    if any(finding.reason for finding in findings):
        table.add_column("What came, and how to mend it", overflow="fold")
    for finding in findings:
        cells = [_MARKS[finding.passed], escape(finding.statement)]
        if len(table.columns) > len(cells):
            lines = [finding.reason, finding.hint and f"Mend: {finding.hint}"]
            cells.append(escape("\n".join(line for line in lines if line)))
        table.add_row(*cells)
    console.print(table)


def _print_failures(failures: Sequence[Failure], console: Console) -> None:
    from rich.markup import escape

    for failure in failures:
        console.print(f"[bold red]broken:[/bold red] {escape(f'{failure.provider}: {failure.reason}')}", soft_wrap=True)


@click.command("check", cls=Command)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", shell_complete=completion.distributions)
@click.option(
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="COMPONENT.NAME=VALUE",
    help="Check a component with this option; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(targets: tuple[str, ...], options: tuple[str, ...], as_json: bool) -> int:
    """Check whether the components of each TARGET keep to what cutk expects.

    A TARGET is an installed distribution (cutk-mine), a module, or a Python file (./mine.py). Each of its components
    is tried on a tiny scenario, which takes seconds; cutk.testing has the same checks for tests. Of a preset it is
    checked that every name and option is there. The exit code is 1 if anything fails.

    \b
    cutk plugins check cutk-mine
    cutk plugins check ./mine.py -o mine.steps=10
    """  # noqa: D301  # click looks for the character itself
    from cutk.report.console import make_console
    from cutk.testing import examine

    found = [_find(target) for target in dict.fromkeys(targets)]
    failures = list(dict.fromkeys(failure for one in found for failure in one.failures))
    entries = list({(e.provider, e.component): e for one in found for e in one.entries}.values())
    given = _given(options, entries)
    console = make_console()
    document: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(sys.stderr):
        planned = _planned(found)
    held = not failures and not any(planned.values())
    for entry in entries:
        # What a component prints is no result, and goes where messages go.
        with contextlib.redirect_stdout(sys.stderr):
            findings = examine(entry.component, options=given.get(entry.component.name))
        held = held and all(finding.passed is not False for finding in findings)
        if not as_json:
            _print_findings(entry, findings, console)
        about = {"kind": entry.kind, "name": entry.name, "provider": entry.provider.requirement}
        document.append({**about, "findings": [asdict(finding) for finding in findings]})
    if as_json:
        broken = [{"provider": str(failure.provider), "reason": failure.reason} for failure in failures]
        plans = [{"name": name, "passed": not reason, "reason": reason} for name, reason in planned.items()]
        said = {"passed": held, "components": document, "presets": plans, "failures": broken}
        click.echo(json.dumps(said, indent=2))
    else:
        _print_presets(planned, console)
        _print_failures(failures, console)
    return 0 if held else 1
