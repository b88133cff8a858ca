"""What each part of ``seal`` is worth: one part changed at a time, everything else as it is.

    python benchmarks/ablation.py --study digits --runs runs-of-ablation [--keep benchmarks/results/ablation]
    python benchmarks/ablation.py --study cifar10 --study cifar10-few --data-root ~/data --runs runs-of-ablation
    python benchmarks/ablation.py --of benchmarks/results/ablation

Computes what isn't in the runs folder and prints Markdown tables: means over seeds, with standard deviations.
``--keep`` puts the records into a folder of evidence, and the tables into its README; ``--of`` makes the tables of what
is there and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from variations import Variations, conclude, parser, shown

from cutk.run.records import Run

PLUGINS = (Path(__file__).parent / "parts.py",)
METRICS = ("corrected_accuracy", "retain_accuracy", "detection_average_precision", "detection_alpha_error")


def by(**options: Any) -> dict[str, Any]:
    """Return ``seal`` with other options."""
    return {"unlearners": ["seal"], "options": {"seal": options}}


def part(name: str) -> dict[str, Any]:
    """Return a variant of it that has a name of its own."""
    return {"unlearners": [name]}


# What is changed, and to what.
VARIANTS: dict[str, dict[str, Any]] = {
    "seal": by(),
    "the probe learns from S_f alone (no refinement)": by(refinements=0),
    "a weaker penalty (λ = 1 over how many are bad)": by(penalty=1.0),
    "what is bad elsewhere is no example of what is clean": part("seal-without-negatives"),
    "… is one, and never believed": part("seal-never-believed"),
    "each label by itself (ν = 1): no α for all": part("seal-without-common-part"),
    "the labels of S_f at their word (ν = 0)": part("seal-labels-at-their-word"),
    "q rounded to 0 and 1": part("seal-rounded"),
    "no transition: suspects learn no class": by(threshold=1.0),
    "after the round the model alone is asked": part("seal-model-alone"),
    "no round: one look at the original": by(rounds=0),
    "two rounds": by(rounds=2),
    "nothing after the round (`seal:tune`)": by(final="tune"),
    "restart from the learned weights, unfaded": by(kept=1.0),
    "restart from the initialisation": by(kept=0.0),
    "restart for half a training": by(restart_part=0.5),
    "a whole training after the round (`seal:retrain`)": by(final="retrain"),
}
# What was settled on CIFAR-10: asked for on the digits by ``--study digits-more``, and not among the records.
MORE: dict[str, dict[str, Any]] = {
    "seal": by(),
    "features of the last layer alone": part("seal-last-layer"),
    "means over places alone, without the largest values": part("seal-means-alone"),
    "restart always at the full rate": part("seal-full-rate"),
    "restart by the second term of step 4 always": part("seal-complement"),
}
# Of those that are, where a cell takes minutes, and where hardly any are known.
FEW = (
    "seal",
    "what is bad elsewhere is no example of what is clean",
    "… is one, and never believed",
    "each label by itself (ν = 1): no α for all",
    "q rounded to 0 and 1",
    "no transition: suspects learn no class",
    "after the round the model alone is asked",
)
MINUTES = (
    *FEW,
    "the probe learns from S_f alone (no refinement)",
    "no round: one look at the original",
    "nothing after the round (`seal:tune`)",
)
# ``seal`` kept all samples' features and had its losses in one function; it computes the same, bit for bit.
PARTS = {row["unlearners"][0] for row in VARIANTS.values()} - {"seal"}
ALIKE = ({"code": {"seal": "5ff97e6748850890"} | dict.fromkeys(PARTS, "157348d6b825a335")},)
COMMON = {"metrics": list(METRICS), "evaluate": "selected", "threads": 1}


def study(preset: str, precision: str, seeds: list[int], alpha: float, names: Iterable[str] = VARIANTS) -> Variations:
    """Return the variants of these names, on these data."""
    rows = {name: variant for name, variant in (VARIANTS | MORE).items() if name in names}
    common = {**COMMON, "alphas": [alpha], "seeds": seeds, "precision": precision}
    return Variations(preset, common, rows, PLUGINS, ALIKE)


STUDIES = {
    "digits": study("laptop/digits", "fp32", [5, 6, 7], 0.1),
    "cifar10": study("laptop/cifar10-ic", "bf16", [4], 0.1, MINUTES),
    "cifar10-few": study("laptop/cifar10-ic", "bf16", [4], 0.02, FEW),
}
TRIALS = {"digits-more": study("laptop/digits", "fp32", [5, 6, 7], 0.1, MORE)}


def tables(runs: Iterable[Run], studies: Sequence[Variations]) -> str:
    """Return Markdown tables of what belongs to the studies, by dataset, manipulation and α."""
    runs, parts = list(runs), []
    for each in studies:
        models: dict[str, dict[str, list[Run]]] = {}
        rows: dict[tuple[str, float], dict[str, list[Run]]] = {}
        for name, run in each.belonging(runs):
            of = run.labels
            if of.alpha is not None:
                rows.setdefault((of.manipulation, of.alpha), {}).setdefault(name, []).append(run)
            elif name == next(iter(each.rows)):  # the models before and without are the same for all rows
                models.setdefault(of.manipulation, {}).setdefault(of.role, []).append(run)
        for (manipulation, alpha), found in sorted(rows.items()):
            first = next(iter(found.values()))
            seeds = f"seed{'s' if len(first) > 1 else ''} {', '.join(str(run.labels.seed) for run in first)}"
            parts.append(f"**{first[0].labels.dataset}, {manipulation}, α = {alpha:g}, {seeds}**")
            parts.append("\n".join(_lines({**models.get(manipulation, {}), **found})))
    return "\n\n".join(parts)


def _lines(there: dict[str, list[Run]]) -> Iterable[str]:
    yield f"| changed | {' | '.join(metric.replace('_', ' ') for metric in METRICS)} |"
    yield f"| :-- |{' --: |' * len(METRICS)}"
    for name, runs in there.items():
        values = [[run.record.metrics.get(metric) for run in runs] for metric in METRICS]
        yield f"| {name} | {' | '.join(shown([v for v in each if v is not None]) for each in values)} |"


def main() -> None:
    """Compute what isn't there, and print the tables."""
    command = parser(__doc__, "runs-of-ablation")
    command.add_argument(
        "--study", action="append", choices=STUDIES | TRIALS, help="of which data; all but the last if not given"
    )
    command.add_argument("--variant", action="append", help="the beginning of a name; all if not given")
    command.add_argument("--data-root", type=Path, help="where CIFAR-10 lies")
    arguments = command.parse_args()
    studies = [(STUDIES | TRIALS)[name].beginning(arguments.variant) for name in arguments.study or STUDIES]
    if arguments.of is None:
        for each in studies:
            data = {} if arguments.data_root is None else {"cifar10": {"root": str(arguments.data_root)}}
            each.compute(arguments.runs, **data)
    conclude(arguments, studies, [*STUDIES.values()], "ablation", tables)


if __name__ == "__main__":
    main()
