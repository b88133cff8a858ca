"""``cutk unlearn``: from a checkpoint, data and a list of bad samples to a folder with a repaired checkpoint."""

from __future__ import annotations

import contextlib
import gc
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cutk.cli import bundling, completion
from cutk.cli.calibration import foretold
from cutk.cli.common import Command, load_plugins, plugin_option, recipe_in, settings, sorted_words
from cutk.cli.logs import log_level_option
from cutk.cli.messages import say, warn
from cutk.cli.own import (
    Checkpoint,
    bad_option,
    checkpoint_from,
    data_options,
    drop_used,
    given_from,
    machine_options,
    model_options,
    near_chance,
    normalisation_of,
    recipe_option,
    same_classes,
    saying,
    seconds_in,
    seed_option,
    unsaid,
    workers_for,
)
from cutk.cli.resuming import kept_beside, take_up
from cutk.cli.unreadable import advising, readable
from cutk.errors import UsageError, conjoined, printable

if TYPE_CHECKING:
    import torch

    from cutk.data.given import Given
    from cutk.plugins.registry import Registry
    from cutk.repair.keeping import Kept
    from cutk.repair.problem import Methods, Tell
    from cutk.repair.repairing import Found
    from cutk.repair.weights import Weights


@click.command(cls=Command, context_settings={"max_content_width": 100})
@plugin_option
@model_options
@data_options()
@bad_option
@click.option(
    "--validation",
    metavar="NAME",
    shell_complete=completion.names("--dataset"),
    help="Samples that weren't trained on: folder:DIR, arrays:FILE, csv:FILE, or another dataset.",
)
@click.option(
    "--unlearner",
    "-u",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.names("--unlearner"),
    help="Method to try, or 'all'; repeatable.",
)
@click.option(
    "--select", metavar="NAME", shell_complete=completion.names("--select"), help="Rule that chooses among candidates."
)
@click.option("--search", metavar="grid|default|random:N", help="What of each method's grid is tried.")
@click.option("--budget", metavar="TIME", help="Try no further candidates after so long, such as 10min.")
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    metavar="X",
    help="How much validation accuracy may be lost.",
)
@recipe_option
@machine_options
@seed_option
@click.option(
    "--suspect-trigger",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A picture of a suspected trigger, transparent around it: measure it on validation images.",
)
@click.option(
    "--suspects-by",
    metavar="NAME",
    shell_complete=completion.names("--detector"),
    help="Detector that ranks suspects; if not given, by what the method suspects, or took from them.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Plant what may go wrong into your own clean data, too, and measure which method heals what there.",
)
@click.option(
    "--calibrate-alpha",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="A",
    help="What part of all bad samples the list is taken for there; 0.5 if not given.",
)
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave out images that can't be read, and count them in the report."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("repaired"),
    show_default=True,
    metavar="DIR",
    help="Where the repaired weights and the report go.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Refuse to begin anew: the same command goes on from what Ctrl-C left, if there is something.",
)
@click.option("--format", "form", type=click.Choice(["safetensors", "pt"]), help="Of the weights; as they came.")
@click.option(
    "--bundle",
    is_flag=True,
    help="Write evidence beside it: hashes, versions, limits kept or not, a model card, a CycloneDX bill, ONNX.",
)
@click.option("--force", is_flag=True, help="Go on though the weights don't fit the data; replace an earlier repair.")
@log_level_option
@click.argument("more", nargs=-1, metavar="", shell_complete=completion.recipe_words)
@click.pass_context
def unlearn(ctx: click.Context, /, **options: Any) -> int:
    """Repair a model of your own that was trained on bad samples.

    Looks first whether weights and data belong together, then lets each method try, and chooses among their
    candidates and the original by what can be measured without the truth. Writes the weights under your own keys, a
    report as a page and as JSON, and further suspects. Exits with 1 where nothing helped. On Ctrl-C the methods that
    are finished are kept beside the output folder: the same command goes on from there.

    \b
    cutk unlearn --model torchvision:resnet18 --weights model.safetensors --data folder:photos --bad bad.txt -u ssd
    cutk unlearn --model my_net.py:build --weights model.pt --data csv:table.csv --validation folder:clean
                 --bad bad.json -u ssd -u scrub --budget 10min --max-accuracy-loss 0.01 --out repaired
    """  # noqa: D301  # click looks for the character itself
    from cutk.cli.progress import telling
    from cutk.repair.terminal import print_repair
    from cutk.repair.writing import require_free

    options["out"] = options["out"].expanduser()
    if options["out"].absolute() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f"--out: '{options['out']}' is where this runs, and would be replaced. Choose a folder in it.")
    require_free(options["out"], options["force"])
    if options["bundle"]:
        from cutk.repair.bundle.writing import print_bundle, require_libraries

        require_libraries("--bundle")
    # What a plugin or the user's own module prints is no result.
    quiet = contextlib.redirect_stdout(sys.stderr)
    with telling() as tell, kept_beside(options["out"]) as kept, quiet, advising(options["skip_unreadable"]):
        found = _carried_out(ctx, options, tell, kept)
    print_repair(found.report, found.suspects, options["out"])
    if options["bundle"]:
        print_bundle(options["out"])
    return 0 if found.report.repaired else 1


