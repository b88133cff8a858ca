"""``cutk evaluate``: a benchmark's metrics of a checkpoint that comes from elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutk.cli import completion
from cutk.cli.common import Command, load_plugins, plugin_option, recipe_in, settings, sorted_words
from cutk.cli.logs import log_level_option
from cutk.cli.messages import warn
from cutk.cli.own import (
    as_noted,
    dataset_options,
    machine_options,
    model_options,
    normalisation_of,
    ordered,
    preparing_options,
    recipe_option,
    seed_option,
)
from cutk.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cutk.components import Dataset
    from cutk.data.samples import Samples, Splits
    from cutk.run.records import Attempt
    from cutk.run.setup import Setup


@click.command(cls=Command, context_settings={"max_content_width": 100})
@plugin_option
@model_options
@click.option(
    "--dataset", "-d", required=True, metavar="NAME", shell_complete=completion.names("--dataset"), help="The data."
)
@click.option(
    "--manipulation",
    "-m",
    required=True,
    metavar="NAME",
    shell_complete=completion.names("--manipulation"),
    help="What went wrong with the training data.",
)
@click.option(
    "--metric", multiple=True, metavar="NAME", shell_complete=completion.names("--metric"), help="Measure this, too."
)
@preparing_options("what is noted with the weights, or what cutk bench takes")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the data lie.")
@click.option("--download", is_flag=True, help="Allow the dataset to be fetched.")
@recipe_option
@machine_options
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@log_level_option
@click.argument("more", nargs=-1, metavar="", shell_complete=completion.recipe_words)
@click.pass_context
def evaluate(ctx: click.Context, /, **options: Any) -> int:
    """Measure a checkpoint as bench measures its models: on what a manipulation affects, on the rest, and on all clean.

    The manipulation is that of cutk bench with the same --seed. Metrics of an unlearning (its time, say) aren't there.
    Without --mean and --std, images are normalised as is noted with the weights, or as cutk bench does it.

    \b
    cutk evaluate --model convnet-small --weights model.safetensors -d digits -m badnet
    """  # noqa: D301  # click looks for the character itself
    with contextlib.redirect_stdout(sys.stderr):
        values, breakdowns, failed = _evaluated(ctx, options)
    if options["as_json"]:
        click.echo(json.dumps({"metrics": values, "breakdowns": breakdowns, "failed": failed}, indent=2))
    else:
        width = max(map(len, values), default=0)
        for name, value in values.items():
            click.echo(f"{name.replace('_', ' '):{width}}  {value:.4f}")
    for name, reason in failed.items():
        warn(f"{name} gave no number: {reason}")
    return 1 if failed else 0


def _setup(ctx: click.Context, options: dict[str, Any], note: Mapping[str, Any]) -> tuple[Setup, Any]:
    """Return the benchmark whose metrics these are, with nothing to unlearn."""
    from cutk.repair.problem import PRESET
    from cutk.run.plan import Plan, layer, over_default, read_preset
    from cutk.run.setup import resolve

    registry = load_plugins(ctx)
    words, more_options = sorted_words(options, "evaluate")
    over: dict[str, Any] = {
        "dataset": options["dataset"],
        "manipulations": [options["manipulation"]],
        "seeds": [options["seed"]],
        "alphas": [1.0],  # nobody is told anything: where little is manipulated, a part of that may be none
        "unlearners": read_preset(PRESET, registry)["unlearners"],
        "summaries": [],
        "precision": options["precision"] or "fp32",
        "options": settings((*options["option"], *more_options)),
    }
    if options["device"]:
        over["device"] = options["device"]
    if recipe := recipe_in(options["recipe"], words):
        over["recipe"] = recipe
    entry = registry.get("dataset", options["dataset"])
    as_noted(options, note)
    if said := dataset_options(entry, options, over["options"]):
        over["options"][entry.name] = said
    content = over_default(None, registry)
    if options["metric"]:
        over["metrics"] = [*content["metrics"], *options["metric"]]
    own = options["model"].partition(":")[0]
    model_options = over["options"].pop(own, {})
    return resolve(Plan.parse(layer(content, over)), registry), (registry, model_options)


def _evaluated(
    ctx: click.Context, options: dict[str, Any]
) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, str]]:
    from cutk.data.given import Given
    from cutk.problem.truth import Evaluation, accuracy
    from cutk.repair.inputs import class_counts, require_logits, set_of
    from cutk.repair.sources import builder
    from cutk.repair.weights import fitted, read_weights
    from cutk.run.measuring import measure
    from cutk.run.observer import Observer
    from cutk.run.records import Attempt
    from cutk.run.store import Store
    from cutk.run.worker import Worker

    weights = read_weights(options["weights"].expanduser())
    setup, (registry, model_options) = _setup(ctx, options, weights.note)
    prepare = partial(_as_trained, options=options, note=weights.note)
    with tempfile.TemporaryDirectory(prefix="cutk-") as folder:
        worker = Worker(setup, Store(Path(folder)), prepare=prepare, trains=False)
        (composed,) = setup.manipulations
        scenario = worker.scenario(composed.name, options["seed"])
        samples = worker.splits.train
        _told_of_the_split(setup.dataset.make(), options["dataset"])
        model = builder(options["model"], registry, model_options, samples.shape, len(samples.classes))()
        fitted(weights, model, options["weights"], len(samples.classes))
        placed = worker.recipe.place(model.float()).eval()
        # Unseen samples as they are, whatever a manipulation is about.
        test, norm, device = worker.splits.test, worker.splits.scale, worker.recipe.device
        unseen = set_of(Given.of_samples(test, norm), None, None, device, num_classes=len(test.classes))
        if (outputs := require_logits(placed, unseen)) != len(test.classes):
            raise UsageError(class_counts(outputs, test.classes))
        attempt = Attempt()
        measurements = worker.measurements[composed.name]
        measure(measurements, Evaluation(scenario.truth, placed, worker.recipe), attempt, Observer())
        clean = accuracy(worker.recipe.predict(placed, unseen), test.labels)
    names = {measurement.identity: measurement.name for measurement in measurements}
    values, breakdowns, failed = _split(attempt, names)
    return ({} if clean is None else {"clean_accuracy": clean}) | values, breakdowns, failed


def _told_of_the_split(dataset: Dataset, name: str) -> None:
    """Warn where there are no test samples but those that a checkpoint of one's own was trained on, too."""
    given = dataset.given()
    if given is not None and given.validation is None:
        warn(
            f"'{name}' holds no test samples: what is measured on here was split off at random, and a checkpoint that "
            "was trained on all of it has seen that. Give data with test samples of their own, such as ROOT/train and "
            "ROOT/test of folder:ROOT."
        )


def _as_trained(splits: Splits, options: dict[str, Any], note: dict[str, Any]) -> Splits:
    """Return data as they reach the model: what was said to the command or noted with the weights, bench's way else."""
    from cutk.data.given import Given
    from cutk.repair.inputs import channels_in_order

    def prepared(samples: Samples) -> Samples:
        given = ordered(Given.of_samples(samples), options, note)
        content: Samples = given.content  # type: ignore[assignment]
        return channels_in_order(content, options["channels"] == "bgr")

    held_out = None if splits.validation is None else prepared(splits.validation)
    train = prepared(splits.train)
    norm = normalisation_of(options, Given.of_samples(splits.train, splits.normalisation), note)
    return replace(splits, train=train, test=prepared(splits.test), validation=held_out, normalisation=norm)


def _split(
    attempt: Attempt, names: dict[str, str]
) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, str]]:
    values, breakdowns = {}, {}
    for identity, name in names.items():
        value = attempt.metrics.get(identity)
        if isinstance(value, dict):
            breakdowns[name] = value
        elif value is not None:
            values[name] = value
    return values, breakdowns, {names[identity]: why for identity, why in attempt.failed_metrics.items()}
