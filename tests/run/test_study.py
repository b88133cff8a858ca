from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

import cutk
from cutk.machine import describe_machine as real
from cutk.plugins.registry import Entry, Provider
from cutk.run.plan import Plan, layer, read_preset
from cutk.run.setup import resolve
from cutk.run.store import Store
from cutk.run.study import Study


def test_a_run_gives_a_record_for_each_model(bench, setup_of):
    results, watcher = bench(setup_of())
    rows = [(r.role, r.unlearner, r.alpha, r.seed, r.selected) for r in results.records]
    assert rows == [
        ("original", None, None, 0, True),
        ("gold", None, None, 0, True),
        ("unlearned", "ssd", 0.5, 0, True),
        ("unlearned", "ssd", 1.0, 0, True),
    ]
    assert results.failures == []
    assert len(watcher.computed) == 4
    record = results.records[2]
    assert list(record.model_dump()) == [
        *("role", "dataset", "manipulation", "model", "recipe", "unlearner", "alpha", "seed", "manipulated"),
        *("identified", "options", "selected", "oracle", "selection_score", "metrics", "breakdowns", "seconds"),
        *("provider", "key"),
    ]
    assert (record.manipulated, record.identified, record.oracle) == (19, 10, False)
    assert set(record.breakdowns) == {
        *("importance_ratio", "affected_class_accuracy", "retain_class_accuracy", "manipulated_class_accuracy"),
    }
    parameters = sum(p.numel() for p in setup_of().model.make().build((1, 8, 8), 4).parameters())
    assert 0 < sum(record.breakdowns["importance_ratio"].values()) <= parameters
    assert record.provider == f"cutk=={cutk.__version__}"
    assert set(record.metrics) == {
        *("corrected_accuracy", "retain_accuracy", "attack_success_rate", "manipulated_train_accuracy"),
        *("changed_fraction", "unlearn_seconds"),
    }
    original = results.records[0]
    assert "importance_ratio" not in original.breakdowns
    assert (original.options, original.selection_score) == ({}, None)
    assert not {"changed_fraction", "unlearn_seconds"} & set(original.metrics)
    assert results.summaries[0].metrics.keys() == {"alpha_star"}


def test_the_backdoor_works_and_gold_has_none(bench, setup_of):
    results, _ = bench(setup_of(recipe={"steps": 60}))
    original, gold = results.records[:2]
    assert original.metrics["attack_success_rate"] > 0.9
    assert original.metrics["retain_accuracy"] > 0.9
    assert gold.metrics["attack_success_rate"] < 0.1


def test_the_same_plan_again_reads_everything(bench, setup_of):
    first, _ = bench(setup_of())
    second, watcher = bench(setup_of())
    assert second.records == first.records
    assert watcher.computed == []
    assert len(watcher.read) == 4
    assert (first.computed, second.computed) == (4, 0)


def test_results_do_not_depend_on_what_was_there_before(bench, setup_of, tmp_path, stripped):
    bench(setup_of(alphas=[1.0]))
    resumed, watcher = bench(setup_of())
    assert watcher.trained == ["badnet, seed 0: ssd at α = 0.5"]
    fresh = Study(setup_of(), Store(tmp_path / "other")).run()
    assert stripped(resumed.records) == stripped(fresh.records)


def test_what_decides_a_result_decides_its_key(setup_of, tmp_path):
    def keys(**over):
        study = Study(setup_of(**over), Store(tmp_path))
        return {study.worker.key(cell) for cell in study.cells}

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


def test_every_grid_point_is_a_record_where_all_are_asked_for(bench, setup_of, stripped):
    selected, _ = bench(setup_of(alphas=[0.5]))
    every, watcher = bench(setup_of(alphas=[0.5], evaluate="all"))
    assert watcher.trained == ["badnet, seed 0: ssd at α = 0.5"]
    mine = [r for r in every.records if r.unlearner == "ssd"]
    assert [r.selected for r in mine].count(True) == 1
    assert len(mine) == len(setup_of().unlearners[0].points) > 1
    assert all(r.metrics for r in mine)
    best = max(mine, key=lambda r: r.selection_score)
    assert next(r for r in mine if r.selected).selection_score == best.selection_score
    assert stripped([r for r in every.records if r.selected]) == stripped(selected.records)
    again, watcher = bench(setup_of(alphas=[0.5]))
    assert watcher.trained == []
    assert len(again.records) == len(selected.records)


