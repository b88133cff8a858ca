from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import cutk
from cutk.machine import describe_machine as real
from cutk.plugins.registry import Entry, Provider
from cutk.report.runs import read_failures
from cutk.run.benchmark import Benchmark
from cutk.run.cells import Observer
from cutk.run.estimate import cell_costs
from cutk.run.plan import Plan, layer, resolve
from cutk.run.records import summarise
from cutk.run.store import Store


class Watcher(Observer):
    def __init__(self):
        self.computed, self.read, self.failed, self.warnings, self.trained = [], [], [], [], []

    def cell_started(self, cell):
        self.trained.append(str(cell))

    def cell_finished(self, cell, read):
        (self.read if read else self.computed).append(str(cell))

    def cell_failed(self, cell, reason):
        self.failed.append((str(cell), reason))

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def bench(tmp_path):
    def go(setup):
        watcher = Watcher()
        return Benchmark(setup, Store(tmp_path / "runs"), watcher).run(), watcher

    return go


def in_place_of_ssd(setup, component, **options):
    """The same setup, with another unlearner."""
    entry = Entry("unlearner", component.name, component, Provider("mine", "1", component.name))
    chosen = replace(setup.unlearners[0], entry=entry, points=(component.Options(**options),))
    return replace(setup, unlearners=(chosen,))


def stripped(records):
    """Records without what a clock measured."""
    kept = json.loads(json.dumps(records))
    for record in kept:
        record.pop("seconds")
        record["metrics"].pop("unlearn_seconds", None)
    return kept


def test_a_run_gives_a_record_for_each_model(bench, setup_of):
    results, watcher = bench(setup_of())
    rows = [(r["unlearner"], r["alpha"], r["seed"], r["selected"]) for r in results.records]
    assert rows == [("none", None, 0, True), ("gold", None, 0, True), ("ssd", 0.5, 0, True), ("ssd", 1.0, 0, True)]
    assert results.failures == []
    assert len(watcher.computed) == 4
    record = results.records[2]
    assert list(record) == [
        *("dataset", "manipulation", "model", "unlearner", "alpha", "seed", "manipulated", "identified", "options"),
        *("selected", "oracle", "selection_score", "metrics", "breakdowns", "seconds", "provider", "key"),
    ]
    assert (record["manipulated"], record["identified"], record["oracle"]) == (19, 10, False)
    assert set(record["breakdowns"]) == {
        *("importance_ratio", "affected_class_accuracy", "retain_class_accuracy", "manipulated_class_accuracy"),
    }
    parameters = sum(p.numel() for p in setup_of().model.make().build((1, 8, 8), 4).parameters())
    assert 0 < sum(record["breakdowns"]["importance_ratio"].values()) <= parameters
    assert record["provider"] == f"cutk=={cutk.__version__}"
    assert set(record["metrics"]) == {
        *("corrected_accuracy", "retain_accuracy", "attack_success_rate", "manipulated_train_accuracy"),
        *("changed_fraction", "unlearn_seconds"),
    }
    original = results.records[0]
    assert "importance_ratio" not in original["breakdowns"]
    assert (original["options"], original["selection_score"]) == ({}, None)
    assert not {"changed_fraction", "unlearn_seconds"} & set(original["metrics"])
    assert results.summaries[0]["metrics"].keys() == {"alpha_star"}


def test_the_backdoor_works_and_gold_has_none(bench, setup_of):
    results, _ = bench(setup_of(recipe={"steps": 60}))
    original, gold = results.records[:2]
    assert original["metrics"]["attack_success_rate"] > 0.9
    assert original["metrics"]["retain_accuracy"] > 0.9
    assert gold["metrics"]["attack_success_rate"] < 0.1


def test_the_same_plan_again_reads_everything(bench, setup_of):
    first, _ = bench(setup_of())
    second, watcher = bench(setup_of())
    assert second.records == first.records
    assert watcher.computed == []
    assert len(watcher.read) == 4
    assert (first.computed, second.computed) == (4, 0)


def test_results_do_not_depend_on_what_was_there_before(bench, setup_of, tmp_path):
    bench(setup_of(alphas=[1.0]))
    resumed, watcher = bench(setup_of())
    assert watcher.trained == ["badnet, seed 0: ssd at α = 0.5"]
    fresh = Benchmark(setup_of(), Store(tmp_path / "other")).run()
    assert stripped(resumed.records) == stripped(fresh.records)


