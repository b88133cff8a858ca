"""What taking into account which labels happen to be known does to the suspicion that ``seal`` begins with.

    python benchmarks/known_labels.py --seed 0 --seed 1 --seed 2 --runs runs-of-known-labels

On the embedded digits: for each setting M_o is trained once a seed, then other S_f are drawn from S_m. Prints the mean
cross-entropy of q against the truth, times 100, over all samples that aren't in S_f, as a Markdown table: a column for
each weight of the labels' own estimates (``seeded.OWN``), where 0 takes the labels of S_f at their word and "alone"
doesn't ask them. Finished trainings are read from the runs folder.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from evidence import settled
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

from cutk.plugins.registry import load_registry
from cutk.run.cells import Unlearning
from cutk.run.store import Store
from cutk.run.worker import Worker
from cutk_builtin import seeded
from cutk_builtin.looking import alternatives, views

WEIGHTS = {"0": 0.0, "10": 10.0, "20": 20.0, "alone": 1e12}
DRAWS = 2
# By what a row says: the manipulations, their options, and which S_f are drawn: how many, and which part is clean.
SETTINGS: dict[str, tuple[str, dict[str, Any], list[tuple[int, float]]]] = {
    "confusion": ("interclass-confusion", {}, [(5, 0.0), (13, 0.0), (30, 0.0), (60, 0.0), (13, 0.3)]),
    "trigger": ("badnet", {}, [(4, 0.0), (20, 0.0), (10, 0.3)]),
    "trigger, all to all": (
        "badnet",
        {"badnet": {"targets": "all-to-all", "fraction": 0.1}},
        [(5, 0.0), (14, 0.0), (40, 0.0)],
    ),
    "both at once": ("badnet+interclass-confusion", {}, [(6, 0.0), (17, 0.0), (50, 0.0), (17, 0.3)]),
    "asymmetric noise": (
        "asymmetric-noise",
        {"asymmetric-noise": {"map": ["3:8", "8:3", "4:9", "1:7"]}},
        [(5, 0.0), (20, 0.0), (20, 0.3)],
    ),
    "random noise": ("label-swap", {}, [(5, 0.0), (14, 0.0), (40, 0.0), (14, 0.3)]),
}


class Seen(NamedTuple):
    """What M_o says of all samples, and which of them are bad."""

    features: Tensor
    logits: Tensor
    labels: Tensor
    bad: Tensor


def seen(
    manipulation: str,
    options: dict[str, Any],
    seeds: list[int],
    runs: Path,
    preset: str = "laptop/digits",
    precision: str = "fp32",
) -> Iterator[Seen]:
    """Yield a setting's samples as M_o sees them, for each seed."""
    registry = load_registry()
    asked = {"manipulations": [manipulation], "unlearners": ["seal"], "seeds": seeds, "alphas": [0.1]}
    machine = {"precision": precision, "device": "cpu", "threads": 1}
    worker = Worker(settled(preset, {**asked, **machine, "options": options}, registry), Store(runs))
    for seed in seeds:
        cell = Unlearning(manipulation, seed, "seal", 0.1)
        done = worker.work(cell.needs)
        scenario = worker.scenario(manipulation, seed)
        model = scenario.build()
        model.load_state_dict(worker.store.weights(cell.needs.kind, done.run.key))
        task = scenario.problem(model.eval(), 0.1)
        found = views(task.original, task.recipe, task.train, None, visits=2)
        bad = torch.zeros(len(task.train), dtype=torch.bool)
        bad[scenario.corruption.manipulated] = True
        features = torch.cat([F.normalize(view.features, dim=1) for view in found], 1)
        yield Seen(features, found[-1].logits, task.train.labels.cpu(), bad)


def drawn(bad: Tensor, count: int, clean: float, draw: int) -> Tensor:
    """Return another S_f of so many samples, of which a part is clean."""
    generator = torch.Generator().manual_seed(draw)
    wrong = round(count * clean)
    parts = []
    for where, size in ((bad, count - wrong), (~bad, wrong)):
        those = where.nonzero().flatten()
        parts.append(those[torch.randperm(len(those), generator=generator)[:size]])
    return torch.cat(parts).sort().values


def cross_entropy(sample: Seen, known: Tensor, draw: int) -> float:
    """Return the mean cross-entropy of q against the truth, of samples that aren't known."""
    other = alternatives(sample.logits[known], sample.labels[known])
    generator = torch.Generator().manual_seed(draw)
    found = seeded.posterior(sample.features, sample.labels, known, other, generator)
    unknown = torch.ones(len(sample.labels), dtype=torch.bool)
    unknown[known] = False
    q = found.probability[unknown].clamp(0.001, 0.999)
    return 100 * float(F.binary_cross_entropy(q, sample.bad[unknown].float()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--setting", action="append", help="the beginning of a name; all if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs-of-known-labels"))
    arguments = parser.parse_args()
    print(f"| setting | known | {' | '.join(WEIGHTS)} |\n| :-- | --: |{' --: |' * len(WEIGHTS)}")
    for name, (manipulation, options, cases) in SETTINGS.items():
        if not name.startswith(tuple(arguments.setting or [""])):
            continue
        samples = list(seen(manipulation, options, arguments.seed or [0, 1, 2], arguments.runs))
        for count, clean in cases:
            values = []
            for weight in WEIGHTS.values():
                seeded.OWN = weight
                each = [cross_entropy(s, drawn(s.bad, count, clean, d), d) for s in samples for d in range(DRAWS)]
                values.append(statistics.fmean(each))
            known = f"{count} of {int(samples[0].bad.sum())}" + (f", {clean:.0%} clean" if clean else "")
            print(f"| {name} | {known} | {' | '.join(f'{value:.1f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
