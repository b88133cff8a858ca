"""Keeps the committed evidence: copies records that belong to it, and rebuilds all that is shown of them.

    python benchmarks/evidence.py collect RUNS benchmarks/results/cifar10
    python benchmarks/evidence.py rebuild [benchmarks/results/cifar10 …]

A folder of evidence says in ``evidence.toml`` which runs are its own: presets (or plans that lie beside it),
unlearners, fractions and seeds. Its ``runs`` hold their records, as ``cutk report`` reads them, without the weights.
``collect`` takes from a folder that ``cutk bench`` filled what the components that are installed now computed with the
presets' options, or other code that gives the same results, as ``alike`` lists it; so run it with the Python of the
installation that computed. The same again later brings what has come since. Each record tells of the code that computed
it, and is shown with the others (``cutk report --any-code``). ``rebuild`` makes ``tables.md``, the figures, and the
parts of ``README.md`` between ``<!-- statements -->`` and ``<!-- end -->`` anew, and how the project's README opens if
that names the folder. ``statements`` lists whose are judged there: ``paper`` and ``seal``, both if nothing is said; the
seeds of folders that ``also`` lists count for it as well. Figures that ``pages`` lists are copied to where the
documentation shows them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bars import bars
from by_seed import SHOWN, by_seed
from measured import CONFUSION, METHODS, POISONING, Results
from statements import SECTIONS, TENTH, table

from cutk.plugins.registry import Registry, load_registry
from cutk.report.origins import counted, machine
from cutk.run.files import RECORD, write_record
from cutk.run.keys import kind_of
from cutk.run.plan import Plan, layer, over_default
from cutk.run.records import Attempt, Identity, Labels, Run, Unlearned
from cutk.run.setup import Setup, resolve
from cutk.run.store import Store

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "figures"
CURVES = "corrected_accuracy-alpha"
OTHER = "of another manipulation"


def described(folder: Path) -> dict[str, Any]:
    """Return what a folder's ``evidence.toml`` says, with the paths of plans beside it."""
    about = tomllib.loads((folder / "evidence.toml").read_text(encoding="utf-8"))
    about["presets"] = [str(folder / name) if name.endswith(".toml") else name for name in about["presets"]]
    return about


# Which runs are evidence.


def settled(preset: str, asked: Mapping[str, Any], registry: Registry) -> Setup:
    """Return the plan that a preset gives with what is asked besides, settled."""
    return resolve(Plan.parse(layer(over_default(preset, registry), asked)), registry)


def setups(about: dict[str, Any]) -> list[Setup]:
    """Return the plans behind a folder, settled."""
    registry = load_registry()
    asked = {name: about[name] for name in ("unlearners", "alphas", "seeds", "precision") if name in about}
    return [settled(name, asked, registry) for name in about["presets"]]


def covers(each: Mapping[str, Any], of: Labels) -> bool:
    """Return whether an entry of ``alike`` speaks of a run: any, or those with its datasets, seeds and so on."""
    told = (
        ("datasets", of.dataset),
        ("manipulations", of.manipulation),
        ("unlearners", of.unlearner),
        ("alphas", of.alpha),
        ("seeds", of.seed),
    )
    return all(value in each.get(name, [value]) for name, value in told)