def test_what_decides_a_result_decides_its_key(setup_of, tmp_path):
    def keys(**over):
        benchmark = Benchmark(setup_of(**over), Store(tmp_path))
        return {benchmark._key(cell) for cell in benchmark.cells}

    base = keys()
    assert keys(metrics=["corrected_accuracy"]) == base
    assert keys(seeds=2) > base
    assert keys(alphas=[0.5]) < base
    for over in (
        {"recipe": {"lr": 0.05}},
        {"options": {"badnet": {"size": 2}}},
        {"options": {"fake": {"seed": 1}}},
        {"options": {"convnet-small": {"width": 5}}},
        {"validation_fraction": 0.1},
        {"precision": "bf16"},
    ):
        assert not keys(**over) & base, over
    # Another grid is another unlearning of the same original.
    assert len(keys(options={"ssd": {"selection_weight": [1]}}) & base) == 2


def test_every_grid_point_is_a_record_where_all_are_asked_for(bench, setup_of):
    selected, _ = bench(setup_of(alphas=[0.5]))
    every, watcher = bench(setup_of(alphas=[0.5], evaluate="all"))
    assert watcher.trained == ["badnet, seed 0: ssd at α = 0.5"]
    mine = [r for r in every.records if r["unlearner"] == "ssd"]
    assert [r["selected"] for r in mine].count(True) == 1
    assert len(mine) == len(setup_of().unlearners[0].points) > 1
    assert all(r["metrics"] for r in mine)
    best = max(mine, key=lambda r: r["selection_score"])
    assert next(r for r in mine if r["selected"])["selection_score"] == best["selection_score"]
    assert stripped([r for r in every.records if r["selected"]]) == stripped(selected.records)
    again, watcher = bench(setup_of(alphas=[0.5]))
    assert watcher.trained == []
    assert len(again.records) == len(selected.records)


def test_a_metric_that_comes_later_is_computed_from_the_stored_weights(bench, setup_of, monkeypatch):
    bench(setup_of(metrics=["retain_accuracy"]))
    whole, watcher = bench(setup_of())
    assert watcher.trained == []
    assert all("corrected_accuracy" in record["metrics"] for record in whole.records)
    again, _ = bench(setup_of())
    assert again.records == whole.records


def test_passes_and_memory_are_what_prepare_and_unlearn_took(bench, setup_of):
    base = setup_of().plan.metrics
    setup = setup_of(metrics=[*base, "passes", "peak_memory"], unlearners=["ssd", "rewod"], alphas=[1.0])
    results, _ = bench(setup)
    by_name = {r["unlearner"]: r["metrics"] for r in results.records}
    assert by_name["ssd"]["passes"] == 1.0  # S_f once and the rest once, for all points together
    assert by_name["rewod"]["passes"] == pytest.approx(20 * 32 / 380)
    assert by_name["rewod"]["peak_memory"] >= 0


def test_costs_add_up_by_hand():
    prepared = cutk.Cost(1.0, passes=2.0, peak_bytes=50, kept_bytes=30)
    # While unlearning takes 40 at most, the 30 of the prepared state are there as well.
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=40) == cutk.Cost(1.5, 3.0, 70, 30)
    assert prepared + cutk.Cost(0.5, passes=1.0, peak_bytes=10) == cutk.Cost(1.5, 3.0, 50, 30)
    assert prepared + cutk.Cost(0.5) == cutk.Cost(1.5, None, 50, 30)
    assert cutk.Cost(1.0) + cutk.Cost(1.0) == cutk.Cost(2.0)


def test_a_failed_cell_is_noted_until_it_succeeds(bench, setup_of, tmp_path):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Failing)
    bench(setup)
    assert read_failures(tmp_path / "runs") == [
        "badnet, seed 0: failing at α = 0.5 failed: None of 1 options gave a model. The first failed with: "
        "ZeroDivisionError: it was a test"
    ]
    key = Benchmark(setup, Store(tmp_path / "runs")).cells[-1]
    Store(tmp_path / "runs").forget_failure(Benchmark(setup, Store(tmp_path / "runs"))._key(key))
    assert read_failures(tmp_path / "runs") == []


