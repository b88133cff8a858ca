"""Where numbers come from: data, manipulation, model, recipe, seeds, hardware and versions."""

from __future__ import annotations

from typing import Any

from cutk.report.experiments import Experiment
from cutk.report.naming import compact

__all__ = ["facts_of", "listed", "machine", "origin_of", "versions"]


def listed(options: dict[str, Any]) -> str:
    """Return options in a row."""
    return ", ".join(f"{name}={compact(value)}" for name, value in options.items())


def facts_of(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """Return what a reader has to know of where the numbers come from."""
    training = experiment.training
    model = listed(training.model.options[0]) if training.model.options else ""
    manipulations = []
    for setting in experiment.settings:
        seeds = f"{len(setting.seeds)} seed{'s' if len(setting.seeds) != 1 else ''}"
        options = listed(setting.options) or "no options"
        manipulations.append(f"{setting.name}, |S_m| = {setting.size}, {seeds} ({options})")
    machines = dict.fromkeys(machine(environment) for environment in experiment.environments)
    software = dict.fromkeys(versions(environment) for environment in experiment.environments)
    return [
        ("Data", [f"{experiment.dataset}, fingerprint {training.data[:12]}"]),
        ("Manipulation", manipulations),
        ("Model", [f"{experiment.model} ({model})" if model else experiment.model]),
        ("Recipe", [listed(training.recipe) + f", validation_fraction={compact(training.validation_fraction)}"]),
        ("Hardware", [f"{found}, {training.precision}" for found in machines]),
        ("Versions", list(software)),
    ]


def machine(environment: dict[str, Any]) -> str:
    """Return the hardware in words."""
    threads = environment.get("threads")
    count = f", {threads} thread{'s' if threads != 1 else ''}" if threads is not None else ""
    return f"{environment.get('device', 'unknown device')} ({environment.get('hardware', 'unknown')}{count})"


def versions(environment: dict[str, Any]) -> str:
    """Return the versions in words."""
    providers = environment.get("providers")
    found = {
        **(providers if isinstance(providers, dict) else {}),
        "torch": environment.get("torch", "unknown"),
        "Python": environment.get("python", "unknown"),
    }
    return ", ".join(f"{name} {version}" for name, version in found.items())


def origin_of(experiment: Experiment) -> str:
    """Return in one line what a figure of an experiment was made of."""
    settings = "; ".join(f"{setting.title}, seeds {listed_seeds(setting.seeds)}" for setting in experiment.settings)
    machines = dict.fromkeys(f"{machine(found)}; {versions(found)}" for found in experiment.environments)
    return f"{experiment.name}: {settings}. {'; '.join(machines)}, {experiment.training.precision}."


def listed_seeds(seeds: list[int]) -> str:
    """Return seeds in a row."""
    return ", ".join(map(str, seeds))