def lacking(run: Run, setup: Setup, alike: Sequence[Mapping[str, Any]]) -> str:
    """Say why a run isn't part of a plan, nothing if it is.

    Who provides a component in which version may differ. ``alike`` lists other code that gives the same results as
    what is installed: by the names of components the ``code`` of each, with the ``datasets``, ``manipulations``,
    ``unlearners``, ``alphas`` and ``seeds`` for which that holds, all if none are listed.
    """
    trained, plan = run.trained, setup.plan

    def same(one: Identity, other: Identity) -> bool:
        code = one.source == other.source or any(
            one.source == each["code"].get(one.name) for each in alike if covers(each, run.labels)
        )
        return code and (one.name, one.options) == (other.name, other.options)

    at = (run.labels.seed in plan.seed_list, run.labels.alpha is None or run.labels.alpha in plan.alphas)
    if run.labels.dataset != setup.dataset.name or not all(at):
        return "of other data, seeds or fractions"
    parts = {composed.name: composed.parts for composed in setup.manipulations}.get(run.labels.manipulation)
    if parts is None:
        return OTHER
    pairs = [*zip(trained.manipulation, (part.identity for part in parts), strict=True)]
    pairs += [(trained.model, setup.model.identity), (trained.recipe, setup.recipe.identity)]
    if isinstance(run.decided_by, Unlearned):
        mine = [u for u in setup.unlearners if u.name == run.labels.unlearner]
        if not mine:
            return f"of {run.labels.unlearner}, which is not asked for"
        pairs.append((run.decided_by.unlearner, mine[0].identity))
        pairs.append((run.decided_by.identification, setup.identification.identity))
        pairs.append((run.decided_by.selector, setup.selector.identity))
    for there, wanted in pairs:
        if not same(there, wanted):
            what = "code" if there.options == wanted.options else "options"
            return f"computed with other {what} of {run.labels.unlearner or there.name}"
    if plan.precision not in ("auto", trained.precision):
        return "of another precision"
    return "" if trained.validation_fraction == plan.validation_fraction else "of another validation fraction"


def _public(attempt: Attempt, names: set[str]) -> Attempt:
    """Return an attempt without what tells of the machine's folders, and with the metrics of these identities."""
    metrics = {name: value for name, value in attempt.metrics.items() if name in names}
    return attempt.model_copy(update={"metrics": metrics, "traceback": ""})


def public(run: Run, setup: Setup) -> Run:
    """Return a run as it is published: with the plan's metrics alone, and without tracebacks."""
    wanted = {metric.name for metric in setup.metrics}
    measured = {identity: metric for identity, metric in run.measured.items() if metric.name in wanted}
    attempts = [_public(attempt, set(measured)) for attempt in run.attempts]
    return Run.model_validate(run.model_dump(by_alias=True) | {"measured": measured, "attempts": attempts})


def require_no_folder(record: Path) -> None:
    """Refuse a record that names a folder of the machine that computed it."""
    if found := re.search(r"(?<![\w.])/(?:home|root|tmp|work|mnt|data|Users)/[^\s\"]*", record.read_text("utf-8")):
        shutil.rmtree(record.parent)
        raise SystemExit(f"{record} would hold '{found[0]}': expected no folder of a machine. Nothing of it is kept.")


def put(run: Run, folder: Path) -> None:
    """Write a run's record into a folder of evidence."""
    target = folder / "runs" / kind_of(run) / run.key / RECORD
    target.parent.mkdir(parents=True, exist_ok=True)
    write_record(target, run)
    require_no_folder(target)


def place(run: Run) -> tuple[Any, ...]:
    """Return what only one record may be about."""
    of = run.labels
    trained = run.trained
    where = (trained.device, trained.precision, trained.threads)
    return (of.dataset, of.model, of.manipulation, of.role, of.unlearner, of.alpha, of.seed, *where)


def evidence_of(runs: Path, about: dict[str, Any]) -> Iterator[tuple[Run, str]]:
    """Yield the runs of a folder as they are published, or with why they aren't evidence."""
    plans, alike = setups(about), about.get("alike", [])
    for run in Store(runs).runs(lambda text: print(text, file=sys.stderr)):
        reasons = [lacking(run, setup, alike) for setup in plans]
        if all(reasons):
            yield run, max(reasons, key=lambda reason: reason != OTHER)
        else:
            yield public(run, plans[reasons.index("")]), ""