def test_cells_that_lack_points_are_to_do(bench, setup_of, tmp_path):
    bench(setup_of(alphas=[0.5]))
    store = Store(tmp_path / "runs")
    for over, stored in (({}, 3), ({"evaluate": "all"}, 2)):
        benchmark = Benchmark(setup_of(alphas=[0.5], **over), store)
        assert sum(benchmark.is_stored(cell) for cell in benchmark.cells) == stored


def test_each_prepared_state_is_counted(setup_of, tmp_path):
    options = {"ssd": {"fisher": ["batch", "per-sample"], "selection_weight": [1, 10], "dampening": 1}}
    cost = cell_costs(Benchmark(setup_of(alphas=[0.5], options=options), Store(tmp_path)))[-1]
    assert (cost.points, cost.work) == (4, 2.0)


def record_of(unlearner, alpha, seed, value):
    labels = {"dataset": "d", "manipulation": "m", "model": "n", "selected": True}
    return {**labels, "unlearner": unlearner, "alpha": alpha, "seed": seed, "metrics": {"corrected_accuracy": value}}


def test_summaries_compare_the_same_seeds(setup_of):
    references = [
        record_of(name, None, seed, value) for name, value in (("none", 0.1), ("gold", 1.0)) for seed in (0, 1)
    ]
    # Seed 1 is missing at α = 1. With it, the mean at 0.5 would be 0.95, and enough.
    records = [*references, record_of("u", 0.5, 0, 0.85), record_of("u", 0.5, 1, 1.0), record_of("u", 1.0, 0, 0.95)]
    found, failures = summarise(setup_of().summaries, records)
    assert failures == []
    assert found[0]["metrics"] == {"alpha_star": 1.0}


def test_an_oracle_is_best_on_the_test_set_and_only_there_when_asked_for(bench, setup_of):
    setup = setup_of(alphas=[0.5], oracle=True)
    assert setup.plan.evaluate == "all"
    results, _ = bench(setup)
    mine = [r for r in results.records if r["unlearner"] == "ssd"]

    def value(record):
        return (record["metrics"]["corrected_accuracy"] + record["metrics"]["retain_accuracy"]) / 2

    (oracle,) = [r for r in mine if r["oracle"]]
    assert value(oracle) == max(map(value, mine))
    without, _ = bench(setup_of(alphas=[0.5]))
    assert not any(r["oracle"] for r in without.records)


def test_an_oracle_needs_something_to_be_best_in(setup_of):
    with pytest.raises(cutk.UsageError, match="metrics include none"):
        setup_of(oracle=True, metrics=["changed_fraction"])


class Failing(cutk.Unlearner):
    """Fails in one of several ways."""

    name = "failing"

    class Options(cutk.Options):
        how: str = cutk.option("raise", help="how")

    def prepare(self, task):
        if self.options.how == "prepare":
            raise ValueError("no state today")

    def unlearn(self, task, state=None):
        if self.options.how == "raise":
            raise ZeroDivisionError("it was a test")
        if self.options.how == "exit":
            raise SystemExit(3)
        if self.options.how == "nan":
            next(task.original.parameters()).data.fill_(float("nan"))
        return "a model" if self.options.how == "text" else task.original


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ZeroDivisionError: it was a test"),
        ("prepare", "ValueError: no state today"),
        ("exit", "SystemExit: 3"),
        ("nan", "is not finite after unlearning"),
        ("text", "unlearn() returned str; expected a torch.nn.Module"),
    ],
)
def test_a_failed_cell_is_named_and_stops_nothing(bench, setup_of, how, reason):
    results, watcher = bench(in_place_of_ssd(setup_of(), Failing, how=how))
    assert [(r["unlearner"], r["alpha"]) for r in results.records] == [("none", None), ("gold", None)]
    assert [(f["unlearner"], f["alpha"]) for f in results.failures] == [("failing", 0.5), ("failing", 1.0)]
    assert all(reason in failure["reason"] for failure in results.failures)
    assert len(watcher.failed) == 2


