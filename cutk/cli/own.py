"""What the commands for models and data of the user's own have in common: their options, and what these mean."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from cutk.cli import completion
from cutk.cli.messages import warn
from cutk.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from cutk.data.given import Given
    from cutk.data.samples import Normalisation
    from cutk.plugins.registry import Entry, Registry
    from cutk.repair.weights import Weights
    from cutk.run.observer import Observer

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    *("Checkpoint", "as_noted", "bad_option", "checkpoint_from", "data_options", "dataset_options", "drop_used"),
    "given_from",
    *("hand_over", "machine_options", "measured", "model_options", "near_chance", "normalisation_of", "ordered"),
    *("preparation", "preparing_options", "recipe_option"),
    *("require_new", "same_classes", "saying", "seconds_in", "seed_option", "unsaid", "workers_for"),
]

# From so many samples on, others read ahead.
_MANY = 4096


def numbers(_ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Read numbers separated by commas."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise UsageError(f"--{parameter.name}: expected numbers separated by commas, got '{text}'.")
    return found


def _several(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_NOTED = "what is noted with the weights, or the data's own, or 0 and 1"


def preparing_options(neither: str = _NOTED) -> Callable[[F], F]:
    """Give a command the options that say how samples reach the model; ``neither`` --mean nor --std: what holds."""
    mean = f"What is subtracted; 0 with --std alone. With neither, {neither}."
    std = "What it is divided by; 1 with --mean alone."
    return _several(
        [
            click.option("--mean", callback=numbers, metavar="A,…", help=mean),
            click.option("--std", callback=numbers, metavar="A,…", help=std),
            click.option("--normalise", is_flag=True, help="Measure both on the training data instead."),
            click.option("--size", type=click.IntRange(1), metavar="N", help="Scale and crop images to N×N pixels."),
            click.option(
                "--channels",
                type=click.Choice(["rgb", "bgr", "grey"]),
                help="What images are read as; as is noted with the weights, or rgb.",
            ),
            click.option("--classes", metavar="NAME,…", help="Classes in the order of the model's outputs."),
        ]
    )


def data_options(neither: str = _NOTED) -> Callable[[F], F]:
    """Give a command the options that say where the data are and how they reach the model, as ``preparing_options``."""
    return _several(
        [
            click.option(
                "--data",
                required=True,
                metavar="NAME",
                shell_complete=completion.names("--dataset"),
                help="The training data: folder:DIR, arrays:FILE, csv:FILE, or another dataset.",
            ),
            preparing_options(neither),
            click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the data lie."),
            click.option("--download", is_flag=True, help="Allow the dataset to be fetched."),
            click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes that read images."),
        ]
    )


def model_options(function: F) -> F:
    """Give a command the options that name a network and its weights."""
    return _several(
        [
            click.option(
                "--model",
                required=True,
                metavar="NAME",
                shell_complete=completion.names("--model"),
                help="A network by name, package.module:function or file.py:function.",
            ),
            click.option(
                "--weights",
                required=True,
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="A .safetensors file, or a state dict that torch.save wrote.",
            ),
        ]
    )(function)


bad_option = click.option(
    "--bad",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The samples known to be bad: indices or file names, as .txt, .csv or .json.",
)


def recipe_option(function: F) -> F:
    """Give a command the option ``--recipe``."""
    return click.option(
        "--recipe",
        multiple=True,
        metavar="[NAME] NAME=VALUE …",
        shell_complete=completion.recipe,
        help="How models are trained: a recipe, what it is told, or both, such as steps=500.",
    )(function)


def machine_options(function: F) -> F:
    """Give a command the options that say how it computes."""
    return _several(
        [
            click.option(
                "--option",
                "-o",
                multiple=True,
                metavar="COMPONENT.NAME=VALUE",
                shell_complete=completion.options,
                help="Set an option; see: cutk plugins show.",
            ),
            click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps."),
            click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="fp32 if not given."),
        ]
    )(function)


seed_option = click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, metavar="N", help="Of all chance.")

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def seconds_in(text: str, option: str) -> float:
    """Return a duration in seconds: ``90s``, ``10min``, ``1.5h``.

    >>> seconds_in("10min", "--budget")
    600.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise UsageError(f"{option}: expected a duration such as 90s, 10min or 2h, got '{text}'.")
    return float(found[1]) * _UNITS[found[2]]