class _Opened(NamedTuple):
    """What the files hold that the command line names."""

    own: Checkpoint
    given: Given
    held_out: Given | None
    bad: torch.Tensor
    positions: torch.Tensor | None  # where the samples stood before unreadable ones were left out
    hashes: dict[str, str]


def _read(registry: Registry, options: dict[str, Any], nested: dict[str, dict[str, str]], tell: Tell) -> _Opened:
    """Read everything, what is quickly read first; options of data and model are taken out of ``nested``."""
    from cutk.repair.sources import bad_in

    own = checkpoint_from(registry, options, nested)
    bad, bad_sha256 = bad_in(options["bad"].expanduser(), own.given, own.root)
    given, bad, positions = readable(own.given, bad, options["skip_unreadable"], tell)
    held_out, entries = given.validation, [own.entry]
    if options["validation"]:
        held_out, beside, _ = given_from(registry, options["validation"], options, nested)
        entries.append(beside)
    drop_used(nested, options["model"], *entries)
    if held_out is not None:
        held_out = same_classes(held_out, given.classes)
        if options["skip_unreadable"]:
            held_out, _, _ = readable(held_out, bad[:0], True, tell)
        _require_apart(given, held_out, options["force"])
    return _Opened(own, given, held_out, bad, positions, {"weights": own.weights.sha256, "bad list": bad_sha256})


def _methods(registry: Registry, options: dict[str, Any], recipe: dict[str, str], nested: Any, dataset: Any) -> Methods:
    """Return what is to be tried, every option validated."""
    from cutk.repair.problem import methods_of
    from cutk.repair.records import limits_of

    plan: dict[str, Any] = {
        name: options[name] for name in ("select", "search", "device", "precision") if options[name] is not None
    }
    if options["unlearner"]:
        plan["unlearners"] = list(options["unlearner"])
    if recipe:
        plan["recipe"] = recipe
    if nested:
        plan["options"] = nested
    budget = None if options["budget"] is None else seconds_in(options["budget"], "--budget")
    limits = limits_of(options["max_accuracy_loss"], budget)
    return methods_of(registry, plan, limits, options["seed"], dataset, options["suspects_by"])


