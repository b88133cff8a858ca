"""Where numbers come from: data, manipulation, model, recipe, seeds, hardware and versions."""

from __future__ import annotations

from collections.abc import Iterable

from cutk.report.code import several
from cutk.report.experiments import Experiment
from cutk.report.naming import compact, listed, with_options
from cutk.run.records import Environment


def facts_of(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """Return what a reader has to know of where the numbers come from, under a word each."""
    training, environments = experiment.training, experiment.environments
    manipulations = [
        f"{setting.name}, |S_m| = {setting.size}, {counted(len(setting.seeds), 'seed')} "
        f"({listed(setting.options) or 'no options'})"
        for setting in experiment.settings
    ]
    code = [f"{name}: {', '.join(found)}" for name, found in several(experiment.runs).items()]
    recipe = f"{with_options(training.recipe)}, validation_fraction={compact(training.validation_fraction)}"
    return [
        ("Data", [f"{experiment.dataset}, fingerprint {training.data[:12]}"]),
        ("Manipulation", manipulations),
        ("Model", [with_options(training.model)]),
        ("Recipe", [recipe]),
        ("Hardware", list(dict.fromkeys(map(machine, environments)))),
        ("Versions", list(dict.fromkeys(map(versions, environments)))),
        *([("Code of several versions", code)] if code else []),
    ]


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 seed``, ``3 seeds``."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def machine(environment: Environment) -> str:
    """Return the hardware and how it was used, in words."""
    capability = f", {environment.capability}" if environment.capability else ""
    threads = counted(environment.threads, "thread")
    return f"{environment.device} ({environment.hardware}{capability}, {threads}), {environment.precision}"


def versions(environment: Environment) -> str:
    """Return the versions in words."""
    found = {**environment.providers, "torch": environment.torch, "Python": environment.python}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def mixed(environments: Iterable[Environment]) -> str:
    """Say in what the environments of runs that are shown together differ, nothing if in nothing that changes digits.

    >>> one = Environment(torch="2.4", python="3.11", device="cpu", hardware="A", threads=1, precision="fp32")
    >>> mixed([one, one.model_copy(update={"threads": 2})])
    'threads: 1, 2'
    """
    fields = ("torch", "device", "hardware", "capability", "threads", "precision")
    found = list(environments)
    values = {name: sorted({str(getattr(environment, name)) for environment in found}) for name in fields}
    return "; ".join(f"{name}: {', '.join(texts)}" for name, texts in values.items() if len(texts) > 1)


def origin_of(experiment: Experiment) -> str:
    """Return in one line what a figure of an experiment was made of."""
    settings = "; ".join(
        f"{setting.title}, seeds {', '.join(map(str, setting.seeds))}" for setting in experiment.settings
    )
    machines = dict.fromkeys(f"{machine(found)}; {versions(found)}" for found in experiment.environments)
    return f"{experiment.name}: {settings}. {'; '.join(machines)}."