def dataset_options(entry: Entry, options: dict[str, Any], nested: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return what the command line says to a dataset, by its own names."""
    said: dict[str, Any] = {
        "root": options["data_root"],
        "download": options["download"] or None,
        "size": options.get("size"),
        "grey": options.get("channels") == "grey" or None,
    }
    spelled = {"root": "--data-root", "download": "--download", "size": "--size", "grey": "--channels grey"}
    fields = entry.component.Options.model_fields
    for name, value in said.items():
        if value is not None and name not in fields:
            raise UsageError(f"Dataset '{entry.name}' has no use for {spelled[name]}. Leave it out.")
        if value is not None and name in entry.given:
            raise UsageError(f"{spelled[name]}: '{entry.name}' says it already. Leave one out.")
    noted = options.get("noted", {})
    return {
        **{name: value for name, value in noted.items() if value is not None and name in fields},
        **{name: value for name, value in said.items() if value is not None},
        **nested.get(entry.family, {}),
        **nested.get(entry.name, {}),
    }


def given_from(
    registry: Registry, name: str, options: dict[str, Any], nested: dict[str, dict[str, str]]
) -> tuple[Given, Entry, Path | None]:
    """Return what a dataset's name stands for: its samples, who provides them, and where they lie."""
    from cutk.repair.sources import data_of

    entry = registry.get("dataset", name)
    said = dataset_options(entry, options, nested)
    place = {**entry.given, **said}.get("root")
    return data_of(entry, said), entry, None if place is None else Path(place).expanduser()


def as_noted(options: dict[str, Any], note: Mapping[str, Any]) -> None:
    """Keep what is noted with the weights of the size and channels of images, for where nothing is said.

    Channels are rgb where neither says otherwise. What is noted is told to those datasets that have an option for it.
    """
    size, channels = note.get("size"), note.get("channels")
    grey = True if options["channels"] is None and channels == "grey" else None
    options["noted"] = {"size": size if type(size) is int and size > 0 else None, "grey": grey}
    if options["channels"] is None:
        options["channels"] = "bgr" if channels == "bgr" else "rgb"


def preparation(
    entry: Entry, options: dict[str, Any], nested: dict[str, dict[str, str]], note: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the size and channels of images as they are noted with weights; None where there is nothing to note.

    That is as a dataset reads them, and as was noted before of what it has no option for.
    """
    from cutk.options import parse_options

    chosen = {**entry.given, **dataset_options(entry, options, nested)}
    made = parse_options(entry.component.Options, chosen, entry.name)
    grey = getattr(made, "grey", note.get("channels") == "grey")
    channels = "bgr" if options["channels"] == "bgr" else "grey" if grey else None
    return {"size": getattr(made, "size", note.get("size")), "channels": channels}


class Checkpoint(NamedTuple):
    """What the files hold that ``--model``, ``--weights`` and ``--data`` name."""

    weights: Weights
    model: nn.Module  # with the weights
    build: Callable[[], nn.Module]  # makes it with new ones
    given: Given  # with the classes in the order of the model's outputs
    entry: Entry  # the dataset
    root: Path | None  # where the data lie
    prepared: dict[str, Any]  # the size and channels of images, as they are noted with weights


def checkpoint_from(registry: Registry, options: dict[str, Any], nested: dict[str, dict[str, str]]) -> Checkpoint:
    """Read weights and data, what is quickly read first, and put the weights into the network."""
    from cutk.repair.sources import builder, sample_shape
    from cutk.repair.weights import fitted, read_weights

    weights = read_weights(options["weights"].expanduser())
    as_noted(options, weights.note)
    given, entry, root = given_from(registry, options["data"], options, nested)
    given = ordered(given, options, weights.note)
    own = nested.get(options["model"].partition(":")[0], {})
    build = builder(options["model"], registry, own, sample_shape(given), len(given.classes))
    model = build()
    fitted(weights, model, options["weights"], len(given.classes))
    return Checkpoint(weights, model, build, given, entry, root, preparation(entry, options, nested, weights.note))


def drop_used(nested: dict[str, dict[str, str]], model: str, *entries: Entry) -> None:
    """Take out of ``nested`` the options of data and network, which have them by now."""
    for name in (model.partition(":")[0], *(name for entry in entries for name in (entry.name, entry.family))):
        nested.pop(name, None)


def measured(options: dict[str, Any], given: Given) -> Normalisation:
    """Return the samples' own means and deviations, in the order of channels in which the model sees them."""
    from cutk.repair.inputs import measured_on

    return _as_seen(measured_on(given), options, given)


def _as_seen(found: Normalisation, options: dict[str, Any], given: Given) -> Normalisation:
    from cutk.repair.sources import sample_shape

    return found.reversed() if options["channels"] == "bgr" and len(sample_shape(given)) == 3 else found


def normalisation_of(options: dict[str, Any], given: Given, note: dict[str, Any]) -> Normalisation | None:
    """Return what images or features are normalised with: as asked for, as noted with the weights, or none.

    ``given`` are samples as they lie in their files; what is returned is for channels in the order that was asked for.
    """
    from cutk.data.samples import Normalisation
    from cutk.repair.sources import sample_shape

    mean, std = options["mean"], options["std"]
    if options["normalise"]:
        if mean is not None or std is not None:
            raise UsageError("Give --normalise, or --mean and --std; not both.")
        return measured(options, given)
    if mean is None and std is None:
        if isinstance(note.get("mean"), list) and isinstance(note.get("std"), list):
            mean, std = note["mean"], note["std"]
        else:
            return given.normalisation and _as_seen(given.normalisation, options, given)
    channels = sample_shape(given)[0]
    found = []
    for flag, values in (("--mean", mean or (0.0,)), ("--std", std or (1.0,))):
        if len(values) not in (1, channels):
            raise UsageError(f"{flag}: expected one number, or one for each of {channels} channels, got {len(values)}.")
        found.append(tuple(map(float, values)) if len(values) == channels else (float(values[0]),) * channels)
    if not all(value > 0 for value in found[1]):
        raise UsageError("--std: expected numbers above 0.")
    return Normalisation(found[0], found[1])


def ordered(given: Given, options: dict[str, Any], note: dict[str, Any]) -> Given:
    """Return samples with their classes in the order of the model's outputs, where that is said or noted."""
    from cutk.repair.sources import in_order

    if options["classes"]:
        return in_order(given, [name.strip() for name in options["classes"].split(",")], "--classes")
    noted = note.get("classes")
    if isinstance(noted, list) and set(given.classes) <= set(map(str, noted)):
        return in_order(given, [str(name) for name in noted], "The weights' classes")
    return given


def workers_for(options: dict[str, Any], given: Given) -> int:
    """Return how many processes read samples: those asked for, or some where there are many files."""
    import os

    from cutk.data.samples import Samples

    if options["workers"] is not None:
        return int(options["workers"])
    return 0 if isinstance(given.content, Samples) or len(given) < _MANY else min(4, os.cpu_count() or 1)


def same_classes(held_out: Given, classes: tuple[str, ...]) -> Given:
    """Return validation samples with the classes of the training samples."""
    from cutk.repair.sources import in_order

    return replace(in_order(replace(held_out, validation=None), classes, "--validation"), normalisation=None)


def require_new(out: Path, force: bool) -> None:
    """Refuse to write over a file, unless that is asked for, and where nothing can be written."""
    from cutk.repair.writing import require_place

    require_place(out)
    if out.exists() and not force:
        raise UsageError(f"--out: '{out}' is there already. Choose another, or replace it with --force.")


def hand_over(table: str, out: Path | None, said: str) -> None:
    """Print a table, or write it to ``out`` and say what it comes to."""
    if out is None:
        click.echo(table, nl=False)
        return
    from cutk.report.files import write_file

    write_file(out, table)
    click.echo(f"Wrote '{out}'. {said}")


def saying() -> Observer:
    """Return an observer that passes warnings on to stderr."""
    from cutk.run.observer import Observer

    class Saying(Observer):
        """Passes warnings on."""

        name = "saying"

        def warning(self, text: str) -> None:
            warn(text)

    return Saying()


def unsaid(file: Path, normalisation: Normalisation | None, classes: Sequence[str], prepared: Mapping[str, Any]) -> str:
    """Return the options that say how samples reach the model, which a file that holds tensors alone can't; or none.

    ``prepared`` is what ``preparation`` says.
    """
    words: list[str] = []
    for name in ("size", "channels"):
        if prepared[name] is not None:
            words += [f"--{name}", str(prepared[name])]
    if normalisation is not None and normalisation.mean:
        for flag, values in (("--mean", normalisation.mean), ("--std", normalisation.std)):
            texts = [f"{value:.6g}" for value in values]
            words += [flag, texts[0] if len(set(texts)) == 1 else ",".join(texts)]
    if classes:
        words += ["--classes", ",".join(classes)]
    if not words:
        return ""
    return f"'{file}' can't say how samples reach the model, as .safetensors does. Give others {shlex.join(words)}"


def near_chance(tried: str, fits: str, force: bool, about: str = "") -> None:
    """Say what may be wrong with weights that are near chance, and stop unless it is to go on.

    ``about`` says what is near chance, where nothing has said it before.
    """
    from cutk.repair.sanity import advice

    if not force:
        raise UsageError(f"{about}{advice(tried, fits, '--force')}")
    warn(f"{about}{advice(tried, fits)}")
