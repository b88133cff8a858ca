"""What a method can change, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import cutk
import cutk.run.keys
from cutk.problem.expansion import expanding
from cutk.run.store import Store
from cutk.run.study import Study
from cutk.run.worker import Worker


class Meddling(cutk.Unlearner):
    """Changes what it is given, or what belongs to the process."""

    name = "meddling"

    class Options(cutk.Options):
        what: str = cutk.option("labels", help="what it changes")

    def prepare(self, task):
        return {"lr": 0.1, "weights": torch.ones(3)}

    def unlearn(self, task, state=None):
        getattr(self, f"_{self.options.what}")(task, state)
        return task.original

    def _labels(self, task, state):
        task.train.labels.fill_(0)
        task.identified.fill_(0)
        task.retained.fill_(0)

    def _validation(self, task, state):
        task.validation.labels.fill_(0)

    def _recipe(self, task, state):
        task.recipe.options = task.recipe.options.model_copy(update={"lr": 0.5, "steps": 1})
        task.recipe.precision = "bf16"
        task.recipe.fit = None
        task.recipe.__dict__["predict"] = None

    def _options(self, task, state):
        task.recipe.options.__dict__["steps"] = 1

    def _threads(self, task, state):
        torch.set_num_threads(torch.get_num_threads() + 1)

    def _flags(self, task, state):
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.mkldnn.set_flags(False)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)

    def _hook(self, task, state):
        nn.modules.module.register_module_forward_hook(lambda module, args, output: output * 2)

    def _patch(self, task, state):
        torch.optim.SGD.step = lambda self, closure=None: None
        nn.functional.cross_entropy = lambda *args, **kwargs: torch.zeros((), requires_grad=True)
        torch.randperm = lambda n, **kwargs: torch.arange(n)

    def _device(self, task, state):
        torch.set_default_device("meta")

    def _folder(self, task, state):
        os.chdir("/")
        os.environ["OMP_NUM_THREADS"] = "3"

    def _chance(self, task, state):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)


@pytest.mark.parametrize("what", [name[1:] for name in vars(Meddling) if name[:1] == "_" and name[:2] != "__"])
def test_what_a_method_changes_changes_no_other_method(undisturbed, bench, setup_of, having, stripped, what, tmp_path):
    setup = setup_of(alphas=[0.5], seeds=2, unlearners=["cf", "ssd"], options={"cf": {"steps": 5}})
    alone = undisturbed(setup)
    results, watcher = bench(having(setup, unlearners=[(Meddling, {"what": what}), *setup.unlearners]), "both")
    assert results.failures == []
    others = [record for record in results.records if record.unlearner != "meddling"]
    assert stripped(others) == stripped(alone.records)
    if what in ("threads", "flags", "hook", "patch", "device", "folder"):
        assert any("meddling" in warning and "put back" in warning for warning in watcher.warnings)


@pytest.mark.parametrize("way", ["item", "data", "numpy"])
@pytest.mark.parametrize("which", ["train", "validation"])
def test_samples_that_a_method_writes_to_spoil_its_own_cell_alone(
    undisturbed, bench, setup_of, having, stripped, way, which
):
    class Writing(cutk.Unlearner):
        """Writes to the samples."""

        name = "writing"

        def unlearn(self, task, state=None):
            x = getattr(task, which)._x
            if way == "item":
                x[0] = 0
            elif way == "data":
                x.data[0].fill_(0)
            else:
                x.numpy()[0] = 0
            return task.original

    setup = setup_of(alphas=[0.5])
    alone = undisturbed(setup)
    results, _ = bench(having(setup, unlearners=[(Writing,), *setup.unlearners]), "both")
    (failure,) = results.failures
    assert (failure.unlearner, failure.what) == ("writing", "cell")
    assert "It wrote to the samples" in failure.reason
    assert stripped([r for r in results.records if r.unlearner != "writing"]) == stripped(alone.records)


class Stateful(cutk.Unlearner):
    """Returns its state, changed in place: a later point must not change an earlier one's model."""

    name = "stateful"

    class Options(cutk.Options):
        scale: float = cutk.option(1.0, help="what the weights are multiplied by")

    def prepare(self, task):
        return task.original

    def unlearn(self, task, state=None):
        with torch.no_grad():
            for parameter in state.parameters():
                parameter.mul_(self.options.scale)
        return state


