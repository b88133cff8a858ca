"""``cutk.unlearn`` on models that were trained without cutk."""

from __future__ import annotations

import copy
import json
import re
import statistics
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import cutk
from cutk.repair.inputs import given_by
from cutk.repair.suspects import _LIKELY, _ranked, outcome
from cutk.repair.terminal import print_repair

from .conftest import MEAN, STD, accuracy, attack_success, network, scaled, train

ONE_POINT = {"ssd": {"selection_weight": 1.0, "dampening": 0.5}}


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_a_tenth_of_the_poison_is_enough_to_heal_a_trigger(poisoned):
    assert attack_success(poisoned.net, poisoned) > 0.8
    before = state(poisoned.net)
    repair = cutk.unlearn(
        poisoned.net,
        TensorDataset(poisoned.x, poisoned.y),
        poisoned.bad,
        "ssd",
        validation=TensorDataset(poisoned.test_x, poisoned.test_y),
        mean=[MEAN],
        std=[STD],
    )
    report = repair.report
    assert report.repaired, report.verdict
    assert attack_success(repair.model, poisoned) < 0.2
    # What the report says is what an independent measurement says.
    assert report.taken.validation.value == pytest.approx(accuracy(repair.model, poisoned), abs=1e-6)
    assert report.original.validation.value == pytest.approx(accuracy(poisoned.net, poisoned), abs=1e-6)
    with torch.no_grad():
        now = repair.model(scaled(poisoned.x[poisoned.bad])).argmax(1)
    assert report.taken.no_longer == int((now != 0).sum())
    # What was passed in stays as it was, and most of the poison that nobody listed is suspected.
    assert equal(before, state(poisoned.net))
    hidden = {*poisoned.poison.tolist()} - {*poisoned.bad.tolist()}
    found = [suspect.index for suspect in repair.suspects]
    assert len(hidden & {*found}) > 0.8 * len(hidden)
    assert len(hidden & {*found[: len(hidden)]}) > 0.5 * len(hidden)
    assert not {*poisoned.bad.tolist()} & {*found}


def test_what_is_saved_says_how_samples_reach_the_model(tiny, tmp_path):
    repair = cutk.unlearn(
        *(tiny.net, TensorDataset(tiny.x, 1 - tiny.y), range(20), "relabel"),
        validation=TensorDataset(tiny.x + 0.01, tiny.y),
        classes=["low", "high"],
        mean=[0.25] * 6,
        std=[2.0] * 6,
        recipe={"steps": 50, "lr": 0.1},
    )
    repair.report = repair.report.model_copy(update={"status": "repaired"})  # whatever came of it
    repair.save(tmp_path / "out")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["cutk"])
    assert note == {"classes": ["low", "high"], "mean": [0.25] * 6, "std": [2.0] * 6}


def test_of_samples_that_were_normalised_before_no_normalisation_is_noted(poisoned, tmp_path):
    x, y = scaled(poisoned.x), poisoned.y
    repair = cutk.unlearn(
        *(poisoned.net, TensorDataset(x, y), poisoned.bad, "ssd"),
        validation=TensorDataset(scaled(poisoned.test_x), poisoned.test_y),
        options=ONE_POINT,
    )
    repair.report = repair.report.model_copy(update={"status": "repaired"})  # whatever came of it
    repair.save(tmp_path / "out")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["cutk"]) == {"classes": [str(label) for label in range(10)]}


def of_pair(net, case):
    """Accuracy on test samples of the two classes that were confused."""
    mine = (case.test_y == 3) | (case.test_y == 8)
    with torch.no_grad():
        return float((net(scaled(case.test_x[mine])).argmax(1) == case.test_y[mine]).float().mean())


# Prefers what validation samples speak against.
CONTRARY = """
import cutk


class Contrary(cutk.Selector):
    \"\"\"Bad samples decide, and then the worse model.\"\"\"

    name = "contrary"
    measures = ("validation_accuracy", "changed_fraction")

    def value(self, score):
        return score.changed_fraction - score.validation_accuracy / 2


@cutk.hookimpl
def cutk_selectors():
    return [Contrary]
"""