def test_a_failed_point_of_a_grid_leaves_the_others(bench, setup_of):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Failing)
    points = tuple(Failing.Options(how=how) for how in ("raise", "none"))
    results, _ = bench(replace(setup, unlearners=(replace(setup.unlearners[0], points=points),)))
    (record,) = [r for r in results.records if r["unlearner"] == "failing"]
    assert record["options"] == {"how": "none"}
    (failure,) = results.failures
    assert failure["options"] == {"how": "raise"}
    assert "Traceback" in failure["traceback"]


def test_an_original_that_diverges_fails_its_cells_once(bench, setup_of):
    results, watcher = bench(setup_of(recipe={"lr": 1e30}))
    assert results.records == []
    assert len(results.failures) == 4
    assert "Training diverged" in results.failures[0]["reason"]
    assert "There is no original model" in results.failures[2]["reason"]
    assert len([cell for cell in watcher.trained if cell.endswith("original")]) == 1


class NotFinite(cutk.Metric):
    """Not a number."""

    name = "not-finite"

    def compute(self, evaluation):
        return float("nan")


def test_a_failed_metric_is_a_failure_and_not_a_number(bench, setup_of):
    setup = setup_of(alphas=[0.5])
    broken = replace(
        setup.metrics[0],
        entry=Entry("metric", "not-finite", NotFinite, Provider("mine", "1", "x")),
        points=(cutk.Options(),),
    )
    results, _ = bench(replace(setup, metrics=(*setup.metrics, broken)))
    assert len(results.records) == 3
    assert all("not-finite" not in record["metrics"] for record in results.records)
    assert [(f["metric"], f["reason"]) for f in results.failures] == [("not-finite", "the value is nan")] * 3


def test_a_failed_metric_does_not_cause_the_cell_to_be_computed_again(bench, setup_of):
    setup = setup_of(alphas=[0.5], evaluate="all")
    broken = replace(
        setup.metrics[0],
        entry=Entry("metric", "not-finite", NotFinite, Provider("mine", "1", "x")),
        points=(cutk.Options(),),
    )
    setup = replace(setup, metrics=(*setup.metrics, broken))
    first, _ = bench(setup)
    second, watcher = bench(setup)
    assert watcher.trained == []
    assert second.failures == first.failures
    assert len(first.failures) > 3


class BrokenSummary(cutk.Summary):
    """Raises."""

    name = "broken-summary"

    def summarise(self, curve):
        raise KeyError("no such curve")


def test_a_failed_summary_is_a_failure(bench, setup_of):
    setup = setup_of(alphas=[0.5])
    entry = Entry("metric", "broken-summary", BrokenSummary, Provider("mine", "1", "x"))
    broken = replace(setup.summaries[0], entry=entry)
    results, _ = bench(replace(setup, summaries=(*setup.summaries, broken)))
    assert [(f["metric"], f["reason"]) for f in results.failures] == [("broken-summary", "KeyError: 'no such curve'")]
    assert results.summaries[0]["metrics"].keys() == {"alpha_star"}


class BrokenManipulation(cutk.Manipulation):
    """Returns nonsense of several kinds."""

    name = "broken"

    class Options(cutk.Options):
        how: str = cutk.option("raise", help="how")

    def corrupt(self, train, generator):
        indices = {"unsorted": [3, 1], "outside": [10_000], "empty": []}.get(self.options.how, [1])
        if self.options.how == "raise":
            raise KeyError("sorry")
        shorter = train.select(torch.arange(5)) if self.options.how == "shorter" else train
        return cutk.Corruption(shorter, torch.tensor(indices, dtype=torch.int64))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "KeyError: 'sorry'"),
        ("unsorted", "to be sorted"),
        ("outside", "within 0 … 379"),
        ("empty", "with n ≥ 1"),
        ("shorter", "size, shape and classes"),
    ],
)
def test_a_broken_manipulation_is_blamed_by_name(setup_of, tmp_path, how, reason):
    setup = setup_of()
    entry = Entry("manipulation", "broken", BrokenManipulation, Provider("mine", "1", "x"))
    broken = replace(setup.manipulations[0], entry=entry, points=(BrokenManipulation.Options(how=how),))
    with pytest.raises(cutk.CutkError, match=r"The manipulation 'broken' of mine==1 failed: .*") as error:
        Benchmark(replace(setup, manipulations=(broken,)), Store(tmp_path))
    assert reason in str(error.value)