def test_a_point_that_returns_the_shared_state_changes_no_other(bench, setup_of, having, stripped):
    setup = setup_of(alphas=[0.5], evaluate="all")
    points = [{"scale": 1.0}, {"scale": 0.0}, {"scale": 1.0}]
    results, _ = bench(having(setup, unlearners=[(Stateful, *points)]))
    first, _, third = (r for r in results.records if r.role == "unlearned")
    assert first.metrics["retain_accuracy"] == third.metrics["retain_accuracy"] > 0.5
    assert first.selection_score == third.selection_score


class Dressed(cutk.Unlearner):
    """Returns something else than the architecture with weights."""

    name = "dressed"

    class Options(cutk.Options):
        how: str = cutk.option("hook", help="how")

    def unlearn(self, task, state=None):
        model, how = task.original, self.options.how
        if how == "hook":
            model.register_forward_hook(lambda module, args, output: output.flip(1))
        elif how == "wrapper":
            model = nn.Sequential(model, nn.Softmax(1))
        elif how == "forward":
            plain = model.forward
            model.forward = lambda x: -plain(x)
        elif how == "other":
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).to(task.device)
        return model


@pytest.mark.parametrize("how", ["hook", "wrapper", "forward", "other"])
def test_a_model_that_is_not_its_weights_is_refused_with_what_to_return(bench, setup_of, having, how):
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Dressed, {"how": how})]))
    (failure,) = results.failures
    assert "Return task.original, changed in place" in failure.reason


def test_what_is_measured_later_is_what_was_measured_first(bench, setup_of, having):
    setup = setup_of(alphas=[0.5], metrics=["retain_accuracy"])
    bench(having(setup, unlearners=[(Stateful, {"scale": 0.5})]))
    setup = setup_of(alphas=[0.5], metrics=["retain_accuracy", "retain_class_accuracy"])
    results, watcher = bench(having(setup, unlearners=[(Stateful, {"scale": 0.5})]))
    assert watcher.trained == []
    for record in results.records:
        by_class = record.breakdowns["retain_class_accuracy"].values()
        assert record.metrics["retain_accuracy"] == pytest.approx(sum(by_class) / len(by_class), abs=0.02)


class Suspicious(cutk.Unlearner):
    """Suspects those that it was told of, when it prepares or when it unlearns, or says what can't be."""

    name = "suspicious"

    class Options(cutk.Options):
        says: str = cutk.option("prepare", help="when, or that it is too long")

    def prepare(self, task):
        if self.options.says == "prepare":
            self._suspect(task, len(task.train))

    def unlearn(self, task, state=None):
        if self.options.says not in ("prepare", "nothing"):
            self._suspect(task, len(task.train) + (self.options.says == "too long"))
        return task.original

    @staticmethod
    def _suspect(task, count):
        found = torch.zeros(count)
        task.log.suspicion(found)
        found[:2] = 0.5
        found[task.identified] = 1.0
        task.log.suspicion(found)
        found.zero_()  # which is nobody's then


@pytest.mark.parametrize("says", ["prepare", "unlearn", "nothing"])
def test_what_is_suspected_is_judged_and_computed_again_where_it_was_not_kept(bench, setup_of, having, says):
    method = {"unlearners": [(Suspicious, {"says": says})]}
    bench(having(setup_of(alphas=[0.5], metrics=["retain_accuracy"]), **method))
    setup = having(setup_of(alphas=[0.5], metrics=["retain_accuracy", "detection_alpha_error"]), **method)
    results, watcher = bench(setup)
    (record,) = (r for r in results.records if r.role == "unlearned")
    assert [cell for cell in watcher.trained if "suspicious" not in cell] == []
    assert len(watcher.trained) == 1
    said = record.metrics.get("detection_alpha_error")
    assert (said is None) == (says == "nothing")
    if said is not None:  # the first two count as half each, unless they are known
        known, others = record.identified, record.manipulated - record.identified
        errors = [known / (known + half / 2) - known / (known + others) for half in range(3)]
        assert min(abs(said - error) for error in errors) < 1e-6
    assert bench(setup)[1].trained == []


