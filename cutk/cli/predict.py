"""``cutk predict``: what a checkpoint says of each sample."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from pathlib import Path
from typing import Any

import click

from cutk.cli.common import Command, load_plugins, plugin_option, settings
from cutk.cli.logs import log_level_option
from cutk.cli.own import (
    checkpoint_from,
    data_options,
    drop_used,
    hand_over,
    machine_options,
    model_options,
    near_chance,
    normalisation_of,
    require_new,
    workers_for,
)
from cutk.cli.unreadable import advising, readable, skip_option
from cutk.errors import UsageError, printable


@click.command(cls=Command, context_settings={"max_content_width": 100})
@plugin_option
@model_options
@data_options()
@machine_options
@skip_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table there, in place of the terminal."
)
@click.option("--force", is_flag=True, help="Replace the file.")
@log_level_option
@click.pass_context
def predict(ctx: click.Context, /, **options: Any) -> int:
    """Write what a checkpoint predicts of each sample, as a table (CSV) in the order of the data.

    \b
    cutk predict --model resnet9 --weights model.safetensors --data folder:clean --out predictions.csv
    """  # noqa: D301  # click looks for the character itself
    from cutk.cli.progress import telling

    out = None if options["out"] is None else options["out"].expanduser()
    if out is not None:
        require_new(out, options["force"])
    with telling() as tell, contextlib.redirect_stdout(sys.stderr), advising(options["skip_unreadable"]):
        text, reached = _predicted(ctx, options, tell)
    hand_over(text, out, reached)
    return 0


def _predicted(ctx: click.Context, options: dict[str, Any], tell: Any) -> tuple[str, str]:
    import torch

    from cutk.machine import choose_device
    from cutk.problem.truth import accuracy
    from cutk.repair.inputs import Adapted, class_counts, require_logits, set_of
    from cutk.repair.judging import outputs
    from cutk.repair.problem import methods_of
    from cutk.repair.records import Limits
    from cutk.repair.sanity import balanced_accuracy, fitting, tried_with
    from cutk.repair.sanity import near_chance as chance
    from cutk.repair.verdict import percent

    registry = load_plugins(ctx)
    nested = settings(options["option"])
    own = checkpoint_from(registry, options, nested)
    drop_used(nested, options["model"], own.entry)
    for name in nested:
        raise UsageError(f"Options for '{name}' are given, and it isn't used.")
    given, _, which = readable(own.given, torch.zeros(0, dtype=torch.int64), options["skip_unreadable"], tell)
    device = choose_device(options["device"] or "auto")
    plan = {"precision": options["precision"]} if options["precision"] else {}
    recipe = methods_of(registry, plan, Limits(max_accuracy_loss=0)).recipe.make()
    recipe = recipe.on(device, options["precision"] or "fp32")
    samples = set_of(
        *(given, normalisation_of(options, given, own.weights.note), None, device),
        num_classes=len(given.classes),
        bgr=options["channels"] == "bgr",
        workers=workers_for(options, given),
    )
    model = recipe.place(Adapted(own.model.float())).eval()
    if (came := require_logits(model, samples)) != len(given.classes):
        raise UsageError(class_counts(came, given.classes))
    says = outputs(model, samples, recipe, lambda done, total: tell("predicting", done, total))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["index", "name", "label", "predicted", "probability of the label"])
    for index in range(len(given)):
        name = given.names[index] if given.names else ""
        label, now = int(given.labels[index]), int(says.predicted[index])
        probability = f"{float(says.of_label[index]):.4f}"
        position = index if which is None else int(which[index])
        writer.writerow([position, name, given.classes[label], given.classes[now], probability])
    reached = percent(accuracy(says.predicted, given.labels) or 0.0)
    said = f"{reached} of {len(given)} samples are predicted as labelled."
    if chance(balanced_accuracy(says.predicted, given.labels), len(torch.unique(given.labels))):
        fits = fitting(model, samples, recipe, given.classes, options["channels"] == "bgr")
        near_chance(tried_with(samples.normalisation, given.classes), fits, force=True, about=f"{said} ")
    return printable(table.getvalue()), said
