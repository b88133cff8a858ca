"""``cutk train``: an original as bench trains it, on given data."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from cutk.cli import completion
from cutk.cli.common import Command, load_plugins, plugin_option, recipe_in, settings, sorted_words
from cutk.cli.logs import log_level_option
from cutk.cli.messages import say
from cutk.cli.own import (
    as_noted,
    data_options,
    drop_used,
    given_from,
    machine_options,
    measured,
    normalisation_of,
    ordered,
    preparation,
    recipe_option,
    require_new,
    same_classes,
    seed_option,
    unsaid,
    workers_for,
)
from cutk.errors import UsageError


@click.command(cls=Command, context_settings={"max_content_width": 100})
@plugin_option
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=completion.names("--model"),
    help="A network by name, package.module:function or file.py:function; by default the one that suits the data.",
)
@data_options(neither="the data's own, or what is measured on those to train on")
@recipe_option
@machine_options
@seed_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("model.safetensors"),
    show_default=True,
    metavar="FILE",
    help="Where the weights go: .safetensors, or any other ending for a state dict.",
)
@click.option("--force", is_flag=True, help="Replace the file.")
@log_level_option
@click.argument("more", nargs=-1, metavar="", shell_complete=completion.recipe_words)
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train a network by a recipe on given data, and write its weights.

    Trains as cutk bench trains an original. Of a .safetensors file the metadata hold the order of the classes, the
    normalisation, and what images were scaled to and read as, which cutk unlearn, detect, evaluate and predict take
    from there; of another file the options that say it are printed. Without --mean and --std both are measured on the
    training data, where these don't say them.

    \b
    cutk train --model resnet9 --data folder:photos --size 32 --recipe steps=2000 lr=0.1 --out model.safetensors
    """  # noqa: D301  # click looks for the character itself
    from cutk.cli.progress import telling

    out = options["out"].expanduser()
    require_new(out, options["force"])
    try:
        with telling() as tell, contextlib.redirect_stdout(sys.stderr):
            line, options_left = _trained(ctx, options, out, tell)
    except KeyboardInterrupt:
        say("Interrupted. Nothing was written, and a training begins anew.")
        raise click.exceptions.Abort from None
    click.echo(line)
    if options_left:
        say(options_left)
    return 0


def _trained(ctx: click.Context, options: dict[str, Any], out: Path, tell: Any) -> tuple[str, str]:
    """Write the weights; return how good they are, and how samples reach them, where the file can't say that."""
    import torch
    from safetensors import SafetensorError

    from cutk.problem.truth import accuracy
    from cutk.repair.inputs import class_counts, require_logits, set_of
    from cutk.repair.problem import methods_of
    from cutk.repair.records import Limits
    from cutk.repair.sources import builder, sample_shape
    from cutk.repair.training import training_task
    from cutk.repair.verdict import percent
    from cutk.repair.weights import noted
    from cutk.repair.writing import require_room, save_weights, why_unwritten
    from cutk.run.files import apart

    registry = load_plugins(ctx)
    words, more_options = sorted_words(options, "train")
    nested = settings((*options["option"], *more_options))
    as_noted(options, {})
    given, entry, _ = given_from(registry, options["data"], options, nested)
    given = ordered(given, options, {})
    component: Any = entry.component
    name = options["model"] or component.model
    if not name:
        raise UsageError(f"Dataset '{entry.name}' suggests no model. Choose one with --model.")
    build = builder(name, registry, nested.get(name.partition(":")[0], {}), sample_shape(given), len(given.classes))
    prepared = preparation(entry, options, nested, {})
    drop_used(nested, name, entry)
    plan: dict[str, Any] = {n: options[n] for n in ("device", "precision") if options[n] is not None}
    if recipe := recipe_in(options["recipe"], words):
        plan["recipe"] = recipe
    if nested:
        plan["options"] = nested
    methods = methods_of(registry, plan, Limits(max_accuracy_loss=0), options["seed"], component)
    made = methods.recipe.make().on(methods.device, methods.precision)
    norm = normalisation_of(options, given, {}) or measured(options, given)
    more: Any = {
        "num_classes": len(given.classes),
        "bgr": options["channels"] == "bgr",
        "workers": workers_for(options, given),
    }
    samples = set_of(given, norm, made.options.augmentation, methods.device, **more)
    network = build()
    require_room(out, sum(tensor.nbytes for tensor in network.state_dict().values()))
    outputs = require_logits(made.place(network), samples)
    if outputs != len(given.classes):
        raise UsageError(class_counts(outputs, given.classes))
    task = training_task(samples, made, build, options["seed"], lambda done, total: tell("training", done, total))
    model = task.retrain(torch.arange(len(samples)))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{os.getpid()}-{out.name}")  # whose ending decides its form
    try:
        save_weights(temporary, apart(model.state_dict()), noted(given.classes, norm, {"model": name, **prepared}))
        temporary.replace(out)
    except (OSError, RuntimeError, SafetensorError) as error:
        why = why_unwritten(error, out.parent)
        raise UsageError(f"--out: '{out}' can't be written ({why}). Choose another place with --out.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    reached = f"{percent(accuracy(made.predict(model, samples), samples.labels) or 0.0)} of the training samples"
    if given.validation is not None:
        held_out = set_of(same_classes(given.validation, given.classes), norm, None, methods.device, **more)
        right = accuracy(made.predict(model, held_out), held_out.labels) or 0.0
        reached = f"{percent(right)} of the samples that weren't trained on, {reached}"
    options_left = ""
    if out.suffix != ".safetensors":
        options_left = unsaid(out, norm, given.classes if options["classes"] else (), prepared)
    return f"Wrote '{out}': right on {reached}.", options_left