def test_a_suspicion_that_is_none_fails_its_cell(bench, setup_of, having):
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Suspicious, {"says": "too long"})]))
    (failure,) = results.failures
    assert "What 'suspicious' suspects: expected float32 [" in failure.reason


class FromFile(cutk.Manipulation):
    """Reads what to do from a file that isn't among its options."""

    name = "from-file"

    def corrupt(self, train, generator):
        shift = int(Path("shift.txt").read_text())
        labels = train.labels.clone()
        labels[:20] = (labels[:20] + shift) % len(train.classes)
        return cutk.Corruption(train.changed(labels=labels), torch.arange(20))


def test_a_manipulation_that_reads_another_file_is_another_run(bench, setup_of, having, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = having(setup_of(alphas=[0.5]), manipulations=[(FromFile,)])
    for shift in (1, 2):
        (tmp_path / "shift.txt").write_text(str(shift))
        _, watcher = bench(setup)
        assert len(watcher.computed) == 3, shift
    _, watcher = bench(setup)
    assert len(watcher.read) == 3


def test_data_that_were_prepared_are_so_after_they_were_read_again(setup_of, tmp_path):
    def half(splits):
        return replace(splits, train=splits.train.select(torch.arange(100)))

    worker = Worker(setup_of(), Store(tmp_path), prepare=half)
    worker.scenario("badnet", 0).corruption.train.x.add_(0)
    worker._note_content()
    worker.scenario("badnet", 0).corruption.train.x.add_(1)
    assert worker._restored()
    assert len(worker.splits.train) == 100


def test_threads_decide_a_key(setup_of, tmp_path):
    before = torch.get_num_threads()

    def keys(threads):
        study = Study(setup_of(alphas=[0.5], threads=threads), cutk.run.store.Store(tmp_path))
        return {study.worker.key(cell) for cell in study.cells}

    try:
        one = keys(1)
        assert torch.get_num_threads() == 1
        assert not one & keys(2)
        assert torch.get_num_threads() == 2
        assert keys("auto") == one  # a step of so small a model is worth no second thread
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("manipulation", ["badnet", "badnet+interclass-confusion"])
def test_a_key_is_of_all_that_decides_a_cell_however_it_is_put_together(setup_of, tmp_path, manipulation):
    setup = setup_of(manipulations=[manipulation], alphas=[0.5, 1.0], unlearners=["ssd", "none"], seeds=2)
    study = Study(setup, Store(tmp_path))
    for cell in study.cells:
        whole = study.worker.decided_by(cell).model_dump(mode="json")
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
        assert study.worker.key(cell) == hashlib.sha256(text.encode()).hexdigest()


def test_a_changed_copy_has_a_key_of_its_own(setup_of, tmp_path):
    study = Study(setup_of(alphas=[0.5]), Store(tmp_path))
    decided = study.worker.decided_by(study.cells[0])
    before = cutk.run.keys.key_of(decided)
    other = decided.model_copy(update={"seed": decided.seed + 1})
    assert cutk.run.keys.key_of(other) != before
    assert cutk.run.keys.key_of(other.model_copy(update={"seed": decided.seed})) == before


def test_a_folder_that_a_method_changes_moves_no_run(setup_of, having, tmp_path, monkeypatch):
    from cutk.run.store import Store

    monkeypatch.chdir(tmp_path)
    setup = setup_of(alphas=[0.5])
    study = Study(having(setup, unlearners=[(Meddling, {"what": "folder"}), *setup.unlearners]), Store("runs"))
    study.run()
    assert len(list((tmp_path / "runs" / "unlearn").iterdir())) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_what_is_no_failure_passes_through(setup_of, having, tmp_path, error):
    class Interrupted(cutk.Unlearner):
        """Is interrupted."""

        name = "interrupted"

        def unlearn(self, task, state=None):
            raise error

    from cutk.run.store import Store

    setup = having(setup_of(alphas=[0.5]), unlearners=[(Interrupted,)])
    with pytest.raises(error):
        Study(setup, Store(tmp_path)).run()


class Odd(BaseException):
    pass


def test_an_odd_exception_is_a_failure_like_any_other(bench, setup_of, having):
    class Raising(cutk.Unlearner):
        """Raises what is no Exception, with a text that no terminal takes."""

        name = "raising"

        def unlearn(self, task, state=None):
            raise Odd("\ud800 \x1b[31m")

    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Raising,)]))
    (failure,) = results.failures
    assert "Odd" in failure.reason
    assert "test_worker.py" in failure.reason
    failure.model_dump_json().encode()