def test_confusion_is_repaired_where_a_method_can_and_called_unrepaired_where_it_cannot(confused, tmp_path):
    (tmp_path / "contrary.py").write_text(CONTRARY)
    assert of_pair(confused.net, confused) < 0.6

    def repaired(*methods):
        return cutk.unlearn(
            *(confused.net, TensorDataset(confused.x, confused.y), confused.bad[:13], methods),
            validation=TensorDataset(confused.test_x[::2], confused.test_y[::2]),
            mean=[MEAN],
            std=[STD],
            recipe={"steps": 150, "lr": 0.05, "crop_padding": 0, "flip": False},
            options={"relabel": {"steps": 60}} if "relabel" in methods else {},
            select="contrary",
            plugins=[tmp_path / "contrary.py"],
        )

    # A tenth of the bad samples is known, half of the test samples is validation, and the rest is asked, too.
    alone, both = repaired("relabel"), repaired("relabel", "seal")
    (relabelled,) = alone.report.candidates
    assert relabelled.no_longer > 0.8 * relabelled.counted  # by the bad samples all would be well
    assert alone.report.status == "not repaired"
    assert "the damage is still there" in alone.report.verdict
    assert equal(state(confused.net), state(alone.model))
    assert both.report.chosen == "seal"
    assert both.report.status in ("repaired", "in part"), both.report.verdict
    assert of_pair(both.model, confused) > 0.85
    assert accuracy(both.model, confused) > accuracy(confused.net, confused) + 0.08


def test_confusion_is_repaired_whichever_few_are_known(confused):
    """What one draw of few gives is chance; the mean over draws isn't."""
    found = []
    for draw in (1, 3, 5, 7):
        chance = torch.Generator().manual_seed(draw)
        known = confused.poison[torch.randperm(len(confused.poison), generator=chance)[:13]]
        repair = cutk.unlearn(
            *(confused.net, TensorDataset(confused.x, confused.y), known, "seal"),
            validation=TensorDataset(confused.test_x[::2], confused.test_y[::2]),
            mean=[MEAN],
            std=[STD],
            recipe={"steps": 150, "lr": 0.05, "crop_padding": 0, "flip": False},
        )
        found.append(of_pair(repair.model, confused))
    assert statistics.fmean(found) > 0.85, found


def test_confusion_that_a_method_cannot_undo_is_called_so(confused):
    before = accuracy(confused.net, confused)
    repair = cutk.unlearn(
        confused.net,
        TensorDataset(confused.x, confused.y),
        confused.bad,
        "ssd",
        validation=TensorDataset(confused.test_x, confused.test_y),
        mean=[MEAN],
        std=[STD],
        max_accuracy_loss=0.05,
    )
    assert accuracy(repair.model, confused) < before + 0.05
    assert not repair.report.repaired
    assert repair.report.chosen is None
    assert "Not repaired" in repair.report.verdict or "Nothing helped" in repair.report.verdict
    assert equal(state(confused.net), state(repair.model))


def test_confusion_is_repaired_by_retraining_where_the_whole_of_it_is_known(confused):
    repair = cutk.unlearn(
        confused.net,
        TensorDataset(confused.x, confused.y),
        confused.poison,
        "rewod",
        validation=TensorDataset(confused.test_x, confused.test_y),
        mean=[MEAN],
        std=[STD],
        recipe={"steps": 150, "lr": 0.05},
    )
    assert repair.report.status == "repaired", repair.report.verdict
    assert accuracy(repair.model, confused) > accuracy(confused.net, confused) + 0.05


def test_flipped_labels_in_a_table(registry):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 8, generator=generator)
    truth = (x[:, 0] + 0.5 * x[:, 1] > 1.3).long()  # fraud, of which there is little
    labels = truth.clone()
    frauds = truth.nonzero().flatten()
    flipped = frauds[x[frauds, 2] > 0]  # whoever hid them hid those of one kind
    labels[flipped] = 0
    mlp = registry.get("model", "mlp").component
    torch.manual_seed(0)
    net = train(mlp(mlp.Options(width=32)).build((8,), 2), x, labels, steps=400)
    held_out = torch.randn(600, 8, generator=generator)
    repair = cutk.unlearn(
        net,
        TensorDataset(x, labels),
        flipped,
        ["cf", "rewod"],
        validation=TensorDataset(held_out, (held_out[:, 0] + 0.5 * held_out[:, 1] > 1.3).long()),
        classes=["honest", "fraud"],
        recipe={"steps": 200, "lr": 0.05, "batch_size": 64},
        options={"cf": {"steps": 200}},
        search="default",
    )
    assert repair.report.repaired, repair.report.verdict
    assert repair.report.taken.classes["fraud"].value > repair.report.original.classes["fraud"].value + 0.1


# What it takes.


class Pictures(Dataset):
    def __init__(self, case):
        self.case = case

    def __len__(self):
        return len(self.case.y)

    def __getitem__(self, index):
        return Image.fromarray(self.case.x[index, 0].numpy()), int(self.case.y[index])


class Dictionaries(Pictures):
    def __getitem__(self, index):
        return {"pixels": scaled(self.case.x[index]), "label": self.case.y[index]}


def collate(items):
    return torch.stack([item["pixels"] for item in items]), torch.stack([item["label"] for item in items])


