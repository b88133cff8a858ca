"""``cutk detect``: which further training samples look like those that are known to be bad."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutk.cli import completion
from cutk.cli.common import Command, load_plugins, plugin_option, recipe_in, settings, sorted_words
from cutk.cli.logs import log_level_option
from cutk.cli.messages import say
from cutk.cli.own import (
    bad_option,
    checkpoint_from,
    data_options,
    drop_used,
    hand_over,
    machine_options,
    model_options,
    near_chance,
    normalisation_of,
    recipe_option,
    require_new,
    seed_option,
    workers_for,
)
from cutk.cli.unreadable import advising, readable, skip_option
from cutk.errors import UsageError

if TYPE_CHECKING:
    from cutk.repair.problem import Tell


@click.command(cls=Command, context_settings={"max_content_width": 100})
@plugin_option
@model_options
@data_options()
@bad_option
@click.option(
    "--detector",
    required=True,
    metavar="NAME",
    shell_complete=completion.names("--detector"),
    help="Who ranks the others; see: cutk plugins list.",
)
@recipe_option
@machine_options
@seed_option
@skip_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table there, in place of the terminal."
)
@click.option("--force", is_flag=True, help="Go on though the weights don't fit the data; replace the file.")
@log_level_option
@click.argument("more", nargs=-1, metavar="", shell_complete=completion.recipe_words)
@click.pass_context
def detect(ctx: click.Context, /, **options: Any) -> int:
    """Rank training samples by how likely they are bad, as those are that are known to be.

    Writes a table (CSV), the most suspicious first, of samples that aren't on the list: those that score 0.1 or more.

    \b
    cutk detect --model my_net.py:build --weights model.pt --data folder:photos --bad bad.txt --detector seeded-probe
    """  # noqa: D301  # click looks for the character itself
    from cutk.cli.progress import telling

    out = None if options["out"] is None else options["out"].expanduser()
    if out is not None:
        require_new(out, options["force"])
    # What a plugin or the user's own module prints is no result.
    with telling() as tell, contextlib.redirect_stdout(sys.stderr), advising(options["skip_unreadable"]):
        text, said = _detected(ctx, options, tell)
    hand_over(text, out, said)
    if out is None:
        say(said)
    return 0


def _detected(ctx: click.Context, options: dict[str, Any], tell: Tell) -> tuple[str, str]:
    """Read, look whether it fits, and ask the detector; return the table, and what it comes to."""
    from cutk.problem.expansion import SUSPECT
    from cutk.repair.problem import methods_of
    from cutk.repair.records import Limits
    from cutk.repair.sources import bad_in
    from cutk.repair.suspects import LEAST, SUSPECTED, as_csv, detected, probabilistic
    from cutk.repair.unlearning import posed

    dataset: Any
    registry = load_plugins(ctx)
    words, more_options = sorted_words(options, "detect")
    nested = settings((*options["option"], *more_options))
    wanted = registry.get("detector", options["detector"])
    own = checkpoint_from(registry, options, nested)
    bad, _ = bad_in(options["bad"].expanduser(), own.given, own.root)
    given, bad, positions = readable(own.given, bad, options["skip_unreadable"], tell)
    dataset = own.entry.component
    drop_used(nested, options["model"], own.entry)
    for name in nested:
        if name not in (wanted.name, wanted.family):
            raise UsageError(f"Options for '{name}' are given, and it isn't used: {wanted.name}.")
    plan: dict[str, Any] = {name: options[name] for name in ("device", "precision") if options[name] is not None}
    if recipe := recipe_in(options["recipe"], words):
        plan["recipe"] = recipe
    methods = methods_of(
        registry,
        {**plan, "options": nested} if nested else plan,
        Limits(max_accuracy_loss=0),
        options["seed"],
        dataset,
        wanted.name,
    )
    problem = posed(
        *(own.model, given, bad, None, methods),
        normalisation=normalisation_of(options, given, own.weights.note),
        bgr=options["channels"] == "bgr",
        workers=workers_for(options, given),
        build=own.build,
        tell=tell,
    )
    problem.positions = positions
    say(problem.sanity.line)
    if problem.sanity.near_chance:
        near_chance(problem.sanity.tried, problem.sanity.fits, options["force"])
    asked = methods.detector
    found = [] if asked is None else detected(problem, asked, methods.seed, tell=partial(tell, asked.name))
    count = sum(one.score > SUSPECT for one in found)
    verdict = SUSPECTED[asked is None or probabilistic(asked)]
    said = f"{count} of {len(problem.task.retained)} further samples are {verdict}."
    if not found:
        said += f" None reached the score of {LEAST}, from which on samples are listed."
    task = problem.task
    listed = {problem.classes[label] for label in task.train.labels.cpu()[task.identified.cpu()].tolist()}
    if others := [name for name in problem.classes if name not in listed | {one.label for one in found}]:
        said += f" None is labelled {', '.join(others)}, nor is any on the list: many look under its labels alone."
    return as_csv(found, repaired=False), said