def _carried_out(ctx: click.Context, options: dict[str, Any], tell: Tell, kept: Kept) -> Found:
    """Read, look whether it fits, repair, and write."""
    from cutk.repair.page import page, thumbnails
    from cutk.repair.repairing import repair
    from cutk.repair.suspects import as_csv
    from cutk.repair.triggers import read_trigger
    from cutk.repair.unlearning import posed
    from cutk.repair.weights import noted
    from cutk.repair.writing import require_room, save_weights, written

    registry = load_plugins(ctx)
    words, more_options = sorted_words(options, "unlearn")
    nested = settings((*options["option"], *more_options))
    recipe = recipe_in(options["recipe"], words)
    read = _read(registry, options, nested, tell)
    own = read.own
    require_room(options["out"], sum(tensor.nbytes for tensor in own.weights.tensors.values()))
    methods = _methods(registry, options, recipe, nested, own.entry.component)
    problem = posed(
        *(own.model, read.given, read.bad, read.held_out, methods),
        normalisation=normalisation_of(options, read.given, own.weights.note),
        bgr=options["channels"] == "bgr",
        workers=workers_for(options, read.given),
        build=own.build,
        tell=tell,
    )
    problem.positions, problem.hashes = read.positions, read.hashes
    problem.unreadable = len(own.given) - len(read.given)
    say(problem.sanity.line)
    form = options["form"] or ("safetensors" if options["weights"].suffix == ".safetensors" else "pt")
    if own.weights.within:
        _told_of_the_rest(own.weights, options["weights"], form)
    if problem.sanity.near_chance:
        near_chance(problem.sanity.tried, problem.sanity.fits, options["force"])
    elif problem.sanity.fits:
        warn(f"That is little. Tried: {problem.sanity.tried}. What would fit better: {problem.sanity.fits}.")
    samples, material = (read.given, read.held_out), None
    if options["bundle"]:
        material = bundling.material_from(registry, options, own, samples, problem, methods, tell)
    if options["suspect_trigger"]:
        bgr, file = options["channels"] == "bgr", options["suspect_trigger"].expanduser()
        problem.suspect(read_trigger(file, problem.task.train.shape, bgr))
    left = take_up(kept, problem, methods, options["resume"])
    calibration = foretold(problem, methods, left, registry, options)
    gc.freeze()  # what was imported stays, and looking through it again and again takes long
    command = printable(shlex.join(["cutk", *(ctx.obj or {}).get("arguments", ())]))
    found = repair(problem, methods, saying(), tell, command, kept)
    if calibration is not None:
        found.report = calibration.added_to(found.report, tell)
    report, inner = found.report, found.model.inner
    pictures = thumbnails(problem.task.train, found.moved, options["channels"] == "bgr")
    texts = {"report.html": page(report, found.suspects, pictures), "suspects.csv": as_csv(found.suspects)}
    tensors = own.weights.renamed(inner.state_dict()) if report.repaired else None  # type: ignore[union-attr]
    norm = problem.task.train.normalisation
    about = {**own.weights.note, "model": options["model"], **own.prepared}
    note = noted(problem.classes, norm, about)

    def save(folder: Path) -> None:
        if tensors is not None:
            content = tensors if form == "safetensors" else own.weights.put_back(tensors)
            save_weights(folder / f"model.{form}", content, {**own.weights.metadata, **note})
        if material is not None:
            from cutk.repair.bundle.writing import write_bundle

            model = None if tensors is None else bundling.as_written(inner, own.weights, tensors)  # type: ignore[arg-type]
            write_bundle(folder, material, report, model, f"model.{form}", tell)

    written(options["out"], report, texts, save, force=options["force"])
    if tensors is not None and form == "pt" and own.weights.note:
        say(unsaid(options["out"] / "model.pt", norm, problem.classes, own.prepared))
    return found


def _told_of_the_rest(weights: Weights, file: Path, form: str) -> None:
    """Say what becomes of what lies beside the weights."""
    there = f"The weights lie under '{weights.within}' in '{file}'"
    beside, copies = weights.beside(), weights.copies()
    if form == "safetensors":
        say(f"{there}. What else is there isn't written: a .safetensors file holds tensors alone.")
        return
    if beside:
        say(f"{there}. What is written holds the rest as it was: {conjoined(beside)}.")
    if copies:
        warn(f"'{file}' holds other weights, too, and these aren't repaired: {conjoined(copies)}. Don't use them.")


def _require_apart(given: Given, held_out: Given, force: bool) -> None:
    from cutk.repair.sources import overlap

    shared = overlap(given, held_out)
    if not shared:
        return
    named = [held_out.names[i] if held_out.names else str(i) for i in shared[:5]]
    said = f"{len(shared)} of {len(held_out)} validation samples are among the training samples ({', '.join(named)})"
    if not force:
        raise UsageError(f"--validation: {said}: expected others. Take them out, or go on with --force.")
    warn(said)