FORMS = {
    "tensors": lambda case: (TensorDataset(case.x, case.y), {"mean": [MEAN], "std": [STD]}),
    "samples": lambda case: (cutk.Samples(case.x, case.y, tuple("0123456789")), {"mean": [MEAN], "std": [STD]}),
    "floats": lambda case: (TensorDataset(scaled(case.x), case.y), {}),
    "pillow": lambda case: (Pictures(case), {"mean": [MEAN], "std": [STD]}),
    "dictionaries": lambda case: (Dictionaries(case), {"collate": collate}),
    "subset": lambda case: (Subset(TensorDataset(case.x, case.y), range(1000)), {"mean": [MEAN], "std": [STD]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_map_style_dataset_will_do(poisoned, form):
    dataset, more = FORMS[form](poisoned)
    repair = cutk.unlearn(poisoned.net, dataset, [0, 5, 9], "ssd", options=ONE_POINT, **more)
    assert repair.report.original.validation.value > 0.95
    assert repair.report.stands_in
    assert repair.report.candidates[0].points == 1


class Wrapped(nn.Module):
    """As models of text are: an output with more than logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return {"logits": self.net(x), "loss": None}


def test_an_output_may_hold_more_than_logits(tiny):
    repair = cutk.unlearn(Wrapped(tiny.net), TensorDataset(tiny.x, tiny.y), [1, 2], "ssd", options=ONE_POINT)
    assert repair.report.original.validation.value == 1.0
    assert isinstance(repair.model, Wrapped)


def test_dtypes_flags_and_mode_are_the_users_own(poisoned):
    net = copy.deepcopy(poisoned.net).half().train()
    net[0].weight.requires_grad_(False)
    dataset = TensorDataset(poisoned.x[:200], poisoned.y[:200])  # few: halves are slow without a GPU
    more = {"mean": [MEAN], "std": [STD], "options": ONE_POINT}
    repair = cutk.unlearn(net, dataset, [0, 5, 9], "ssd", max_accuracy_loss=1, **more)
    assert {name: value.dtype for name, value in repair.model.state_dict().items()} == {
        name: value.dtype for name, value in net.state_dict().items()
    }
    assert repair.model.training
    assert not repair.model[0].weight.requires_grad
    assert net.training


def test_a_detector_ranks_suspects(poisoned):
    before = state(poisoned.net)
    repair = cutk.unlearn(
        *(poisoned.net, TensorDataset(poisoned.x, poisoned.y), poisoned.bad, "none"),
        mean=[MEAN],
        std=[STD],
        suspects_by="seeded-probe",
    )
    hidden = {*poisoned.poison.tolist()} - {*poisoned.bad.tolist()}
    found = [suspect.index for suspect in repair.suspects]
    assert len(hidden & {*found[: len(hidden)]}) > 0.8 * len(hidden)
    assert not {*poisoned.bad.tolist()} & {*found}
    scores = [suspect.score for suspect in repair.suspects]
    assert scores == sorted(scores, reverse=True)
    assert 0.1 <= scores[-1] <= scores[0] <= 1
    assert {suspect.by for suspect in repair.suspects} == {"probability of being bad, by seeded-probe"}
    assert equal(before, state(poisoned.net))


def test_a_method_that_looks_for_the_rest_ranks_suspects(poisoned):
    given = poisoned.net, TensorDataset(poisoned.x, poisoned.y), poisoned.bad
    by_method, by_detector = (
        cutk.unlearn(*given, method, mean=[MEAN], std=[STD], **more).suspects
        for method, more in (("none+seeded-probe", {}), ("none", {"suspects_by": "seeded-probe"}))
    )
    said = "probability of being bad, by none+seeded-probe, which wasn't taken"
    assert {suspect.by for suspect in by_method} == {said}
    # Draws are others, the ranking is much the same.
    hidden = len({*poisoned.poison.tolist()} - {*poisoned.bad.tolist()})
    first = [{suspect.index for suspect in those[:hidden]} for those in (by_method, by_detector)]
    assert len(first[0] & first[1]) > 0.8 * hidden


@pytest.mark.parametrize(
    ("method", "more", "by"),
    [
        ("none", {"suspects_by": "spectral-signature"}, "spectral-signature"),
        ("none+activation-clustering", {}, "none+activation-clustering, which wasn't taken"),
    ],
)
def test_an_order_is_called_no_probability(poisoned, method, more, by):
    given = poisoned.net, TensorDataset(poisoned.x, poisoned.y), poisoned.bad, method
    found = cutk.unlearn(*given, mean=[MEAN], std=[STD], **more).suspects
    assert {suspect.by for suspect in found} == {f"suspicion, which is no probability, by {by}"}
    above = sum(suspect.score > 0.5 for suspect in found)
    assert above > 1
    assert outcome(found).startswith(
        f"{above} further training samples are suspected; suspects.csv ranks {len(found)}, by"
    )


TWO = '''
import cutk
import torch


class Two(cutk.Unlearner):
    """Suspects one, and may forget everything."""

    name = "two"
    grid = {"whom": [3, 5]}

    class Options(cutk.Options):
        """Whom."""

        whom: int = cutk.option(3, help="whom")

    def unlearn(self, task, state=None):
        task.log.suspicion(torch.zeros(len(task.train)).index_fill_(0, torch.tensor([self.options.whom]), 0.75))
        if self.options.whom == 5:
            for parameter in task.original.parameters():
                parameter.data.zero_()
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Two]
'''


def test_the_point_that_is_taken_says_whom_it_suspects(tiny, tmp_path):
    path = tmp_path / "two.py"
    path.write_text(TWO)
    repair = cutk.unlearn(tiny.net, TensorDataset(tiny.x, tiny.y), [0], "two", plugins=[path])
    (candidate,) = repair.report.candidates
    assert (candidate.options["whom"], candidate.points) == (3, 2)
    assert [(suspect.index, suspect.score) for suspect in repair.suspects] == [(3, 0.75)]
    assert "probability of being bad, by two" in repair.html()


def test_all_that_reach_the_score_are_ranked():
    count, score = 3000, torch.linspace(0, 0.4, 3000)
    says = SimpleNamespace(train=SimpleNamespace(predicted=torch.zeros(count, dtype=torch.int64)))
    task = SimpleNamespace(
        retained=torch.arange(1, count), train=SimpleNamespace(labels=torch.zeros(count, dtype=torch.int64))
    )
    problem = SimpleNamespace(task=task, says=says, names=None, classes=("a",), position=lambda index: index)
    found = _ranked(problem, score, says, "anyone")
    assert [one.index for one in found] == [i for i in range(count - 1, 0, -1) if float(score[i]) >= 0.1]
    assert len(found) > 2000
    # Where scores may be ranks, as many as are likelier bad than not, or a thousand.
    assert len(_ranked(problem, score, says, f"{_LIKELY}anyone")) == 1000
    assert len(_ranked(problem, score * 2, says, f"{_LIKELY}anyone")) == int((score[1:] * 2 > 0.5).sum()) > 1000


def test_a_detector_that_fails_leaves_the_ranking_to_the_repair(tiny, tmp_path, capsys):
    path = tmp_path / "blind.py"
    path.write_text(
        'import cutk\n\n\nclass Blind(cutk.Detector):\n    """Sees nothing."""\n\n    name = "blind"\n\n'
        "    def detect(self, task):\n        [p.data.zero_() for p in task.original.parameters()]\n\n\n"
        "@cutk.hookimpl\ndef cutk_detectors():\n    return [Blind]\n"
    )
    dataset = TensorDataset(tiny.x, tiny.y)
    ways = [
        cutk.unlearn(tiny.net, dataset, [0], "ssd", options=ONE_POINT, search="default", plugins=[path], **more)
        for more in ({}, {"suspects_by": "blind"})
    ]
    assert ways[1].suspects == ways[0].suspects
    assert ways[1].report.unranked.startswith("blind ranked no suspects: ")
    assert "expected float32" in ways[1].report.unranked
    assert [way.report.failed for way in ways] == [{}, {}]
    assert ways[0].report.unranked == ""
    print_repair(ways[1].report, ways[1].suspects, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "blind ranked no suspects: " in said
    assert "blind gave no model" not in said
    assert "blind ranked no suspects: " in ways[1].html()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1.5}, "seed: expected a whole number from 0 up, got 1.5"),
        ({"seed": -1}, "seed: expected a whole number from 0 up, got -1"),
        ({"workers": -1}, "workers: expected a whole number from 0 up, got -1"),
        ({"options": {"ssd": 3}}, "options: expected a mapping of options for 'ssd', got 3"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tiny, more, said):
    with pytest.raises(cutk.UsageError, match=said):
        cutk.unlearn(tiny.net, TensorDataset(tiny.x, tiny.y), [0], "ssd", **more)


def test_several_methods_are_candidates_beside_the_original(tiny):
    repair = cutk.unlearn(
        tiny.net,
        TensorDataset(tiny.x, tiny.y),
        [0, 1],
        ["ssd", "none", "cf"],
        options={**ONE_POINT, "cf": {"steps": 3}},
        search="default",
    )
    assert [one.name for one in repair.report.candidates] == ["ssd", "none", "cf"]
    assert repair.report.failed == {}


def test_a_method_that_fails_costs_itself_alone(tiny, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(
        'import cutk\n\n\nclass Broken(cutk.Unlearner):\n    """Fails."""\n\n    name = "broken"\n\n'
        "    def unlearn(self, task, state=None):\n        raise RuntimeError('no luck')\n\n\n"
        "@cutk.hookimpl\ndef cutk_unlearners():\n    return [Broken]\n"
    )
    dataset = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, dataset, [0], ["broken", "none"], plugins=[path])
    assert "no luck" in repair.report.failed["broken"]
    assert repair.report.chosen is None
    assert not repair.report.repaired


def test_a_recipe_of_ones_own_is_used(tiny, registry):
    asked = []

    class Mine(registry.get("recipe", "sgd").component):
        """With a loss of its own."""

        def loss(self, logits, batch):
            asked.append(len(batch.y))
            return super().loss(logits, batch)

    mine = Mine(Mine.Options(steps=4, batch_size=8))
    dataset = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, dataset, [0], "cf", recipe=mine, options={"cf": {"steps": 4}})
    assert asked == [8] * 4 * repair.report.candidates[0].points


def test_a_budget_bounds_the_time_and_says_what_was_left_out(tiny):
    dataset = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, dataset, [0], ["ssd", "cf"], budget=1e-9)
    assert repair.report.left_out
    assert all("not begun" in text or "points" in text or "unfinished" in text for text in repair.report.left_out)
    assert not repair.report.repaired


SECOND = '''
import time
import cutk


class Second(cutk.Unlearner):
    """Returns the original at once, or never."""

    name = "second"

    class Options(cutk.Options):
        number: int = cutk.option(1, ge=1, help="which")

    grid = {"number": [1, 2, 3]}

    def unlearn(self, task, state=None):
        while self.options.number > 1:
            time.sleep(0.01)
            task.log.progress(1, 2)
        return task.original


@cutk.hookimpl
def cutk_unlearners():
    return [Second]
'''


def test_a_point_that_the_budget_cuts_off_was_not_tried(tiny, tmp_path):
    (tmp_path / "second.py").write_text(SECOND)
    dataset = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, dataset, [0], "second", budget=2, plugins=[tmp_path / "second.py"])
    (judged,) = repair.report.candidates
    assert (judged.points, judged.left_out) == (1, 2)
    assert repair.report.left_out == ["second: 2 of 3 points of its grid"]


class Relabelled(TensorDataset):
    """As a poisoned dataset is often made: what it lists are the clean labels."""

    def __init__(self, x, targets, bad):
        super().__init__(x)
        self.targets, self.bad = targets, set(bad)

    def __getitem__(self, index):
        return super().__getitem__(index)[0], 0 if index in self.bad else int(self.targets[index])


@pytest.mark.parametrize("wrapped", [False, True])
def test_labels_that_a_dataset_lists_are_believed_if_bad_samples_have_them(tiny, wrapped):
    bad = [i for i in range(17, 60) if int(tiny.y[i]) == 1][:3]
    dataset = Relabelled(tiny.x, tiny.y, bad)
    if wrapped:
        dataset = Subset(dataset, range(60))
    assert given_by(dataset, bad=bad[:1]).labels[bad].tolist() == [0, 0, 0]
    assert given_by(Relabelled(tiny.x, tiny.y, []), bad=bad).labels.tolist() == tiny.y.tolist()


def test_a_training_from_scratch_starts_from_new_weights(tiny):
    dataset = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, dataset, [0], "rewod", recipe={"steps": 1, "lr": 1e-9}, max_accuracy_loss=1)
    # One step that moves nothing: what is left are weights that were drawn anew.
    assert repair.report.candidates[0].layers[0].relative > 0.5


def test_a_notebook_shows_the_report(tiny):
    repair = cutk.unlearn(tiny.net, TensorDataset(tiny.x, tiny.y), [0], "none")
    assert repair.report.verdict in unescape(repair._repr_html_())
    assert "<html" not in repair._repr_html_()
    assert repair.html().startswith("<!DOCTYPE html>")


class Random(Pictures):
    def __getitem__(self, index):
        return torch.rand(3), int(self.case.y[index])


def refused(tiny):
    data = TensorDataset(tiny.x, tiny.y)
    three = TensorDataset(tiny.x, torch.arange(60) % 3)
    return {
        "no bad sample": (lambda: cutk.unlearn(tiny.net, data, [], "ssd"), "at least one bad sample, got none"),
        "all bad": (lambda: cutk.unlearn(tiny.net, data, range(60), "ssd"), "all 60 samples are said to be bad"),
        "out of range": (lambda: cutk.unlearn(tiny.net, data, [1, 60], "ssd"), "from 0 to 59, got 60"),
        "negative": (lambda: cutk.unlearn(tiny.net, data, [-1], "ssd"), "from 0 to 59, got -1"),
        "twice": (lambda: cutk.unlearn(tiny.net, data, [3, 3], "ssd"), "each sample once, got 3 twice"),
        "no numbers": (lambda: cutk.unlearn(tiny.net, data, ["a"], "ssd"), "expected indices of samples"),
        "no module": (lambda: cutk.unlearn("net", data, [1], "ssd"), "torch.nn.Module, got str"),
        "no dataset": (lambda: cutk.unlearn(tiny.net, iter([]), [1], "ssd"), "map-style torch Dataset"),
        "classes": (lambda: cutk.unlearn(tiny.net, three, [1], "ssd"), "tells 2 classes apart, and the data have 3"),
        "shape": (
            lambda: cutk.unlearn(nn.Linear(5, 2), data, [1], "ssd"),
            r"can't take samples of the shape \[6\]",
        ),
        "no logits": (lambda: cutk.unlearn(nn.Flatten(0), data, [1], "ssd"), "expected logits"),
        "method": (lambda: cutk.unlearn(tiny.net, data, [1], "sssd"), "Did you mean 'ssd'"),
        "option": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", options={"ssd": {"x": 1}}), "Unknown option"),
        "unused": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", options={"cf": {"lr": 1}}), "it isn't used"),
        "loss": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", max_accuracy_loss=2), "expected 0 to 1"),
        "budget": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", budget=0), "expected more than no time"),
        "budget in words": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", budget="10min"),
            "budget: expected a number of seconds, such as 600, got '10min'",
        ),
        "loss in words": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", max_accuracy_loss="1%"),
            "max_accuracy_loss: expected 0 to 1, such as 0.01, got '1%'",
        ),
        "names of samples": (
            lambda: cutk.unlearn(tiny.net, data, ["a.png", Path("b.png")], "ssd"),
            "bad: expected indices of samples.*got names \\('a.png', 'b.png'\\).*cutk unlearn --bad FILE takes names",
        ),
        "a list's name": (lambda: cutk.unlearn(tiny.net, data, "bad.txt", "ssd"), r"got names \('bad.txt'\)"),
        "nothing": (lambda: cutk.unlearn(tiny.net, data, None, "ssd"), "expected indices of samples.*got None"),
        "means": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", mean=[0.5, 0.5]),
            "mean: expected one number, or one for each of 6 features, got 2",
        ),
        "a mean in words": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", mean="x"), "mean: expected numbers, got"),
        "no deviation": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", std=0), "std: expected numbers above 0, got"),
        "few names": (
            lambda: cutk.unlearn(nn.Linear(6, 3), three, [1], "ssd", classes=["a", "b"]),
            r"classes: expected at least 3 names, as there are labels up to 2, got 2 \(a, b\)",
        ),
        "many names": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", classes=["a", "b", "c"]),
            "classes: expected 2 names, as the model tells 2 classes apart, got 3",
        ),
        "one name twice": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", classes=["a", "a"]),
            "classes: expected each name once",
        ),
        "names in one": (lambda: cutk.unlearn(tiny.net, data, [1], "ssd", classes="ab"), "expected a list of names"),
        "validation labels": (
            lambda: cutk.unlearn(tiny.net, data, [1], "ssd", validation=TensorDataset(tiny.x + 9, three.tensors[1])),
            "validation: expected labels from 0 to 1, as there are 2 classes, got 2",
        ),
    }


@pytest.mark.parametrize(
    "what",
    [
        *("no bad sample", "all bad", "out of range", "negative", "twice", "no numbers", "no module", "no dataset"),
        *("classes", "shape", "no logits", "method", "option", "unused", "loss", "budget", "budget in words"),
        *("loss in words", "names of samples", "a list's name", "nothing", "means", "a mean in words", "no deviation"),
        *("few names", "many names", "one name twice", "names in one", "validation labels"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(tiny, what):
    ask, said = refused(tiny)[what]
    with pytest.raises(cutk.UsageError) as error:
        ask()
    assert re.search(said, str(error.value)), error.value
    assert "\n" not in str(error.value)


def test_validation_samples_must_not_have_been_trained_on(tiny):
    data = TensorDataset(tiny.x, tiny.y)
    with pytest.raises(cutk.UsageError, match=r"2 of 2 samples are among the training samples \(0, 1\)"):
        cutk.unlearn(tiny.net, data, [1], "none", validation=Subset(data, [4, 9]))
    forced = cutk.unlearn(tiny.net, data, [1], "none", validation=Subset(data, [4, 9]), force=True)
    assert forced.report.samples["validation"] == 2


def test_suspects_that_a_rejected_candidate_ranks_are_said_to_be(tiny, tmp_path, capsys):
    path = tmp_path / "wreck.py"
    path.write_text(
        'import copy\n\nimport cutk\n\n\nclass Wreck(cutk.Unlearner):\n    """Spoils the model."""\n\n'
        '    name = "wreck"\n\n'
        "    def unlearn(self, task, state=None):\n        model = copy.deepcopy(task.original)\n"
        "        [p.data.neg_() for p in model.parameters()]\n        return model\n\n\n"
        "@cutk.hookimpl\ndef cutk_unlearners():\n    return [Wreck]\n"
    )
    more = {"plugins": [path], "validation": TensorDataset(*unseen(tiny))}
    data = TensorDataset(tiny.x, tiny.y)
    repair = cutk.unlearn(tiny.net, data, [0], "wreck", **more)
    assert not repair.report.repaired
    assert {one.by for one in repair.suspects} == {
        "drop of the given label's probability, original to wreck, which wasn't taken"
    }
    advice = "A detector asks the original alone: --suspects-by NAME, or cutk detect."
    assert advice in repair.html()
    print_repair(repair.report, repair.suspects, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert f"original to wreck, which wasn't taken. {advice}" in said


def test_classes_of_validation_samples_go_by_their_names(poisoned):
    names = tuple("0123456789")
    train = cutk.Samples(poisoned.x, poisoned.y, names)
    held_out = cutk.Samples(poisoned.test_x, 9 - poisoned.test_y, names[::-1])
    more = {"mean": [MEAN], "std": [STD]}
    repair = cutk.unlearn(poisoned.net, train, poisoned.bad, "none", validation=held_out, **more)
    assert repair.report.original.validation.value == pytest.approx(accuracy(poisoned.net, poisoned), abs=1e-6)
    odd = cutk.Samples(poisoned.test_x, poisoned.test_y, (*names[:9], "ten"))
    with pytest.raises(cutk.UsageError, match="got ten"):
        cutk.unlearn(poisoned.net, train, poisoned.bad, "none", validation=odd, **more)


class Folder(TensorDataset):
    """Names classes as torchvision's ImageFolder does."""

    def __init__(self, x, y, classes):
        super().__init__(x, y)
        self.classes = classes


def on_tiny(tiny, train, held_out, **more):
    """What a repair says of a network that takes all samples of the class 'low' or 'high' for what they are."""
    repair = cutk.unlearn(tiny.net, train, [1], "none", validation=held_out, **more)
    return repair.report.original.validation.value, repair.report.classes


def unseen(tiny):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


ORDER, REVERSED = ["low", "high"], ["high", "low"]


def test_classes_that_datasets_name_go_by_their_names(tiny):
    x, y = unseen(tiny)
    train = Folder(tiny.x, tiny.y, ORDER)
    assert on_tiny(tiny, train, Folder(x, y, ORDER)) == (1.0, ORDER)
    assert on_tiny(tiny, train, Folder(x, 1 - y, REVERSED)) == (1.0, ORDER)
    assert on_tiny(tiny, train, Subset(Folder(x, 1 - y, REVERSED), range(20))) == (1.0, ORDER)
    assert on_tiny(tiny, TensorDataset(tiny.x, tiny.y), Folder(x, 1 - y, REVERSED), classes=ORDER) == (1.0, ORDER)
    with pytest.raises(cutk.UsageError, match="validation: expected classes among low, high, got middling"):
        on_tiny(tiny, train, Folder(x, 1 - y, ["high", "middling"]))
    with pytest.raises(cutk.UsageError, match="validation: expected classes among low, high, got big, small"):
        on_tiny(tiny, train, Folder(x, 1 - y, ["big", "small"]))
    # Those that no sample is of needn't be known.
    assert on_tiny(tiny, train, Folder(x, y, [*ORDER, "middling"]))[0] == 1.0


def test_classes_of_training_samples_go_by_their_names(tiny):
    x, y = unseen(tiny)
    train = Folder(tiny.x, 1 - tiny.y, REVERSED)
    assert on_tiny(tiny, train, Folder(x, 1 - y, REVERSED), classes=ORDER) == (1.0, ORDER)
    assert on_tiny(tiny, train, cutk.Samples(x, y, tuple(ORDER)), classes=ORDER) == (1.0, ORDER)
    with pytest.raises(cutk.UsageError, match=r"own classes \(high, low\) come in another order than classes="):
        on_tiny(tiny, train, TensorDataset(x, 1 - y), classes=ORDER)
    with pytest.raises(cutk.UsageError, match="classes: expected classes among low, middling, got high"):
        on_tiny(tiny, train, None, classes=["low", "middling"])
    # Other names altogether call the same classes anew.
    train, held_out = Folder(tiny.x, tiny.y, ["0 - low", "1 - high"]), Folder(x, y, ["0 - low", "1 - high"])
    assert on_tiny(tiny, train, held_out, classes=ORDER) == (1.0, ORDER)
    samples = cutk.Samples(tiny.x, tiny.y, ("0", "1"))
    assert on_tiny(tiny, samples, cutk.Samples(x, y, ("0", "1")), classes=ORDER) == (1.0, ORDER)


def test_a_model_may_know_classes_that_have_no_samples(tiny):
    wide = nn.Linear(6, 4)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:2], wide.bias[:] = tiny.net.weight, torch.tensor([0.0, 0.0, -9.0, -9.0])
    x, y = unseen(tiny)
    for trained in (TensorDataset(tiny.x, tiny.y), Folder(tiny.x, tiny.y, list("abcd"))):
        repair = cutk.unlearn(wide, trained, [1], "none", validation=TensorDataset(x, y), classes=list("abcd"))
        assert repair.report.classes == list("abcd")
        assert repair.report.original.validation.value == 1.0
    own = cutk.unlearn(wide, Folder(tiny.x, tiny.y, list("abcd")), [1], "none").report
    assert own.classes == list("abcd")
    # A part of a dataset that knows more classes than the model.
    assert cutk.unlearn(tiny.net, Folder(tiny.x, tiny.y, list("abcd")), [1], "none").report.classes == ["a", "b"]


def test_one_number_normalises_all_channels(tiny):
    x, y = torch.randint(0, 255, (60, 3, 2, 2), dtype=torch.uint8), tiny.y
    x[:, 1] = (200 * y)[:, None, None]
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[1, 4:8], net[1].bias[:] = 1.0, torch.tensor([0.5, 0.0])
    for data in (TensorDataset(x, y), cutk.Samples(x, y, ("a", "b"))):
        for mean, std in ((0.25, 0.5), ((0.25,), [0.5]), ([0.25] * 3, torch.tensor([0.5] * 3)), (0.25, (0.5,))):
            repair = cutk.unlearn(net, data, [1], "none", mean=mean, std=std)
            assert repair.report.normalisation == ((0.25,) * 3, (0.5,) * 3)
        assert cutk.unlearn(net, data, [1], "none", std=0.5).report.normalisation == ((0.0,) * 3, (0.5,) * 3)
    with pytest.raises(cutk.UsageError, match="std: expected one number, or one for each of 3 channels, got 2"):
        cutk.unlearn(net, data, [1], "none", std=[0.5, 0.5])


def test_what_the_dataset_gives_has_to_stay_the_same(poisoned):
    with pytest.raises(cutk.UsageError, match="same samples at every visit"):
        cutk.unlearn(nn.Linear(3, 10), Random(poisoned), [1], "none")


def test_dictionaries_need_a_collate_function(poisoned):
    with pytest.raises(cutk.UsageError, match=r"pixels, label.*give collate="):
        cutk.unlearn(network(), Dictionaries(poisoned), [1], "none")


@pytest.mark.parametrize("labels", [[0.2, 0.9] * 30, ["a", "b"] * 30])
def test_labels_that_are_no_whole_numbers_are_refused(tiny, labels):
    with pytest.raises(cutk.UsageError, match="labels: expected a whole number for each sample"):
        cutk.unlearn(tiny.net, TensorDataset(tiny.x), [0], "ssd", labels=labels)


def test_soft_labels_of_a_dataset_are_refused(tiny):
    with pytest.raises(cutk.UsageError, match="a whole number"):
        cutk.unlearn(tiny.net, TensorDataset(tiny.x, tiny.y * 0.9), [0], "ssd")


def test_bad_samples_may_be_told_one_after_the_other(tiny):
    repair = cutk.unlearn(tiny.net, TensorDataset(tiny.x, tiny.y), (i for i in (0, 1)), "ssd", options=ONE_POINT)
    assert repair.report.samples["bad"] == 2


def test_volumes_are_convolved(tiny):
    net = nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2)).eval()
    volumes = TensorDataset(torch.randn(60, 1, 2, 2, 2), tiny.y)
    repair = cutk.unlearn(net, volumes, [0], "ssd", options=ONE_POINT, force=True)
    assert not repair.report.failed


def test_a_network_that_is_built_in_half_precision_trains(tiny):
    def build():
        return nn.Linear(6, 2).half()

    repair = cutk.unlearn(
        tiny.net, TensorDataset(tiny.x, tiny.y), [0], "rewod", build=build, recipe={"name": "sgd", "steps": 5}
    )
    assert not repair.report.failed
