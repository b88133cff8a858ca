"""``cutk bench``: from the command line to a plan, and from results to a table or JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cutk.cli.common import complete, load_plugins, plugin_option
from cutk.errors import UsageError


def _alphas(_ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[float]:
    values = []
    for part in ",".join(texts).split(",") if texts else []:
        try:
            values.append(float(part))
        except ValueError:
            raise UsageError(
                f"Alpha: expected numbers separated by commas, such as 0.1,0.5,1, got '{part.strip()}'."
            ) from None
    return values


def _settings(texts: tuple[str, ...], option: str, example: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option}: expected {example}, got '{text}'.")
        pairs[name.strip()] = value.strip()
    return pairs


def _overrides(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a plan that the command line sets."""
    over: dict[str, Any] = {}
    for flag, entry in (("manipulation", "manipulations"), ("unlearner", "unlearners"), ("alpha", "alphas")):
        if options[flag]:
            over[entry] = list(options[flag])
    for entry in ("dataset", "model", "seeds", "search", "evaluate", "oracle", "device", "precision"):
        if options[entry] is not None:
            over[entry] = options[entry]
    # `--recipe steps=10 lr=0.1`: what follows the first setting arrives as a plain argument.
    more = [text for text in options["more"] if "." not in text.partition("=")[0]]
    more_options = [text for text in options["more"] if text not in more]
    if (more and not options["recipe"]) or (more_options and not options["option"]):
        raise UsageError(f"Unexpected argument '{options['more'][0]}'. See: cutk bench --help")
    recipe = _settings((*options["recipe"], *more), "--recipe", "NAME=VALUE, such as steps=500")
    if recipe:
        over["recipe"] = recipe
    nested: dict[str, dict[str, Any]] = {}
    texts = (*options["option"], *more_options)
    for name, value in _settings(texts, "--option", "COMPONENT.NAME=VALUE, such as badnet.size=2").items():
        component, dot, option = name.rpartition(".")
        if not dot:
            raise UsageError(f"--option: expected COMPONENT.NAME=VALUE, such as badnet.size=2, got '{name}={value}'.")
        nested.setdefault(component, {})[option] = value
    if nested:
        over["options"] = nested
    return over


def _data_options(ctx: click.Context, dataset: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what --data-root and --download mean to a dataset."""
    found = {}
    for flag, field in (("data_root", "root"), ("download", "download")):
        value = options[flag]
        if value in (None, False):
            continue
        if field in dataset.component.Options.model_fields:
            found[field] = value
        elif ctx.get_parameter_source(flag) is ParameterSource.COMMANDLINE:
            spelled = "--" + flag.replace("_", "-")
            raise UsageError(f"Dataset '{dataset.name}' has no use for {spelled}. Leave it out.")
    return found


@click.command(context_settings={"max_content_width": 100})
@plugin_option
@click.option(
    "--unlearner",
    "-u",
    shell_complete=complete("unlearner"),
    multiple=True,
    metavar="NAME",
    help="Method to measure; repeat it, or 'all'.",
)
@click.option(
    "--manipulation",
    "-m",
    shell_complete=complete("manipulation"),
    multiple=True,
    metavar="NAME",
    help="What goes wrong with the data; repeatable.",
)
@click.option("--dataset", "-d", shell_complete=complete("dataset"), metavar="NAME", help="Data to train on.")
@click.option(
    "--model",
    shell_complete=complete("model"),
    metavar="NAME",
    help="Network; by default the one that suits the dataset.",
)
@click.option(
    "--metric", shell_complete=complete("metric"), multiple=True, metavar="NAME", help="Measure this, too; repeatable."
)
@click.option(
    "--alpha",
    multiple=True,
    callback=_alphas,
    metavar="A,…",
    help="Identified fractions in (0, 1], comma-separated.",
)
@click.option("--seeds", type=int, metavar="N", help="Repeat everything with seeds 0 … N−1.")
@click.option(
    "--option",
    "-o",
    multiple=True,
    metavar="COMPONENT.NAME=VALUE",
    help="Set an option; see: cutk plugins show.",
)
@click.option("--recipe", multiple=True, metavar="NAME=VALUE", help="Set how models are trained, such as steps=500.")
@click.option(
    "--search",
    metavar="grid|default|random:N",
    help="Search the unlearner's grid, try its defaults alone, or N points of the grid.",
)
@click.option("--oracle", is_flag=True, default=None, help="Add a row for the grid point that is best on the test set.")
@click.option(
    "--evaluate",
    type=click.Choice(["selected", "all"]),
    help="Measure the selected grid point alone, or each one.",
)
@click.option(
    "--preset", default=None, metavar="NAME|FILE", help="Start from a preset, or from a plan in a .toml file."
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="CUTK_DATA_ROOT",
    metavar="DIR",
    help="Where the data lie.",
)
@click.option("--download", is_flag=True, help="Allow the dataset to be fetched.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="auto asks the machine.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    envvar="CUTK_RUNS",
    show_default=True,
    metavar="DIR",
    help="Where results are kept, and read from next time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--dry-run", is_flag=True, help="List the cells and what they cost; compute nothing.")
@click.argument("more", nargs=-1, metavar="")
@click.pass_context
def bench(ctx: click.Context, /, **options: Any) -> int:
    """Measure how well unlearners undo a manipulation.

    Manipulates a dataset, trains the original model on it and the gold model without the manipulated samples, tells
    each unlearner a fraction α of them, and measures the corrected models. Finished cells are kept in the runs folder:
    the same command goes on where it was stopped.

    \b
    cutk bench --unlearner ssd
    cutk bench --unlearner ssd --unlearner rewod --alpha 0.1,0.8,1 --seeds 5
    cutk bench --unlearner ssd -o ssd.selection_weight=10 -o ssd.dampening=1,10,100
    cutk bench --unlearner all --preset laptop/cifar10-poisoning --data-root ~/data
    """  # noqa: D301  # click looks for the character itself
    from cutk.run.plan import Plan, layer, over_default, resolve

    over = _overrides(ctx, options)
    registry = load_plugins(ctx)
    content = over_default(options["preset"] or None, registry)
    dataset = registry.get("dataset", over.get("dataset", content.get("dataset", "")))
    if data := _data_options(ctx, dataset, options):
        over = layer({"options": {dataset.name: data}}, over)
    if options["metric"]:
        over["metrics"] = [*content.get("metrics", ()), *options["metric"]]
    content = layer(content, over)
    if not content.get("unlearners"):
        raise UsageError("Which unlearner? Give --unlearner NAME, or --unlearner all. See: cutk plugins list")
    setup = resolve(Plan.parse(content), registry)

    from cutk.cli.progress import watching
    from cutk.report.dry_run import print_dry_run
    from cutk.report.tables import print_failures, print_results
    from cutk.run.benchmark import Benchmark
    from cutk.run.store import Store

    store = Store(options["runs"])
    with watching(options["runs"]) as observer:
        benchmark = Benchmark(setup, store, observer)
        if options["dry_run"]:
            print_dry_run(benchmark)
            return 0
        # stdout carries results alone: what a plugin prints goes where the rest goes.
        with contextlib.redirect_stdout(sys.stderr):
            results = benchmark.run()
    if options["as_json"]:
        click.echo(json.dumps(results.document(), indent=2, allow_nan=False))
    else:
        print_results(results, setup)
        print_failures(results.failures, tracebacks=bool(ctx.obj and ctx.obj.get("traceback")))
    return 1 if any(failed["what"] != "point" for failed in results.failures) else 0