def collect(runs: Path, folder: Path) -> None:
    """Copy the records that belong to a folder; one of other code for the same cell gives way to what is installed."""
    left, new, there, about = Counter[str](), 0, {}, described(folder)
    if (folder / "runs").is_dir():
        there = {place(run): run for run in Store(folder / "runs").runs()}
    plans, alike = setups(about), about.get("alike", [])

    def belongs(run: Run, alike: Sequence[Mapping[str, Any]]) -> bool:
        return not all(lacking(run, setup, alike) for setup in plans)

    for run, reason in evidence_of(runs, about):
        if reason:
            left[reason] += 1
            continue
        before = there.get(place(run))
        if before is not None and before.key != run.key:
            if not belongs(run, []) and belongs(before, alike):
                left["there already, of other code"] += 1
                continue
            shutil.rmtree(folder / "runs" / kind_of(before) / before.key)
        there[place(run)] = run
        if before != run:
            new += 1
            put(run, folder)
    print(f"{new} records are new in {folder / 'runs'}.")
    for reason, count in left.most_common():
        print(f"  left out, {reason}: {count}")


# What is shown of it.


def report(*arguments: Any) -> str:
    """Return what ``cutk report --any-code`` prints."""
    command = [sys.executable, "-m", "cutk", "report", *map(str, arguments), "--any-code"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def options(folder: Path) -> dict[str, list[str]]:
    """Return which unlearners the figures show and which they highlight, of those that there are."""
    there = {run.labels.unlearner for run in Store(folder / "runs").runs()}
    shown = described(folder)["figures"]
    return {name: [one for one in shown[name] if one in there] for name in ("unlearners", "highlight")}


def words(folder: Path) -> list[str]:
    """Return the same as a command line has it."""
    chosen = options(folder)
    flags = (("-u", chosen["unlearners"]), ("--highlight", chosen["highlight"]))
    return [word for flag, names in flags for name in names for word in (flag, name)]


def part(text: str, mark: str) -> tuple[int, int]:
    """Return where the part of a page lies that is made anew: from ``<!-- mark -->`` to ``<!-- end -->``."""
    opened = f"<!-- {mark} -->\n\n"
    start = text.index(opened) + len(opened)
    return start, text.index("\n\n<!-- end -->", start)


def replace(page: Path, mark: str, content: str) -> None:
    """Put ``content`` into a part of a page."""
    text = page.read_text(encoding="utf-8")
    start, end = part(text, mark)
    page.write_text(text[:start] + content + text[end:], encoding="utf-8")


def judged_by(folder: Path) -> Results:
    """Return what a folder's records give, with those of others by which it is judged, too."""
    return Results.of(folder / "runs", *(folder / other / "runs" for other in described(folder).get("also", [])))


def statements(folder: Path) -> str:
    """Return the paper's statements, and what is asked of ``seal``, beside what the records give."""
    about, results = described(folder), judged_by(folder)
    tables = [table(results, about.get("statements", SECTIONS))]
    if asked := about.get("bars", []):
        tables.append("\n".join(bars(results, asked)))
    return "\n\n".join(filter(None, tables))


def opening(folder: Path) -> str:
    """Return how the project's README opens: the figure, what it shows, what it was made of, and the command."""
    results, chosen = Results.of(folder / "runs"), options(folder)
    where = folder.resolve().relative_to(ROOT)
    (figure,) = (folder / "figures").glob(f"*-{CURVES}.svg")
    there = {(m, method, seed) for m, method, alpha, seed in results.records if alpha in (None, TENTH)}
    known = {m: [seed for seed in results.seeds if (m, "seal", seed) in there] for m in (POISONING, CONFUSION)}

    def tenth(manipulation: str, method: str, seeds: Sequence[int]) -> float:
        alpha = None if method in ("original", "gold") else TENTH
        return statistics.fmean(results.value(manipulation, method, alpha, seed) for seed in seeds)

    def told(manipulation: str) -> tuple[str, str]:
        """Return what ``seal`` does to it, by the seeds that it was measured on."""
        before, after, gold = (
            tenth(manipulation, which, known[manipulation]) for which in ("original", "seal", "gold")
        )
        return f"from {before:.2f} to {after:.2f}", f"(gold: {gold:.2f})"

    def best(manipulation: str) -> str:
        """Return which of the paper's methods is best, each by the seeds that it was measured on."""
        rivals = {
            method: tenth(manipulation, method, seeds)
            for method in METHODS
            if method in chosen["unlearners"]
            and (seeds := [seed for seed in results.seeds if (manipulation, method, seed) in there])
        }
        name = max(rivals, key=rivals.__getitem__)
        return f"{rivals[name]:.2f} (`{name}`)"

    runs = [run for run in Store(folder / "runs").runs() if run.labels.seed in known.get(run.labels.manipulation, [])]
    dataset, model = runs[0].labels.dataset, runs[0].labels.model
    machines = ", or ".join(dict.fromkeys(machine(run.environment) for run in runs))
    counts = [f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})" for seeds in known.values()]
    seeds = counts[0] if len(set(counts)) == 1 else f"{counts[0]} poisoned and {counts[1]} confused"
    text = (
        "With a tenth of the manipulated samples identified, [`seal`](docs/seal.md) takes corrected accuracy, which is "
        f"accuracy where the manipulation did its damage, {' after poisoning '.join(told(POISONING))} and "
        f"{' where two classes were confused '.join(told(CONFUSION))}; gold is a model that never saw a manipulated "
        f"sample. Of the paper's methods, each by the seeds that it was measured on, the best reach {best(POISONING)} "
        f"and {best(CONFUSION)}."
    )
    made_of = (
        f"*{dataset}, {model}, {seeds} at a tenth; {machines}. {described(folder)['note']} "
        f"[All of it]({where}/README.md).*"
    )

    def filled(said: str) -> str:
        return textwrap.fill(said, 125, break_long_words=False, break_on_hyphens=False)

    return "\n".join(
        [
            f"![Corrected accuracy against the identified fraction]({where}/figures/{figure.name})",
            "",
            filled(text),
            "",
            "```console",
            f"$ cutk report {where}/runs {' '.join(words(folder))} --any-code --figures figures",
            "```",
            "",
            filled(made_of),
        ]
    )