class Chance(cutk.Unlearner):
    """Adds noise from each source of chance."""

    name = "chance"

    class Options(cutk.Options):
        point: int = cutk.option(0, help="tells the points apart")

    def unlearn(self, task, state=None):
        parameter = next(task.original.parameters())
        with torch.no_grad():
            parameter += torch.rand(()) + torch.rand((), generator=task.generator)
        task.log.scalar("noise", parameter.sum())
        return task.original


def test_chance_is_the_same_for_every_point_and_gone_afterwards(bench, setup_of, tmp_path):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Chance)
    points = tuple(Chance.Options(point=point) for point in range(3))
    torch.manual_seed(4)
    state = torch.get_rng_state()
    bench(replace(setup, unlearners=(replace(setup.unlearners[0], points=points),)))
    assert torch.equal(torch.get_rng_state(), state)
    (path,) = (tmp_path / "runs" / "unlearn").glob("*/record.json")
    noises = {tuple(a["scalars"]["noise"]) for a in json.loads(path.read_text())["attempts"]}
    assert len(noises) == 1


class Meddling(cutk.Unlearner):
    """Writes to what it is given."""

    name = "meddling"

    class Options(cutk.Options):
        what: str = cutk.option("labels", help="what it writes to")

    def unlearn(self, task, state=None):
        if self.options.what == "labels":
            task.train.labels.fill_(0)
            task.identified.fill_(0)
            task.retained.fill_(0)
        else:
            task.train._pixels.fill_(0)
        return task.original


def test_labels_that_a_method_writes_to_are_its_own(bench, setup_of, tmp_path):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Meddling)
    both = replace(setup, unlearners=(*setup.unlearners, *setup_of().unlearners))
    results, _ = bench(both)
    alone = Benchmark(setup_of(alphas=[0.5]), Store(tmp_path / "other")).run()
    assert stripped([r for r in results.records if r["unlearner"] == "ssd"]) == stripped(alone.records[2:])


def test_pixels_that_a_method_writes_to_spoil_its_own_cell_alone(bench, setup_of, tmp_path):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Meddling, what="pixels")
    both = replace(setup, unlearners=(*setup.unlearners, *setup_of().unlearners))
    results, _ = bench(both)
    (failure,) = results.failures
    assert (failure["unlearner"], failure["what"]) == ("meddling", "cell")
    assert "It wrote to the training images" in failure["reason"]
    alone = Benchmark(setup_of(alphas=[0.5]), Store(tmp_path / "other")).run()
    assert stripped([r for r in results.records if r["unlearner"] == "ssd"]) == stripped(alone.records[2:])


class Logging(cutk.Unlearner):
    """Logs what isn't a number."""

    name = "logging"

    def unlearn(self, task, state=None):
        task.log.scalar("loss", float("nan"))
        task.log.scalar("loss", 1.0)
        return task.original


def test_a_logged_value_that_is_not_finite_costs_nothing(bench, setup_of, tmp_path):
    results, _ = bench(in_place_of_ssd(setup_of(alphas=[0.5]), Logging))
    assert results.failures == []
    (path,) = (tmp_path / "runs" / "unlearn").glob("*/record.json")
    assert json.loads(path.read_text())["attempts"][0]["scalars"] == {"loss": [None, 1.0]}


def test_results_say_where_they_were_computed(bench, setup_of, monkeypatch):
    first, _ = bench(setup_of(alphas=[0.5]))
    monkeypatch.setattr("cutk.run.benchmark.describe_machine", lambda device: {**real(device), "hardware": "another"})
    read, _ = bench(setup_of(alphas=[0.5]))
    assert read.environment == first.environment
    mixed, _ = bench(setup_of(alphas=[0.5, 1.0]))
    assert mixed.environment["hardware"] == "another"
    assert [other["hardware"] for other in mixed.environment["others"]] == [first.environment["hardware"]]


def test_a_failing_prepare_is_asked_once(bench, setup_of, monkeypatch):
    calls = []
    monkeypatch.setattr(Failing, "prepare", lambda self, task: calls.append(1) or 1 / 0)
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), Failing)
    points = tuple(Failing.Options(how=how) for how in ("none", "text", "raise"))
    results, _ = bench(replace(setup, unlearners=(replace(setup.unlearners[0], points=points),)))
    assert calls == [1]
    assert "ZeroDivisionError" in results.failures[0]["reason"]