def _patch():
    torch.optim.SGD.step = lambda self, closure=None: None
    torch.set_num_threads(torch.get_num_threads() + 1)


class PatchingManipulation(cutk.Manipulation):
    """Patches what trains, and writes to the test samples that it is asked about."""

    name = "patching"

    def corrupt(self, train, generator):
        _patch()
        labels = train.labels.clone()
        labels[:8] = (labels[:8] + 1) % len(train.classes)

        def affected(samples):
            samples.labels.zero_()
            samples.x.zero_()
            return torch.ones(len(samples), dtype=torch.bool)

        return cutk.Corruption(train.changed(labels=labels), torch.arange(8), affected=affected)


class PatchingSelector(cutk.Selector):
    """Patches what trains, and empties the scores."""

    name = "patching"
    measures = ("validation_accuracy",)

    def value(self, score):
        _patch()
        return score.validation_accuracy

    def choose(self, scores):
        _patch()
        chosen = super().choose(scores)
        scores.clear()
        return chosen


class Zeroing(cutk.Metric):
    """Writes to the model, its outputs and the labels."""

    name = "a-zeroing"

    def compute(self, evaluation):
        evaluation.retain_logits.zero_()
        evaluation.affected_logits.zero_()
        evaluation.truth.affected.labels.zero_()
        evaluation.truth.retain.labels.zero_()
        evaluation.truth.manipulated.zero_()
        evaluation.truth.clean_labels.zero_()
        with torch.no_grad():
            for parameter in evaluation.model.parameters():
                parameter.zero_()
        return 0.5


def test_a_manipulation_changes_no_other(undisturbed, bench, setup_of, having, stripped):
    setup = setup_of(seeds=1, unlearners=["cf"])
    both = having(setup, manipulations=[(PatchingManipulation,), *setup.manipulations])
    alone = undisturbed(setup)
    beside, watcher = bench(both, "beside")
    there = [record for record in beside.records if record.manipulation == setup.manipulations[0].name]
    assert stripped(there) == stripped(alone.records)
    assert any("'patching'" in text for text in watcher.warnings)


def test_a_selector_changes_no_method(bench, setup_of, having):
    setup = setup_of(seeds=1, unlearners=["cf"], alphas=[0.5, 1.0])
    threads = torch.get_num_threads()
    results, watcher = bench(having(setup, selector=(PatchingSelector,)))
    assert not results.failures
    assert torch.get_num_threads() == threads
    assert torch.optim.SGD.step.__name__ != "<lambda>"
    assert any("selector 'patching'" in t for t in watcher.warnings)


def test_a_metric_that_writes_changes_no_other_and_no_model(undisturbed, bench, setup_of, having, stripped):
    setup = setup_of(seeds=1, unlearners=["cf"])
    zeroing = having(setup, metrics=[(Zeroing,)]).metrics
    first = replace(setup, metrics=(*zeroing, *setup.metrics))
    written, _ = bench(first, "written")
    alone = undisturbed(setup)
    again, _ = bench(setup, "written")  # the originals that are read are what they were

    def values(results):
        return [
            {name: value for name, value in record["metrics"].items() if name != "a-zeroing"}
            for record in stripped(results.records)
        ]

    assert values(written) == values(alone) == values(again)


