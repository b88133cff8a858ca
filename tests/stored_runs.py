"""Runs folders made by hand, for what reads them."""

from __future__ import annotations

import hashlib
import json

from cutk.run.store import key_of

METRICS = {
    "u": ("corrected_accuracy", True, [0.0, 1.0], "unlearning"),
    "r": ("retain_accuracy", True, [0.0, 1.0], "utility"),
    "t": ("unlearn_seconds", False, [0.0, None], ""),
    "c": ("class_accuracy", True, [0.0, 1.0], ""),
    "h": ("ratio", False, [0.0, None], ""),
}
MEASURED = {
    identity: {
        "name": name,
        "provider": "cutk==0.1.0",
        "summary": f"What {name} means.",
        "higher_is_better": higher,
        "bounds": bounds,
        "objective": objective,
    }
    for identity, (name, higher, bounds, objective) in METRICS.items()
}
ENVIRONMENT = {
    "torch": "2.4.0",
    "python": "3.11.7",
    "device": "cpu",
    "hardware": "A <fast> machine & more",
    "threads": 1,
    "precision": "fp32",
    "providers": {"cutk": "0.1.0"},
}


def attempt(corrected, retain, seconds=1.0, options=None, **over):
    return {
        "options": options or {},
        "seconds": seconds,
        "passes": 1.0,
        "peak_bytes": 2**20,
        "score": 0.5,
        "validation_accuracy": 0.5,
        "changed_fraction": 0.5,
        "metrics": {"u": corrected, "r": retain, "t": seconds},
        "breakdowns": {"c": {"cat": corrected, "dog": retain}},
        "failed_metrics": {},
        "scalars": {},
        "state": "",
        "error": "",
        "traceback": "",
        **over,
    }


def write_run(root, unlearner, alpha, seed, attempts, *, manipulation="badnet", manipulated=10, selected=0, **over):
    """Write one record and return its folder; ``over`` replaces parts of what decides it."""
    original = {
        "role": "gold" if unlearner == "gold" else "original",
        "data": "d" * 64,
        "manipulation": {
            "name": manipulation,
            "provider": "cutk==0.1.0",
            "options": [over.pop("mangling", {"size": 2})],
        },
        "model": {"name": "tiny", "provider": "cutk==0.1.0", "options": [{"width": 4}]},
        "recipe": {"steps": 20, "lr": 0.1},
        "validation_fraction": 0.05,
        "seed": seed,
        "precision": "fp32",
        "device": "cpu",
        **over,
    }
    decided = original
    if alpha is not None:
        options = [attempt["options"] for attempt in attempts]
        identity = {"name": unlearner, "provider": "cutk==0.1.0", "options": options}
        decided = {"original": original, "unlearner": identity, "alpha": alpha}
    key = hashlib.sha256(json.dumps([decided, unlearner], sort_keys=True).encode()).hexdigest()
    labels = {
        "dataset": "toy",
        "manipulation": manipulation,
        "model": "tiny",
        "unlearner": unlearner,
        "alpha": alpha,
        "seed": seed,
        "manipulated": manipulated,
        "identified": None if alpha is None else round(alpha * manipulated),
    }
    record = {
        "key": key,
        "labels": labels,
        "decided_by": decided,
        "provider": "cutk==0.1.0",
        "attempts": attempts,
        "selected": selected,
        "prepared": {},
        "measured": MEASURED,
        "environment": ENVIRONMENT,
    }
    folder = root / ("train" if alpha is None else "unlearn") / key
    folder.mkdir(parents=True)
    write_record(folder, record)
    return folder


def write_record(folder, record):
    """Write a record with its checksum."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    (folder / "record.json").write_text(json.dumps({**content, "sha256": key_of(content)}), encoding="utf-8")


def grid(selected, other, seconds=1.0):
    """Two points of a grid: the one with the values ``selected``, and another."""
    histogram = {"h": {"0": 4.0, "0.01": 100.0, "0.1": 1000.0, "1": 30.0, "10": 2.0}}
    first = attempt(*selected, seconds, {"weight": 1.0, "batch": 8})
    first["breakdowns"] |= histogram
    return [first, attempt(*other, seconds, {"weight": 10.0, "batch": 8})]


def write_all(root):
    """Write two seeds of two methods at two α; the expectations of the tests are computed from these by hand."""
    for seed, corrected, retain in ((0, 0.2, 0.90), (1, 0.4, 0.92)):
        write_run(root, "none", None, seed, [attempt(corrected, retain, 10.0)])
    for seed, corrected, retain in ((0, 0.8, 0.91), (1, 1.0, 0.93)):
        write_run(root, "gold", None, seed, [attempt(corrected, retain, 10.0)])
    for alpha, seed, corrected, retain in (
        *((0.5, 0, 0.5, 0.88), (0.5, 1, 0.7, 0.92)),
        *((1.0, 0, 0.8, 0.86), (1.0, 1, 0.9, 0.88)),
    ):
        write_run(root, "ssd", alpha, seed, grid((corrected, retain), (0.3, 0.5), 2.0 + 2 * seed))
    for alpha, seed, retain in ((0.5, 0, 0.91), (0.5, 1, 0.93), (1.0, 0, 0.92), (1.0, 1, 0.94)):
        write_run(root, "cf", alpha, seed, [attempt(0.3, retain, 8.0)])
    return root
