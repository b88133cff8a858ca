"""``cutk bench``: from the command line to a plan, and from results to a table or JSON."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from cutk.cli import completion
from cutk.cli.common import Command, load_plugins, plugin_files, plugin_option, recipe_in, settings, sorted_words
from cutk.cli.logs import log_level_option
from cutk.cli.messages import say
from cutk.errors import CellError, UsageError
from cutk.kinds import KINDS, Kind

if TYPE_CHECKING:
    from cutk.run.setup import Setup
    from cutk.run.study import Results, Study

F = TypeVar("F")
RECIPE = "recipe"


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


def _folder(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Path:
    if not text.strip():
        raise UsageError("--runs: expected a folder, got nothing. The folder 'runs' is taken where --runs isn't given.")
    return Path(text)


def _asked(kind: Kind) -> bool:
    """Say whether a kind has an option of its own; some share one, and the recipe's takes more than a name."""
    return bool(kind.help) and kind.name != RECIPE


def _flag(kind: Kind) -> str:
    """Return what click calls the option of a kind."""
    return kind.option.removeprefix("--").replace("-", "_")


def _component_options(function: F) -> F:
    """Give a command an option for each kind of component, as the table of kinds says."""
    for kind in reversed([kind for kind in KINDS.values() if _asked(kind)]):
        function = click.option(
            *((kind.option, kind.short) if kind.short else (kind.option,)),
            shell_complete=completion.names(kind.option),
            multiple=kind.several,
            metavar="NAME",
            help=kind.help + ("; repeatable." if kind.several else "."),
        )(function)  # type: ignore[type-var]
    return function