@pytest.mark.parametrize("which", ["retain", "affected", "samples", "held_out", "train"])
def test_a_metric_that_writes_to_samples_spoils_its_own_cell_alone(
    undisturbed, bench, setup_of, having, stripped, which
):
    class Writing(cutk.Metric):
        """Writes to the samples while it judges gold."""

        name = "writing"
        calls: list[int] = []  # noqa: RUF012

        def compute(self, evaluation):
            self.calls.append(1)
            if len(self.calls) == 2:
                samples = getattr(evaluation.truth, which)
                x = samples._x if isinstance(samples, cutk.TrainSet) else samples.x
                x.numpy()[0] = 0
            return 0.5

    setup = setup_of(alphas=[1.0], unlearners=["none"], options={})
    alone = undisturbed(setup)
    results, _ = bench(replace(setup, metrics=(*setup.metrics, *having(setup, metrics=[(Writing,)]).metrics)), "both")
    (failure,) = results.failures
    assert (failure.role, failure.reason) == (
        "gold",
        "A metric wrote to the samples, which every method shares. Work on a copy.",
    )
    for record in results.records:
        record.metrics.pop("writing")
    assert stripped(results.records) == [r for r in stripped(alone.records) if r["role"] != "gold"]


class WritingIdentification(cutk.Identification):
    """Finds the first sample, and blackens it."""

    name = "writing"

    def identify(self, truth, alpha, generator):
        truth.samples.x[0] = 0
        return torch.tensor([0])


def test_an_identification_that_writes_to_samples_fails_what_needs_it(undisturbed, bench, setup_of, having, stripped):
    setup = setup_of(alphas=[1.0], unlearners=["none"], options={})
    alone = undisturbed(setup)
    provider = replace(setup.identification.entry.provider, distribution="somebodys")
    entry = replace(setup.identification.entry, name="writing", component=WritingIdentification, provider=provider)
    writing = replace(setup.identification, entry=entry, points=(WritingIdentification.Options(),))
    results, _ = bench(replace(setup, identification=writing), "written")
    (failure,) = results.failures
    assert failure.unlearner == "none"
    assert failure.reason.startswith("The identification 'writing' wrote to the samples")
    assert stripped(results.records) == stripped(alone.records)[:2]


class PatchingModel(cutk.Model):
    """Patches what trains whenever it is built, and can't be built any more when it has been often enough."""

    name = "patching"
    left = 100

    def build(self, shape, num_classes):
        _patch()
        PatchingModel.left -= 1
        if PatchingModel.left < 0:
            raise KeyError("not today")
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], num_classes))


def test_a_model_that_patches_or_fails_when_it_is_built_is_named(bench, setup_of):
    setup = setup_of(alphas=[1.0], unlearners=["none"], options={})
    entry = replace(setup.model.entry, name="patching", component=PatchingModel)
    mine = replace(setup.model, entry=entry, points=(PatchingModel.Options(),))
    threads, step = torch.get_num_threads(), torch.optim.SGD.step
    results, watcher = bench(replace(setup, model=mine))
    assert results.failures == []
    assert (torch.get_num_threads(), torch.optim.SGD.step) == (threads, step)
    assert any("The model" in text and "SGD.step" in text for text in watcher.warnings)
    PatchingModel.left = 2  # to see what a step costs, and that it fits the data
    results, _ = bench(replace(setup, model=mine, unlearners=setup_of(unlearners=["cf"], options={}).unlearners))
    assert [record.role for record in results.records] == ["original", "gold"]
    (failure,) = results.failures
    assert failure.reason.startswith(f"The model 'patching' of {entry.provider.requirement} failed: KeyError")


