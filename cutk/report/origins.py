"""Where numbers come from: data, manipulation, model, recipe, seeds, hardware and versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cutk.report.experiments import Experiment
from cutk.report.naming import compact, listed
from cutk.run.records import Environment, Identity

__all__ = ["facts_of", "machine", "mixed", "origin_of", "versions"]


def facts_of(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """Return what a reader has to know of where the numbers come from, under a word each."""
    training = experiment.training
    manipulations = [
        f"{setting.name}, |S_m| = {setting.size}, {counted(len(setting.seeds), 'seed')} "
        f"({listed(setting.options) or 'no options'})"
        for setting in experiment.settings
    ]
    machines = dict.fromkeys(machine(environment) for environment in experiment.environments)
    software = dict.fromkeys(versions(environment) for environment in experiment.environments)
    recipe = f"{_chosen(training.recipe)}, validation_fraction={compact(training.validation_fraction)}"
    return [
        ("Data", [f"{experiment.dataset}, fingerprint {training.data[:12]}"]),
        ("Manipulation", manipulations),
        ("Model", [_chosen(training.model)]),
        ("Recipe", [recipe]),
        ("Hardware", list(machines)),
        ("Versions", list(software)),
    ]


def _chosen(identity: Identity) -> str:
    options = listed(identity.options[0]) if identity.options else ""
    return f"{identity.name} ({options})" if options else identity.name


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
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
    settings = "; ".join(f"{setting.title}, seeds {seeds(setting.seeds)}" for setting in experiment.settings)
    machines = dict.fromkeys(f"{machine(found)}; {versions(found)}" for found in experiment.environments)
    return f"{experiment.name}: {settings}. {'; '.join(machines)}."


def seeds(numbers: Sequence[int]) -> str:
    """Return seeds in a row."""
    return ", ".join(map(str, numbers))
