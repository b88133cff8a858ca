"""Manipulations planted in a user's own data: what is planted where, and whether its numbers are true."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cutk
from cutk.repair.calibration import Calibration, Trial, sentences_of
from cutk.repair.own import architecture_of
from cutk.repair.verdict import proportion
from cutk.run.store import Store

CLASSES = 3


def stripes(count, seed):
    """Images 1×8×8 of stripes whose direction tells the class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([each % 4 < 2 for each in (rows, columns, rows + columns)]).float()
    x = patterns[y] * 120 + 100 * torch.rand(count, 8, 8, generator=generator)
    return x.to(torch.uint8)[:, None], y


def build():
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)),
    )


RECIPE = {"name": "sgd", "steps": 40, "batch_size": 32, "lr": 0.05, "crop_padding": 0, "flip": False}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """Stripes of which twelve are mislabelled, a repair of one that never saw them, and the calibration's runs."""
    runs = tmp_path_factory.mktemp("calibration") / "runs"
    (x, y), held_out = stripes(180, 0), stripes(60, 1)
    y = y.clone()
    y[:12] = (y[:12] + 1) % CLASSES
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build().eval()
    told = []

    def repair(**more):
        given = {"validation": TensorDataset(*held_out), "recipe": RECIPE, "build": build, "calibrate": True, **more}
        given["force"] = True  # it has learnt nothing, which is quickest
        return cutk.unlearn(
            *(net, TensorDataset(x, y), range(12), ["none", "relabel"]),
            options={"relabel": {"steps": 20}},
            progress=lambda what, done, total: told.append((what, done, total)),
            **given,
        )

    return repair, repair(calibration_runs=runs), runs, held_out, told


def test_every_kind_that_fits_is_planted_at_the_size_of_the_list(repaired):
    found = repaired[1].report.calibration
    planted = {one.manipulation for one in found.trials}
    assert planted >= {"badnet", "interclass-confusion", "label-swap", "asymmetric-noise"}
    assert "label-file" not in found.unfit  # nobody can have been given the file
    assert planted.isdisjoint(found.unfit)
    assert found.train == 168  # none of those on the list
    assert found.test == 30
    assert (found.manipulated, found.alpha) == (24, 0.5)
    assert {one.unlearner for one in found.trials} == {"none", "relabel"}
    exact = [one for one in found.trials if one.manipulation in ("badnet", "interclass-confusion", "label-swap")]
    assert {(one.manipulated, one.identified) for one in exact} == {(24, 12)}
    assert not found.failed
    assert not found.left_out


def test_its_numbers_are_those_of_the_stored_models(repaired):
    _, repair, runs, (x, y), _ = repaired
    by_role = {run.labels.role: run for run in Store(runs).runs() if run.labels.manipulation == "badnet"}
    trial = next(one for one in repair.report.calibration.trials if one.manipulation == "badnet")
    testing = cutk.Splits.of(cutk.Samples(x, y, ("0", "1", "2")), 0.5, 0).test
    stamped = testing.x.clone()
    stamped[:, :, -3:, -3:] = 255
    for role, expected in (("original", trial.original), ("gold", trial.gold)):
        state = Store(runs).weights("train", by_role[role].key)
        net = build()
        net.load_state_dict({key.removeprefix("inner."): value for key, value in state.items()})
        with torch.no_grad():
            right = int((net.eval()(stamped.float() / 255).argmax(1) == testing.labels).sum())
        assert (expected.count, expected.of) == (right, len(testing))
    # What does nothing corrects nothing.
    idle = [one for one in repair.report.calibration.trials if one.unlearner == "none"]
    assert all(one.corrected == one.original and one.outcome in ("does not heal", "no damage") for one in idle)


def test_a_second_time_it_is_read(repaired):
    again, first, runs, _, told = repaired
    told.clear()
    assert again(calibration_runs=runs).report.calibration.trials == first.report.calibration.trials
    assert not [what for what, _, _ in told if what.startswith("planted")]


def test_what_there_is_no_time_for_is_named(repaired):
    found = repaired[0](budget=1e-3).report
    assert len(found.calibration.left_out) >= 4
    assert not found.calibration.trials
    assert found.calibration.runs == ""