def test_a_metric_that_comes_later_is_computed_from_the_stored_weights(bench, setup_of, monkeypatch):
    bench(setup_of(metrics=["retain_accuracy"]))
    whole, watcher = bench(setup_of())
    assert watcher.trained == []
    assert all("corrected_accuracy" in record.metrics for record in whole.records)
    again, _ = bench(setup_of())
    assert again.records == whole.records


def test_a_cell_that_is_computed_again_for_a_metric_loses_none(bench, setup_of):
    def detecting(*names):
        setup = setup_of(alphas=[0.5], unlearners=["none+seeded-probe"], metrics=["retain_accuracy", *names])
        results, watcher = bench(setup)
        (record,) = [r for r in results.records if r.unlearner]
        return record.metrics, watcher.computed

    first, _ = detecting("detection_roc")
    _, computed = detecting("detection_precision")  # of suspicions, which aren't kept
    assert len(computed) == 1
    both, computed = detecting("detection_roc", "detection_precision")
    assert computed == []
    assert both["detection_roc"] == first["detection_roc"]


def test_passes_and_memory_are_what_prepare_and_unlearn_took(bench, setup_of):
    base = setup_of().plan.metrics
    setup = setup_of(metrics=[*base, "passes", "peak_memory"], unlearners=["ssd", "rewod"], alphas=[1.0])
    results, _ = bench(setup)
    by_name = {r.unlearner: r.metrics for r in results.records}
    assert by_name["ssd"]["passes"] == 1.0  # S_f once and the rest once, for all points together
    assert by_name["rewod"]["passes"] == pytest.approx(20 * 32 / 380)
    assert by_name["rewod"]["peak_memory"] >= 0


def test_a_failed_cell_is_noted_until_it_succeeds(bench, setup_of, tmp_path, having):
    setup = having(setup_of(alphas=[0.5]), unlearners=[(Failing,)])
    bench(setup)
    store = Store(tmp_path / "runs")
    (noted,) = store.failures()
    assert (noted.what, noted.manipulation, noted.seed, noted.unlearner, noted.alpha) == (
        *("cell", "badnet", 0, "failing", 0.5),
    )
    assert noted.reason.startswith("ZeroDivisionError: it was a test")
    study = Study(setup, store)
    store.forget_failure(study.worker.key(study.cells[-1]))
    assert store.failures() == []


def test_cells_that_lack_points_are_to_do(bench, setup_of, tmp_path):
    bench(setup_of(alphas=[0.5]))
    store = Store(tmp_path / "runs")
    for over, stored in (({}, 3), ({"evaluate": "all"}, 2)):
        study = Study(setup_of(alphas=[0.5], **over), store)
        assert sum(study.worker.is_stored(cell) for cell in study.cells) == stored


def test_an_oracle_is_best_on_the_test_set_and_only_there_when_asked_for(bench, setup_of):
    setup = setup_of(alphas=[0.5], oracle=True)
    assert setup.plan.evaluate == "all"
    results, _ = bench(setup)
    mine = [r for r in results.records if r.unlearner == "ssd"]

    def value(record):
        return (record.metrics["corrected_accuracy"] + record.metrics["retain_accuracy"]) / 2

    (oracle,) = [r for r in mine if r.oracle]
    assert value(oracle) == max(map(value, mine))
    without, _ = bench(setup_of(alphas=[0.5]))
    assert not any(r.oracle for r in without.records)


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
def test_a_failed_cell_is_named_and_stops_nothing(bench, setup_of, how, reason, having):
    results, watcher = bench(having(setup_of(), unlearners=[(Failing, {"how": how})]))
    assert [r.role for r in results.records] == ["original", "gold"]
    assert [(f.unlearner, f.alpha) for f in results.failures] == [("failing", 0.5), ("failing", 1.0)]
    assert all(reason in failure.reason for failure in results.failures)
    assert len(watcher.failed) == 2