def _overrides(options: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a plan that the command line sets; ``metrics`` come to those of the plan."""
    over: dict[str, Any] = {}
    for kind in KINDS.values():
        if _asked(kind) and (given := options[_flag(kind)]):
            over[kind.plural if kind.several else _flag(kind)] = list(given) if kind.several else given
    if options["alpha"]:
        over["alphas"] = options["alpha"]
    for entry in ("seeds", "search", "evaluate", "oracle", "device", "precision", "threads", "isolate"):
        if options[entry] is not None:
            over[entry] = options[entry]
    if options["seed"]:
        if options["seeds"] is not None:
            raise UsageError("Give --seeds N, which counts from 0, or --seed N for each seed by itself; not both.")
        over["seeds"] = list(options["seed"])
    more, more_options = sorted_words(options, "bench")
    if recipe := recipe_in(options["recipe"], more):
        over["recipe"] = recipe
    if nested := settings((*options["option"], *more_options)):
        over["options"] = nested
    return over


def _data_options(ctx: click.Context, dataset: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what --data-root and --download mean to a dataset."""
    found = {}
    for flag, field in (("data_root", "root"), ("download", "download")):
        value, asked = options[flag], ctx.get_parameter_source(flag) is ParameterSource.COMMANDLINE
        if value in (None, False) or (field in dataset.given and not asked):
            continue
        if field in dataset.component.Options.model_fields:
            found[field] = value
        elif asked:
            spelled = "--" + flag.replace("_", "-")
            raise UsageError(f"Dataset '{dataset.name}' has no use for {spelled}. Leave it out.")
    return found


class _Bench(Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; say of an option that belongs to a recipe where it is set."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            if name in completion.options_of_kind(RECIPE):
                message = f"No such option: {error.option_name}. It is the recipe's: --recipe {name}=VALUE"
                raise UsageError(message) from None
            raise


@click.command(cls=_Bench, context_settings={"max_content_width": 100})
@plugin_option
@_component_options
@click.option(
    "--recipe",
    multiple=True,
    metavar="[NAME] NAME=VALUE …",
    shell_complete=completion.recipe,
    help="How models are trained: a recipe, what it is told, or both, such as steps=500.",
)
@click.option(
    "--option",
    "-o",
    multiple=True,
    metavar="COMPONENT.NAME=VALUE",
    shell_complete=completion.options,
    help="Set an option; see: cutk plugins show.",
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
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    multiple=True,
    metavar="N",
    help="Use this seed; repeatable, in place of --seeds.",
)
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
    "--preset",
    default=None,
    metavar="NAME|FILE",
    shell_complete=completion.plans,
    help="Start from a preset, or from a plan in a .toml file.",
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
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Of each worker; as many as pay off if not given."
)
@click.option(
    "--isolate",
    is_flag=True,
    default=None,
    help="Run each method in a process that never had the test set, clean labels or S_m.",
)
@click.option(
    "--runs",
    type=click.Path(),
    callback=_folder,
    default="runs",
    envvar="CUTK_RUNS",
    show_default=True,
    metavar="DIR",
    help="Where results are kept, and read from next time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--dry-run", is_flag=True, help="List the cells and what they cost; compute nothing.")
@log_level_option
@click.option("--pdb", is_flag=True, help="Open the debugger where the first error happens.")
@click.argument("more", nargs=-1, metavar="", shell_complete=completion.recipe_words)
@click.pass_context
def bench(ctx: click.Context, /, **options: Any) -> int:
    """Measure how well unlearners undo a manipulation.

    Manipulates a dataset, trains the original model on it and the gold model without the manipulated samples, tells
    each unlearner a fraction α of them, and measures the corrected models. Finished cells are kept in the runs folder:
    the same command goes on where it was stopped.

    \b
    cutk bench --unlearner ssd
    cutk bench --unlearner ssd --unlearner rewod --alpha 0.1,0.8,1 --seeds 5
    cutk bench --unlearner ssd --manipulation badnet+interclass-confusion --seed 11 --seed 12
    cutk bench --unlearner ssd -o ssd.selection_weight=10 -o ssd.dampening=1,10,100
    cutk bench --unlearner cf --recipe adamw steps=500 --select validation
    cutk bench --unlearner all --preset laptop/cifar10-poisoning --data-root ~/data
    """  # noqa: D301  # click looks for the character itself
    from cutk.run.files import uncollected

    with uncollected():  # until a cell is computed
        if options["dry_run"] and options["as_json"]:
            raise UsageError("--json prints results, and --dry-run has none. Leave one out.")
        study, results = _carry_out(ctx, _setup(ctx, options), options)
        if results is None:
            _print_costs(study)
            return 0
        if options["as_json"]:
            click.echo(json.dumps(results.document(), indent=2, allow_nan=False))
        else:
            from cutk.report.benchmark import contents_of
            from cutk.report.terminal import print_failures, print_results

            print_results(contents_of(study, results))
            print_failures(results.failures, tracebacks=bool(ctx.obj and ctx.obj.get("traceback")))
        over_alpha = {summary.name for summary in study.setup.summaries}
        _tell_of_silence(results, options["metric"], over_alpha, tabled=not options["as_json"])
    return 1 if any(failed.what != "point" for failed in results.failures) else 0


def _tell_of_silence(results: Results, asked: Iterable[str], summaries: Collection[str], *, tabled: bool) -> None:
    """Say which of the metrics that were asked for aren't shown: they have nothing to say, or too much for a table."""
    told = {*summaries, *(failure.metric for failure in results.failures)}
    many: set[str] = set()
    for record in results.records:
        told |= {name for name, value in record.metrics.items() if value is not None}
        many |= record.breakdowns.keys()
    for names in (told, many):
        names |= {name.partition("[")[0] for name in names}  # of a part of a composition
    for name in dict.fromkeys(asked):
        called = {name, name.rpartition(":")[2]}  # it may come with its provider's
        if not results.records or not told.isdisjoint(called):
            continue
        if many.isdisjoint(called):
            say(f"{name} applies to none of these models. What it asks for: cutk plugins show {name}")
        elif tabled:
            say(f"{name} has several values for each model. cutk report shows them with --html or --figures.")


def _print_costs(study: Study) -> None:
    """Print what each cell of a plan would cost."""
    from cutk.report.dry_run import print_dry_run
    from cutk.report.estimate import cell_costs, seconds_per_pass
    from cutk.report.origins import counted

    there, costs = study.worker.environment, cell_costs(study)
    each = 0.0 if all(cost.stored for cost in costs) else seconds_per_pass(study, study.cells[0])
    samples = study.sizes(study.cells[0]).train
    print_dry_run(costs, samples, each, f"{there.hardware}, {counted(there.threads, 'thread')}, {there.precision}")


def _setup(ctx: click.Context, options: dict[str, Any]) -> Setup:
    """Return what the command line asks for, every name looked up and every option validated."""
    from cutk.run.plan import Plan, layer, over_default
    from cutk.run.setup import resolve

    over = _overrides(options)
    registry = load_plugins(ctx)
    content = over_default(options["preset"] or None, registry)
    dataset = registry.get("dataset", over.get("dataset", content.get("dataset", "")))
    if data := _data_options(ctx, dataset, options):
        over = layer({"options": {dataset.name: data}}, over)
    if "metrics" in over:
        over["metrics"] = [*content.get("metrics", ()), *over["metrics"]]
    content = layer(content, over)
    if not content.get("unlearners"):
        raise UsageError("Which unlearner? Give --unlearner NAME, or --unlearner all. See: cutk plugins list")
    return resolve(Plan.parse(content), registry)


def _carry_out(ctx: click.Context, setup: Setup, options: dict[str, Any]) -> tuple[Study, Results | None]:
    """Run a plan, unless it is only to be looked at; what a plugin prints is no result, and goes to stderr."""
    from cutk.cli.foresight import Foresight
    from cutk.cli.progress import watching
    from cutk.run.observer import Observers
    from cutk.run.store import Store
    from cutk.run.study import Study

    debugger = None
    if options["pdb"]:
        here = "--pdb needs the error in this process"
        if setup.plan.isolate:
            raise UsageError(f"{here}, and --isolate has methods work in others. Leave one out.")
        if not setup.computes_here:
            raise UsageError(f"{here}, and '{setup.executor.name}' computes in others. Give --executor serial.")
        from cutk.cli.debugging import PostMortem

        debugger = PostMortem()
    # A method may change the current folder.
    store = Store(options["runs"].expanduser().absolute())
    with watching(options["runs"], debugger) as observer, contextlib.redirect_stdout(sys.stderr):
        try:
            foresight = Foresight(observer)
            told = Observers(observer, [foresight])
            study = Study(setup, store, told, inline=plugin_files(ctx), blank=options["dry_run"])
            if options["dry_run"]:
                return study, None
            foresight.study = study
            gc.freeze()  # what was imported stays, and looking through it again and again takes long
            return study, study.run()
        except CellError as error:
            observer.error(error)
            raise