def test_triggers_are_left_out_on_a_table(tiny):
    found = cutk.unlearn(
        *(tiny.net, TensorDataset(tiny.x, tiny.y), [0, 1], "none"),
        recipe={"name": "sgd", "steps": 2},
        calibrate=0.1,
    )
    calibration = found.report.calibration
    assert {"badnet", "sig", "wanet"} <= calibration.unfit.keys()
    assert "needs images" in calibration.unfit["badnet"]
    assert {one.manipulation for one in calibration.trials} == {"asymmetric-noise", "interclass-confusion"}
    assert calibration.manipulated == 20
    assert "badnet doesn&#39;t fit these data" in found.html()
    assert "On data like yours" in found.html()


def test_the_limit_of_the_repair_holds_there_too(tiny, tmp_path):
    path = tmp_path / "wreck.py"
    path.write_text(
        'import cutk\n\n\nclass Wreck(cutk.Unlearner):\n    """Forgets all."""\n\n    name = "wreck"\n\n'
        "    def unlearn(self, task, state=None):\n        model = task.original\n"
        "        [p.data.mul_(-1) for p in model.parameters()]\n        return model\n\n\n"
        "@cutk.hookimpl\ndef cutk_unlearners():\n    return [Wreck]\n"
    )
    found = cutk.unlearn(
        *(tiny.net, TensorDataset(tiny.x, tiny.y), [0, 1], ["wreck", "none"]),
        recipe={"name": "sgd", "steps": 60, "batch_size": 32, "lr": 0.1},
        calibrate=0.5,
        plugins=[path],
    ).report
    trials = found.calibration.trials
    assert {one.unlearner for one in trials} == {"wreck", "none"}
    assert found.calibration.failed == {}
    for one in trials:
        assert one.kept == (one.unlearner == "wreck")
        assert one.corrected == one.original  # the original would stay
        assert one.retain == one.retain_before
    assert "none of its candidates loses at most 2 points" in " ".join(sentences_of(found.calibration, 0.02))


def test_too_few_samples_are_refused(tiny):
    few = TensorDataset(tiny.x[:4], torch.tensor([0, 0, 0, 1]))
    with pytest.raises(cutk.UsageError, match="calibrate: too few samples"):
        cutk.unlearn(tiny.net, few, [3], "none", calibrate=True)


def trial(original, corrected, gold, **more):
    numbers = {"original": original, "corrected": corrected, "gold": gold}
    counts = {name: proportion(count, 100) for name, count in numbers.items()}
    return Trial(**{"manipulation": "m", "unlearner": "u", "manipulated": 9, "identified": 4, **counts, **more})


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((10, 95, 98), "heals"),
        ((10, 50, 98), "in part"),
        ((10, 12, 98), "does not heal"),
        ((96, 97, 98), "no damage"),
        ((97, 60, 98), "harms"),
        ((30, 31, 33), "no damage"),
    ],
)
def test_what_a_trial_comes_to(numbers, outcome):
    assert trial(*numbers).outcome == outcome


def test_a_sentence_for_each_method():
    trials = [
        trial(10, 95, 98, manipulation="trigger", retain=0.9, retain_before=0.95),
        trial(40, 42, 98, manipulation="confusion", retain=0.9, retain_before=0.9),
        trial(97, 97, 98, manipulation="noise"),
        trial(97, 97, 98, manipulation="patch", retain=0.3, retain_before=1.0),
    ]
    found = Calibration(train=100, test=100, manipulated=8, alpha=0.5, seed=0, trials=trials)
    assert sentences_of(found, 0.02) == [
        "On data like yours u heals trigger (10.0 % → 95.0 %, gold 98.0 %, at the cost of 5.0 points elsewhere) and "
        "does not heal confusion (40.0 % → 42.0 %, gold 98.0 %); noise and patch did no damage that shows, so there "
        "was nothing to heal; u costs 70.0 points with patch elsewhere nonetheless."
    ]


def test_a_network_is_told_by_what_it_is():
    def hashed(make):
        torch.manual_seed(0)
        return architecture_of(make())

    plain = hashed(build)
    assert plain == hashed(build)
    assert plain != hashed(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    torch.manual_seed(1)
    assert plain != architecture_of(build())