def test_a_failed_point_of_a_grid_leaves_the_others(bench, setup_of, having):
    points = [{"how": how} for how in ("raise", "none")]
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Failing, *points)]))
    (record,) = [r for r in results.records if r.unlearner == "failing"]
    assert record.options == {"how": "none"}
    (failure,) = results.failures
    assert failure.options == {"how": "raise"}
    assert "Traceback" in failure.traceback


def test_an_original_that_diverges_fails_its_cells_once(bench, setup_of):
    results, watcher = bench(setup_of(recipe={"lr": 1e30}))
    assert results.records == []
    assert len(results.failures) == 4
    assert "Training diverged" in results.failures[0].reason
    assert "There is no original model" in results.failures[2].reason
    assert len([cell for cell in watcher.trained if cell.endswith("original")]) == 1


class NotFinite(cutk.Metric):
    """Not a number."""

    name = "not-finite"

    def compute(self, evaluation):
        return float("nan")


def test_a_failed_metric_is_a_failure_and_not_a_number(bench, setup_of, having):
    setup = setup_of(alphas=[0.5])
    results, _ = bench(having(setup, metrics=[*setup.metrics, (NotFinite,)]))
    assert len(results.records) == 3
    assert all("not-finite" not in record.metrics for record in results.records)
    assert [(f.metric, f.reason) for f in results.failures] == [("not-finite", "the value is nan")] * 3


def test_a_failed_metric_does_not_cause_the_cell_to_be_computed_again(bench, setup_of, having):
    setup = setup_of(alphas=[0.5], evaluate="all")
    setup = having(setup, metrics=[*setup.metrics, (NotFinite,)])
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


def test_a_failed_summary_is_a_failure(bench, setup_of, having):
    setup = setup_of(alphas=[0.5])
    results, _ = bench(having(setup, summaries=[*setup.summaries, (BrokenSummary,)]))
    assert [(f.what, f.metric) for f in results.failures] == [("summary", "broken-summary")]
    assert results.failures[0].reason.startswith("KeyError: 'no such curve'")
    assert results.summaries[0].metrics.keys() == {"alpha_star"}


class OfNothing(cutk.Summary):
    """Is of a metric that isn't there."""

    name = "of-nothing"
    of = ("retain_acuracy",)

    def summarise(self, curve):
        return 1.0


class OfSearches(OfNothing):
    """Is of a metric that references have no value for."""

    name = "of-searches"
    of = ("changed_fraction",)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (("retain_acuracy",), "Unknown metric 'retain_acuracy'. Did you mean 'retain_accuracy'?"),
        (("alpha_star",), "'alpha_star', a summary; expected the names of metrics."),
        (("retain_accuracy[badnet]",), ""),
    ],
)
def test_a_summary_of_a_metric_that_nobody_provides_is_refused(registry, of, said):
    component = type("OfNothing", (OfNothing,), {"of": of})
    entry = Entry("summary", "of-nothing", component, Provider("mine", "1", "of_nothing"))
    plan = Plan.parse(layer(read_preset("default", registry), {"unlearners": ["none"], "summaries": ["of-nothing"]}))
    known = replace(registry, entries=[*registry.entries, entry])
    if not said:
        assert resolve(plan, known).summaries
        return
    with pytest.raises(cutk.UsageError, match=re.escape("The summary 'of-nothing' of mine==1 names in of")) as error:
        resolve(plan, known)
    assert said in str(error.value)


def test_a_summary_that_gold_gives_no_value_for_is_told(bench, setup_of, having):
    setup = setup_of(alphas=[0.5], unlearners=["none"], options={}, recipe={"steps": 3})
    results, watcher = bench(having(setup, summaries=[(OfSearches,)]))
    said = "There is no 'of-searches' where gold has no 'changed_fraction': a summary needs a value for gold."
    assert said in watcher.warnings
    assert results.summaries[0].metrics == {}