class TrainingAdversary(cutk.Manipulation):
    """Mislabels what a model of its own is least sure of."""

    name = "training"
    trains = True

    def corrupt(self, train, generator, surrogate):
        model = surrogate.train(train, steps=3)
        with torch.no_grad():
            logits = torch.cat([model(batch.x) for batch in surrogate.set_of(train).batches()])
            for parameter in model.parameters():
                parameter.zero_()
        some = logits.max(1).values.argsort()[:20].sort().values
        labels = train.labels.clone()
        labels[some] = (labels[some] + 1) % len(train.classes)
        return cutk.Corruption(train.changed(labels=labels), some)


def test_an_adversary_trains_its_model_once(setup_of, having, tmp_path, monkeypatch):
    from cutk.run.store import Store
    from cutk.run.worker import Worker

    setup = setup_of(alphas=[1.0], seeds=2)
    fit, fits = cutk.Recipe.fit, []

    def counted(self, *args, **kwargs):
        fits.append(kwargs["steps"])
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(cutk.Recipe, "fit", counted)
    worker = Worker(having(setup, manipulations=[(TrainingAdversary,), *setup.manipulations]), Store(tmp_path))
    made = [worker.scenario("training", 0).fingerprint()]
    for manipulation, seed in (("training", 1), ("badnet", 0), ("training", 0)):
        made.append(worker.scenario(manipulation, seed).fingerprint())
    assert made[0] == made[-1] != made[1]
    assert fits == [3, 3]


class Surveying(cutk.Unlearner):
    """Scales by what it found of all of S_tr."""

    name = "surveying"
    surveyed_by = ("of",)
    calls: ClassVar[list[str]] = []

    class Options(cutk.Options):
        by: float = cutk.option(0.5, help="how much of it")
        of: str = cutk.option("labels", help="what")

    def survey(self, task):
        assert len(task.identified) == 0
        assert len(task.retained) == len(task.train)
        self.calls.append(self.options.of)
        return [sum(len(batch.y) for batch in task.train.batches())]

    def unlearn(self, task, state=None):
        found = self.survey(task.knowing_nothing()) if task.surveyed is None else task.surveyed
        with torch.no_grad():
            for parameter in task.original.parameters():
                parameter.mul_(self.options.by * found[0] / len(task.train))
        found[0] = 0  # a copy of its own
        return task.original


def test_a_survey_is_made_once_for_all_fractions_and_counts_for_each(bench, setup_of, having, stripped, tmp_path):
    def ran(alphas, **more):
        Surveying.calls.clear()
        setup = having(setup_of(alphas=alphas, seeds=2, **more), unlearners=[(Surveying, {})])
        results = Study(setup, Store(tmp_path / str(alphas))).run()
        assert results.failures == []
        methods = [run for run in results.runs if run.unlearner]
        assert [[attempt.passes for attempt in run.attempts] for run in methods] == [[1.0]] * len(methods)
        return [record for record in results.records if record.unlearner], list(Surveying.calls)

    together, calls = ran([0.5, 1.0])
    assert calls == ["labels"] * 2  # once for each original
    assert len(together) == 4
    (alone, *_), calls = ran([1.0])
    assert calls == ["labels"] * 2
    assert stripped([alone]) == stripped([record for record in together if record.alpha == 1.0 and record.seed == 0])


class Nobody(cutk.Detector):
    """Suspects nobody."""

    name = "nobody"

    def detect(self, task):
        return torch.zeros(len(task.train))


class Same(Nobody):
    """Nobody either."""

    name = "same"


def test_with_detectors_before_it_a_method_is_surveyed_as_without(bench, setup_of, having, tmp_path):
    Surveying.calls.clear()
    unlearners = [(Surveying, {}), *((expanding(Surveying, detector), {}) for detector in (Nobody, Same))]
    results = Study(having(setup_of(alphas=[1.0], seeds=1), unlearners=unlearners), Store(tmp_path)).run()
    assert results.failures == []
    assert Surveying.calls == ["labels"]
    methods = [run for run in results.runs if run.unlearner]
    assert [attempt.passes for run in methods for attempt in run.attempts] == [1.0] * 3
