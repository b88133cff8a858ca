"""What asking whether known clean samples are representative does to the suspicion that ``seal`` begins with.

    python benchmarks/known_clean.py --data-root ~/data --seed 0 --seed 6 --runs runs-of-known-clean
    python benchmarks/known_clean.py --seed 0 --seed 1 --seed 2 --runs runs-of-known-clean

With confused classes, on CIFAR-10 if its folder is given, else on the embedded digits: M_o is trained once a seed, then
other S_f are drawn from S_m. Prints a Markdown table with two columns of each kind, one with what is bad in other
labels never taken for representative, one as it is: how large S_m is estimated to be, of what it is; the area under
the ROC curve of q among the other samples of these labels; and its mean cross-entropy against the truth, times 100.
Means over seeds and draws, in brackets the extremes of the first. Finished trainings are read from the runs folder.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from known_labels import Seen, drawn, seen
from torch.nn import functional as F  # noqa: N812  # the name that everyone uses

from cutk_builtin import seeded
from cutk_builtin.looking import alternatives
from cutk_builtin.ranking import area_under_roc

CONFUSION = "interclass-confusion"
KNOWN = {"laptop/cifar10-ic": (10, 30, 100, 500), "laptop/digits": (5, 13, 30, 60)}
ASKED: dict[str, Callable[..., bool]] = {"never": lambda *_: False, "asked": seeded._representative}


class Quality(NamedTuple):
    """How good q is for one draw."""

    size: float  # the estimated size of S_m, of the true one
    area: float
    entropy: float


def quality(sample: Seen, known: torch.Tensor, draw: int) -> Quality:
    """Return how good the first q is."""
    other = alternatives(sample.logits[known], sample.labels[known])
    found = seeded.posterior(sample.features, sample.labels, known, other, torch.Generator().manual_seed(draw))
    # Of other labels nobody is suspected, which would only dilute it.
    others = torch.isin(sample.labels, sample.labels[known])
    others[known] = False
    q, bad = found.probability[others], sample.bad[others]
    entropy = F.binary_cross_entropy(q.clamp(0.001, 0.999), bad.float())
    return Quality(
        len(known) / found.alpha / int(sample.bad.sum()), area_under_roc(q, bad) or 0.0, 100 * float(entropy)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs-of-known-clean"))
    arguments = parser.parse_args()
    preset, precision, options = "laptop/digits", "fp32", dict[str, Any]()
    if arguments.data_root:
        preset, precision = "laptop/cifar10-ic", "auto"
        options = {"cifar10": {"root": str(arguments.data_root)}}
    samples = seen(CONFUSION, options, arguments.seed or [0], arguments.runs, preset, precision)
    found: dict[tuple[int, str], list[Quality]] = {}
    for sample in samples:  # one at a time, since they are large
        for count in KNOWN[preset]:
            for name, ask in ASKED.items():
                seeded._representative = ask  # type: ignore[assignment]
                each = found.setdefault((count, name), [])
                each += [quality(sample, drawn(sample.bad, count, 0.0, draw), draw) for draw in range(arguments.draws)]
    heads = [f"{what}: {name}" for what in ("size of S_m", "area under ROC", "cross-entropy") for name in ASKED]
    print(f"| known | {' | '.join(heads)} |\n| --: |{' --: |' * len(heads)}")
    for count in KNOWN[preset]:
        sizes, areas, entropies = [], [], []
        for name in ASKED:
            size, area, entropy = (list(column) for column in zip(*found[count, name], strict=True))
            sizes.append(f"{statistics.fmean(size):.2f} ({min(size):.2f} to {max(size):.2f})")
            areas.append(f"{statistics.fmean(area):.3f}")
            entropies.append(f"{statistics.fmean(entropy):.1f}")
        print(f"| {count} | {' | '.join([*sizes, *areas, *entropies])} |")


if __name__ == "__main__":
    main()