class NoSplits(cutk.Dataset):
    """Returns a pair."""

    name = "no-splits"

    def load(self):
        return "train", "test"


@pytest.mark.parametrize("blank", [False, True])
def test_a_dataset_that_loads_no_splits_is_named(setup_of, having, tmp_path, blank):
    setup = setup_of()
    setup = replace(setup, dataset=having(setup, selector=(NoSplits,)).selector)
    said = "The dataset 'no-splits' of mine==1: load() returned tuple; expected a cutk.Splits."
    with pytest.raises(cutk.UsageError, match=re.escape(said)):
        Study(setup, Store(tmp_path / "runs"), blank=blank)


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
        ("unsorted", "sorted"),
        ("outside", "379"),
        ("empty", "n ≥ 1"),
        ("shorter", "clean"),
    ],
)
def test_a_broken_manipulation_is_blamed_by_name_and_stops_no_other(bench, setup_of, having, how, reason):
    setup = setup_of(alphas=[0.5])
    both = having(setup, manipulations=[(BrokenManipulation, {"how": how}), *setup.manipulations])
    results, _ = bench(both)
    assert {r.manipulation for r in results.records} == {"badnet"}
    assert len(results.records) == 3
    assert {(f.what, f.manipulation) for f in results.failures} == {("cell", "broken")}
    assert len(results.failures) == 3
    assert results.failures[0].reason.startswith("The manipulation 'broken' of mine==1 failed: ")
    assert reason in results.failures[0].reason


class FailingDraw(cutk.Manipulation):
    """Raises at one draw of several."""

    name = "failing-draw"

    def corrupt(self, train, generator):
        FailingDraw.draws.append(1)
        if torch.rand((), generator=generator) < 0.5:
            raise KeyError("an unlucky draw")
        labels = train.labels.clone()
        labels[:20] = (labels[:20] + 1) % len(train.classes)
        return cutk.Corruption(train.changed(labels=labels), torch.arange(20))

    draws: list[int] = []  # noqa: RUF012


def test_a_draw_that_raises_costs_its_own_seed_alone(bench, setup_of, having):
    setup = having(setup_of(alphas=[0.5], seeds=6), manipulations=[(FailingDraw,)])
    results, _ = bench(setup)
    failed = {failure.seed for failure in results.failures}
    there = {record.seed for record in results.records}
    assert failed
    assert there
    assert failed | there == set(range(6))
    assert not failed & there


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


def test_chance_is_the_same_for_every_point_and_gone_afterwards(bench, setup_of, tmp_path, having):
    setup = having(setup_of(alphas=[0.5]), unlearners=[(Chance, *({"point": point} for point in range(3)))])
    torch.manual_seed(4)
    state = torch.get_rng_state()
    bench(setup)
    assert torch.equal(torch.get_rng_state(), state)
    (path,) = (tmp_path / "runs" / "unlearn").glob("*/record.json")
    noises = {tuple(a["scalars"]["noise"]) for a in json.loads(path.read_text())["attempts"]}
    assert len(noises) == 1


class Logging(cutk.Unlearner):
    """Logs what isn't a number."""

    name = "logging"

    def unlearn(self, task, state=None):
        task.log.scalar("loss", float("nan"))
        task.log.scalar("loss", 1.0)
        return task.original


def test_a_logged_value_that_is_not_finite_costs_nothing(bench, setup_of, tmp_path, having):
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Logging,)]))
    assert results.failures == []
    (path,) = (tmp_path / "runs" / "unlearn").glob("*/record.json")
    assert json.loads(path.read_text())["attempts"][0]["scalars"] == {"loss": [None, 1.0]}