class CountingPrepare(cutk.Unlearner):
    """Counts how often it prepares."""

    name = "counting"
    prepared_by = ("kind",)
    calls: list[str] = []  # noqa: RUF012

    class Options(cutk.Options):
        kind: str = cutk.option("a", help="what prepare depends on")
        other: int = cutk.option(0, help="what it doesn't depend on")

    def prepare(self, task):
        self.calls.append(self.options.kind)
        return self.options.kind

    def unlearn(self, task, state=None):
        if state != self.options.kind:
            raise ValueError(f"expected {self.options.kind}, got {state}")
        return task.original


def test_state_is_prepared_once_for_the_points_that_share_it(bench, setup_of):
    setup = in_place_of_ssd(setup_of(alphas=[0.5]), CountingPrepare)
    points = tuple(CountingPrepare.Options(kind=kind, other=n) for n in range(3) for kind in "ab")
    CountingPrepare.calls.clear()
    results, _ = bench(replace(setup, unlearners=(replace(setup.unlearners[0], points=points),)))
    assert results.failures == []
    assert CountingPrepare.calls == ["a", "b"]


@pytest.mark.parametrize("what", ["record.json", "weights.safetensors"])
def test_damage_is_reported_and_computed_again(bench, setup_of, tmp_path, what):
    first, _ = bench(setup_of(alphas=[0.5]))
    for path in (tmp_path / "runs" / "train").glob(f"*/{what}"):
        path.write_bytes(path.read_bytes()[:50])
    # Another α needs the original's weights, so that their damage shows.
    second, watcher = bench(setup_of(alphas=[0.5, 1.0]))
    assert watcher.warnings
    assert all("set aside" in warning and "computed again" in warning for warning in watcher.warnings)
    assert second.failures == []
    assert stripped(second.records[:3]) == stripped(first.records)
    _, watcher = bench(setup_of(alphas=[0.5, 1.0]))
    assert (watcher.warnings, watcher.trained) == ([], [])


def test_a_stopped_run_goes_on_where_it_was(setup_of, tmp_path):
    class Stopping(Watcher):
        def cell_finished(self, cell, read):
            super().cell_finished(cell, read)
            if len(self.computed) == 3:
                raise KeyboardInterrupt

    store = Store(tmp_path / "runs")
    with pytest.raises(KeyboardInterrupt):
        Benchmark(setup_of(), store, Stopping()).run()
    watcher = Watcher()
    results = Benchmark(setup_of(), store, watcher).run()
    assert watcher.trained == ["badnet, seed 0: ssd at α = 1"]
    assert len(results.records) == 4


def test_a_plan_may_name_a_component_twice_and_an_alpha_in_any_order(bench, setup_of):
    results, _ = bench(setup_of(unlearners=["ssd", "ssd"], alphas=[1.0, 0.5, 1.0]))
    assert [(r["unlearner"], r["alpha"]) for r in results.records[2:]] == [("ssd", 1.0), ("ssd", 0.5)]


def test_options_of_what_the_plan_drops_go_with_it():
    base = {"model": "a", "options": {"a": {"x": 1}, "b": {"y": 1}}, "recipe": {"steps": 1, "lr": 2}}
    over = {"model": "b", "options": {"b": {"z": 2}}, "recipe": {"steps": 3}}
    assert layer(base, over) == {
        "model": "b",
        "options": {"b": {"y": 1, "z": 2}},
        "recipe": {"steps": 3, "lr": 2},
    }


def test_a_dataset_suggests_and_the_plan_decides(registry, setup_of):
    plan = setup_of(dataset="digits", options={"badnet": {"size": 1}}, recipe={"steps": 7}).plan
    setup = resolve(Plan.parse(plan.model_dump()), registry)
    badnet, digits = setup.manipulations[0].points[0], registry.get("dataset", "digits").component
    assert badnet.size == 1
    assert badnet.fraction == digits.suggests["badnet"]["fraction"]
    assert (setup.recipe.steps, setup.recipe.flip) == (7, False)