def rebuild(folder: Path) -> None:
    """Make tables, figures and the README's numbers anew."""
    drawn, runs = described(folder)["figures"], folder / "runs"
    (folder / "tables.md").write_text(report(runs, "--format", "markdown"), encoding="utf-8")
    figures = folder / "figures"
    with tempfile.TemporaryDirectory() as made:
        report(runs, *words(folder), "--figures", made)
        shutil.rmtree(figures, ignore_errors=True)
        figures.mkdir()
        PAGES.mkdir(exist_ok=True)
        for name in drawn["names"]:
            for path in Path(made).glob(f"*-{name}.svg"):
                shutil.copy(path, figures)
                if path.stem in drawn.get("pages", []):
                    shutil.copy(path, PAGES)
    if judged := statements(folder):
        replace(folder / "README.md", "statements", judged)
    if page := described(folder).get("page"):
        results = judged_by(folder)
        for called in SHOWN:
            replace(ROOT / page, f"{folder.name}, {called}", by_seed(results, called))
    mark = f"evidence: {folder.name}"
    if f"<!-- {mark} -->" in (ROOT / "README.md").read_text(encoding="utf-8"):
        replace(ROOT / "README.md", mark, opening(folder))
    print(f"{folder}: {len(list(runs.rglob(RECORD)))} records, {len(list(figures.iterdir()))} figures.")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="copy the records of a runs folder that belong to the evidence")
    collecting.add_argument("runs", type=Path)
    collecting.add_argument("folder", type=Path)
    rebuilding = commands.add_parser("rebuild", help="make tables, figures and numbers anew")
    everything = sorted(path.parent for path in RESULTS.glob("*/evidence.toml"))
    rebuilding.add_argument("folders", type=Path, nargs="*", default=everything)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.runs, arguments.folder)
    else:
        for folder in arguments.folders:
            rebuild(folder)


if __name__ == "__main__":
    main()
