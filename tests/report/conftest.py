"""Runs made by hand, for what reads them."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import pytest

from cutk.report.contents import Contents, installed_summaries
from cutk.run.keys import key_of
from cutk.run.records import SCHEMA, Run
from cutk.run.store import Store

METRICS = {
    "u": ("corrected_accuracy", True, (0.0, 1.0), "unlearning"),
    "r": ("retain_accuracy", True, (0.0, 1.0), "utility"),
    "t": ("unlearn_seconds", False, (0.0, None), ""),
    "c": ("class_accuracy", True, (0.0, 1.0), ""),
    "h": ("ratio", False, (0.0, None), ""),
}
ENVIRONMENT = {
    "torch": "2.4.0",
    "python": "3.11.7",
    "device": "cpu",
    "hardware": "A <fast> machine & more",
    "capability": "AVX2",
    "threads": 1,
    "precision": "fp32",
    "providers": {"cutk": "0.2.0"},
}


def attempt(corrected, retain, seconds=1.0, options=None, *, classes=("cat", "dog"), **over):
    values = {"u": corrected, "r": retain, "t": seconds, "c": dict(zip(classes, (corrected, retain), strict=True))}
    made = {"options": options or {}, "seconds": seconds, "passes": 1.0, "peak_bytes": 2**20, "score": 0.5}
    return {**made, "metrics": values, **over}


def run(unlearner, alpha, seed, attempts, *, manipulation="badnet", manipulated=10, selected=0, **over):
    """Make one run; an unlearner of None at α None is a reference, whose role ``role`` tells."""
    role = over.pop("role", "original" if alpha is None else "unlearned")
    environment = {**ENVIRONMENT, **over.pop("environment", {})}
    prepared = over.pop("prepared", {})
    mangling = over.pop("mangling", {"size": 2})
    how = {"selector": "paper", "identification": "uniform", **over.pop("how", {})}
    names = manipulation.split("+")

    def component(name, *options):
        return {"name": name, "provider": "cutk==0.2.0", "source": "s" * 64, "options": list(options) or [{}]}

    trained = {
        "role": role if alpha is None else "original",
        "data": "d" * 64,
        "corruption": f"{seed:064}",
        "manipulation": [component(name, mangling) for name in names],
        "model": component("tiny", {"width": 4}),
        "recipe": component("sgd", {"steps": 20, "lr": 0.1}),
        "validation_fraction": 0.05,
        "seed": seed,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        **over,
    }
    decided = trained
    if alpha is not None:
        points = [one["options"] for one in attempts]
        others = {name: component(value) for name, value in how.items()}
        decided = {"original": trained, "unlearner": component(unlearner, *points), **others}
        decided |= {"identified": "f" * 64, "alpha": alpha}
    labels = {
        "role": role,
        "dataset": "toy",
        "manipulation": manipulation,
        "model": "tiny",
        "recipe": "sgd",
        "unlearner": unlearner,
        "alpha": alpha,
        "seed": seed,
        "manipulated": manipulated,
        "identified": None if alpha is None else round(alpha * manipulated),
    }
    measured = {
        identity: {
            "name": name,
            "provider": "cutk==0.2.0",
            "summary": f"What {name} means on D_m.",
            "higher_is_better": higher,
            "bounds": bounds,
            "objective": objective,
        }
        for identity, (name, higher, bounds, objective) in METRICS.items()
    }
    return Run.model_validate(
        {
            "schema": SCHEMA,
            "key": key_of(decided),
            "labels": labels,
            "decided_by": decided,
            "provider": "cutk==0.2.0",
            "attempts": attempts,
            "selected": selected,
            "prepared": prepared,
            "measured": measured,
            "environment": environment,
        }
    )


def original(seed, corrected, retain, **over):
    return run(None, None, seed, [attempt(corrected, retain, 10.0)], **over)


def gold(seed, corrected, retain, **over):
    return run(None, None, seed, [attempt(corrected, retain, 10.0)], role="gold", **over)


def grid(selected, other, seconds=1.0):
    """Two points of a grid: the one with the values ``selected``, and another."""
    first = attempt(*selected, seconds, {"weight": 1.0, "batch": 8})
    first["metrics"]["h"] = {"0": 4.0, "0.01": 100.0, "0.1": 1000.0, "1": 30.0, "10": 2.0, "100": 0.0}
    return [first, attempt(*other, seconds, {"weight": 10.0, "batch": 8})]


def everything(**over):
    """Two seeds of two methods at two α; the expectations of the tests are computed from these by hand."""
    runs = [original(0, 0.2, 0.90, **over), original(1, 0.4, 0.92, **over)]
    runs += [gold(0, 0.8, 0.91, **over), gold(1, 1.0, 0.93, **over)]
    for alpha, seed, corrected, retain in (
        *((0.5, 0, 0.5, 0.88), (0.5, 1, 0.7, 0.92)),
        *((1.0, 0, 0.8, 0.86), (1.0, 1, 0.9, 0.88)),
    ):
        runs.append(run("ssd", alpha, seed, grid((corrected, retain), (0.3, 0.5), 2.0 + 2 * seed), **over))
    for alpha, seed, retain in ((0.5, 0, 0.91), (0.5, 1, 0.93), (1.0, 0, 0.92), (1.0, 1, 0.94)):
        runs.append(run("cf", alpha, seed, [attempt(0.3, retain, 8.0)], **over))
    return runs


MADE = SimpleNamespace(
    attempt=attempt, run=run, original=original, gold=gold, grid=grid, everything=everything, ENVIRONMENT=ENVIRONMENT
)


@pytest.fixture(scope="session")
def made():
    """What makes runs: attempt, run, original, gold, grid and everything."""
    return MADE


@pytest.fixture(scope="session")
def contents_of(registry):
    """Put runs in order, with the installed summaries."""

    def go(runs, **over):
        return Contents(runs, installed_summaries(registry), **over)

    return go


@pytest.fixture
def write(tmp_path):
    """Write runs into a folder and return it."""

    def go(runs, folder="runs"):
        store = Store(tmp_path / folder)
        store.open()
        for one in runs:
            store.write(one, {})
        return tmp_path / folder

    return go


@pytest.fixture
def rows(run, write):
    """Report runs as CSV and return its rows."""

    def go(runs, *args):
        ran = run("report", write(runs), *args, "--format", "csv")
        assert ran.code == 0, ran.err
        return list(csv.DictReader(io.StringIO(ran.out)))

    return go