def test_results_say_where_they_were_computed(bench, setup_of, monkeypatch):
    first, _ = bench(setup_of(alphas=[0.5]))
    monkeypatch.setattr("cutk.run.opened.describe_machine", lambda device: {**real(device), "hardware": "another"})
    read, _ = bench(setup_of(alphas=[0.5]))
    assert read.document()["environment"] == first.document()["environment"]
    mixed, watcher = bench(setup_of(alphas=[0.5, 1.0]))
    assert {where.hardware for where in mixed.environments} == {"another", first.environment.hardware}
    assert any("2 environments" in warning for warning in watcher.warnings)


def test_seeds_are_counted_or_named(setup_of, tmp_path):
    def seeds(given):
        return list(dict.fromkeys(cell.seed for cell in Study(setup_of(seeds=given), Store(tmp_path)).cells))

    assert seeds(3) == [0, 1, 2]
    assert seeds([12, 11, 12]) == [12, 11]


def test_a_composition_is_measured_on_each_domain_and_as_a_whole(bench, setup_of):
    plan = {"manipulations": ["badnet+interclass-confusion"], "alphas": [1.0]}
    results, _ = bench(setup_of(**plan, options={"interclass-confusion": {"count": 20}}))
    assert results.failures == []
    for record in results.records:
        assert record.manipulation == "badnet+interclass-confusion"
        names = {name for name in record.metrics if name.startswith("corrected_accuracy")}
        assert names == {
            *("corrected_accuracy", "corrected_accuracy[badnet]", "corrected_accuracy[interclass-confusion]"),
        }
        assert "attack_success_rate[badnet]" in record.metrics
        assert "attack_success_rate[interclass-confusion]" not in record.metrics
    gold = next(record for record in results.records if record.role == "gold")
    assert gold.manipulated == 19 + 20


def test_a_failing_prepare_is_asked_once(bench, setup_of, monkeypatch, having):
    calls = []
    monkeypatch.setattr(Failing, "prepare", lambda self, task: calls.append(1) or 1 / 0)
    points = [{"how": how} for how in ("none", "text", "raise")]
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Failing, *points)]))
    assert calls == [1]
    assert "ZeroDivisionError" in results.failures[0].reason


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


def test_state_is_prepared_once_for_the_points_that_share_it(bench, setup_of, having):
    points = [{"kind": kind, "other": n} for n in range(3) for kind in "ab"]
    CountingPrepare.calls.clear()
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(CountingPrepare, *points)]))
    assert results.failures == []
    assert CountingPrepare.calls == ["a", "b"]


@pytest.mark.parametrize("what", ["record.json", "weights.safetensors"])
def test_damage_is_reported_and_computed_again(bench, setup_of, tmp_path, what, stripped):
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


def test_a_stopped_run_goes_on_where_it_was(setup_of, tmp_path, watcher_class):
    class Stopping(watcher_class):
        def cell_finished(self, cell, run, read):
            super().cell_finished(cell, run, read)
            if len(self.computed) == 3:
                raise KeyboardInterrupt

    store = Store(tmp_path / "runs")
    with pytest.raises(KeyboardInterrupt):
        Study(setup_of(), store, Stopping()).run()
    watcher = watcher_class()
    results = Study(setup_of(), store, watcher).run()
    assert watcher.trained == ["badnet, seed 0: ssd at α = 1"]
    assert len(results.records) == 4


def test_a_plan_may_name_a_component_twice_and_an_alpha_in_any_order(bench, setup_of):
    results, _ = bench(setup_of(unlearners=["ssd", "ssd"], alphas=[1.0, 0.5, 1.0]))
    assert [(r.unlearner, r.alpha) for r in results.records[2:]] == [("ssd", 1.0), ("ssd", 0.5)]


def test_who_observes_hears_nothing_of_a_study_that_has_ended(setup_of, tmp_path, monkeypatch):
    """A worker elsewhere may end after the study, where that was interrupted."""
    study, told = Study(setup_of(alphas=[0.5]), Store(tmp_path)), []
    monkeypatch.setattr(study.observer, "progress", lambda *arguments: told.append(arguments))
    study._hear("progress", ("before", 1, 2))
    study.run()
    heard = len(told)
    assert heard > 0
    study._hear("progress", ("late", 2, 2))
    assert len(told) == heard
