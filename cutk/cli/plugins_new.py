"""``cutk plugins new``: begin a plugin as a distribution of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import shutil
import tempfile
from pathlib import Path

import click

from cutk.cli.common import Command
from cutk.errors import UsageError
from cutk.kinds import KIND_NAMES, KINDS
from cutk.plugins.checks import problem_with
from cutk.plugins.discovery import HOME, points

__all__ = ["new", "requirement"]

TEMPLATES = Path(__file__).parents[1] / "templates" / "plugin"
# What the templates call otherwise.
_TAKEN = frozenset({"Any", "Future", "Mapping", "Path", "Tensor", "Workers"})


def requirement(version: str) -> str:
    """Return what a plugin written for this version of cutk asks for: it, and no version that may break the plugin.

    >>> requirement("0.3.1"), requirement("2.1.4"), requirement("1.2.0.dev3")
    ('cutk>=0.3,<0.4', 'cutk>=2.1,<3', 'cutk>=1.2.0.dev3,<2')
    """
    major, minor = (int(part) for part in re.findall(r"\d+", version)[:2])
    # A release before 1.0 may break what the one before it had.
    limit = f"0.{minor + 1}" if major == 0 else str(major + 1)
    least = f"{major}.{minor}" if re.fullmatch(r"[\d.]+", version) else version
    return f"{HOME}>={least},<{limit}"


def _bench(name: str, kind: str) -> str:
    """Return the command for a first benchmark with a component; one needs an unlearner, whatever else it is about.

    >>> _bench("soft-reset", "unlearner"), _bench("stripes", "dataset")
    ('cutk bench --unlearner soft-reset', 'cutk bench --unlearner ssd --dataset stripes')
    """
    other = "" if kind == "unlearner" else "--unlearner ssd "
    return f"cutk bench {other}{KINDS[kind].option} {name}"


def _class_name(name: str, kind: str) -> str:
    """Return the name of a component's class.

    >>> _class_name("soft-reset", "unlearner"), _class_name("3sigma", "metric"), _class_name("true", "metric")
    ('SoftReset', 'Metric3sigma', 'MetricTrue')
    """
    camel = "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", name))
    usable = camel.isidentifier() and not keyword.iskeyword(camel) and camel not in _TAKEN
    return camel if usable else kind.capitalize() + camel


def _refuse_name(name: str, kind: str, package: str) -> None:
    """Refuse a name that a component can't have, or that would be in the way of another one.

    Raises:
        UsageError: says which.
    """
    base = KINDS[kind].base
    # A class with nothing else to object to is objected to for its name alone.
    trial = type("Trial", (base,), {"name": name, "Options": base.Options, **dict.fromkeys(base.required, print)})
    if problem := problem_with(trial, kind):
        raise UsageError(f"The new {kind} {problem.partition(' ')[2]}.")
    if not name[-1].isalnum():
        raise UsageError(f"The new {kind} has the name '{name}'; a distribution's name ends with a letter or a digit.")
    if name in {provider.entry_point for provider, _ in points() if provider.distribution == HOME}:
        raise UsageError(f"'{name}' is a built-in, and keeps its name. Choose another.")
    if importlib.util.find_spec(package) is not None:
        raise UsageError(f"A package '{package}' is installed already. Choose another name, or uninstall it.")


def _write(folder: Path, name: str, kind: str, package: str) -> None:
    """Render the templates into ``folder``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701  # no HTML: Python and TOML, and names without quotes
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    values = {
        "name": name,
        "kind": kind,
        "article": "An" if kind[0] in "aeiou" else "A",
        "distribution": f"cutk-{name}",
        "package": package,
        "cls": _class_name(name, kind),
        "requirement": requirement(importlib.metadata.version(HOME)),
        "python": importlib.metadata.metadata(HOME)["Requires-Python"],
        "bench": _bench(name, kind),
    }
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"src/{package}/__init__.py": f"{kind}.py.j2",
        f"tests/test_{name.replace('-', '_')}.py": "test.py.j2",
    }
    for path, template in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(environment.get_template(template).render(values), encoding="utf-8")


@click.command("new", cls=Command)
@click.argument("name")
@click.option("--kind", type=click.Choice(KIND_NAMES), required=True, help="What kind of component it is.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write, which must not be there yet; ./cutk-NAME if not given.",
)
def new(name: str, kind: str, into: Path | None) -> None:
    """Begin a plugin: write a distribution with a component called NAME, its tests and a README.

    What is written works as it stands; the component is a simple one, for you to replace.

    \b
    cutk plugins new soft-reset --kind unlearner
    pip install -e './cutk-soft-reset[test]'
    cutk plugins check cutk-soft-reset
    """  # noqa: D301  # click looks for the character itself
    package = f"cutk_{name.replace('-', '_')}"
    _refuse_name(name, kind, package)
    target = Path(f"cutk-{name}") if into is None else into.expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"'{target}' is there already. Choose another folder with --into DIR, or remove it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there in one step: it is there wholly or not at all.
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
        try:
            _write(temporary / "plugin", name, kind, package)
            (temporary / "plugin").rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror or error}.") from error
    shown = str(target) if target.is_absolute() else f"./{target}"
    click.echo(f"Wrote {shown}. Next:")
    for line in (f"pip install -e '{shown}[test]'", f"cutk plugins check cutk-{name}", _bench(name, kind)):
        click.echo(f"  {line}")
