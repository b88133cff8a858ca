"""``cutk train``, ``predict`` and ``evaluate``, and what they hand on to each other."""

from __future__ import annotations

import csv
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

import cutk
from cutk.plugins.registry import load_registry

SMALL = ("-o", "convnet-small.width=4", "--device", "cpu")
MODEL = ("--model", "convnet-small", "--weights", "model.safetensors")


@pytest.fixture
def trained(run):
    ran = run("train", "--data", "fake", *SMALL, "--recipe", "steps=60", "batch_size=32", "--seed", "3")
    assert ran.code == 0, ran.err
    return ran


def test_a_training_writes_weights_with_what_belongs_to_them(run, trained, tmp_path):
    assert trained.out.startswith("Wrote 'model.safetensors': right on ")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["cutk"])
    assert note["classes"] == [f"class-{i}" for i in range(4)]
    assert len(note["mean"]) == len(note["std"]) == 1
    ran = run("train", "--data", "fake", *SMALL)
    assert ran.code == 2
    assert "is there already" in ran.err


def test_the_same_seed_gives_the_same_weights(run, trained, tmp_path):
    again = run(
        *("train", "--data", "fake", *SMALL, "--recipe", "steps=60", "batch_size=32", "--seed", "3"),
        *("--out", "again.safetensors"),
    )
    assert again.code == 0, again.err
    ours, theirs = (load_file(tmp_path / name) for name in ("model.safetensors", "again.safetensors"))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_predictions_are_a_table_that_says_what_the_network_says(run, trained, tmp_path):
    ran = run("predict", *MODEL, "--data", "fake", *SMALL)
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    registry = load_registry({"CUTK_PLUGINS": ""})
    splits = registry.get("dataset", "fake").component().load()
    model = registry.get("model", "convnet-small").component
    net = model(model.Options(width=4)).build(splits.train.shape, 4)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["cutk"])
        net.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    x = (splits.train.x / 255 - note["mean"][0]) / note["std"][0]
    with torch.no_grad():
        logits = net.eval()(x)
    assert [row["predicted"] for row in rows] == [f"class-{i}" for i in logits.argmax(1).tolist()]
    probability = logits.softmax(1)[torch.arange(len(x)), splits.train.labels]
    assert [float(row["probability of the label"]) for row in rows] == pytest.approx(probability.tolist(), abs=1e-3)
    ran = run("predict", *MODEL, "--data", "fake", *SMALL, "--out", "p.csv")
    assert ran.code == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == 1 + len(x)
    assert "samples are predicted as labelled" in ran.out


def test_an_evaluation_is_the_benchmarks(run, tmp_path):
    report = cutk.bench(
        dataset="fake",
        unlearners=["none"],
        alphas=[1.0],
        seeds=1,
        precision="fp32",
        device="cpu",
        recipe={"steps": 20, "batch_size": 32},
        options={"convnet-small": {"width": 4}},
        runs=tmp_path / "runs",
    )
    (original,) = [record for record in report.records if record["role"] == "original"]
    (weights,) = (tmp_path / "runs" / "train").glob(f"{original['key'][:2]}*/weights.safetensors")
    ran = run("evaluate", *MODEL[:2], "--weights", weights, "-d", "fake", "-m", "badnet", *SMALL, "--json")
    assert ran.code == 0, ran.err
    found = ran.json["metrics"]
    clean = found.pop("clean_accuracy")
    # What a trigger leaves alone are all unseen samples, without it.
    assert clean == pytest.approx(original["metrics"]["retain_accuracy"], abs=1e-6)
    assert found == pytest.approx({name: v for name, v in original["metrics"].items() if name in found}, abs=1e-6)
    assert {"corrected_accuracy", "retain_accuracy", "attack_success_rate"} <= found.keys()


def test_a_checkpoint_for_features_is_evaluated(run, tmp_path):
    ran = run("train", "--model", "linear", "--data", "breast-cancer", "--device", "cpu", "--recipe", "steps=20")
    assert ran.code == 0, ran.err
    weights = ("--model", "linear", "--weights", "model.safetensors")
    ran = run("evaluate", *weights, "-d", "breast-cancer", "-m", "interclass-confusion", "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["metrics"]["clean_accuracy"] > 0.7


def test_an_evaluation_takes_order_and_normalisation_from_the_weights(run, tmp_path):
    classes = ("--classes", "class-2,class-0,class-3,class-1")
    scaled = ("--mean", "0.1", "--std", "0.02")
    ran = run("train", "--data", "fake", *SMALL, "--recipe", "steps=60", "batch_size=32", *classes, *scaled)
    assert ran.code == 0, ran.err

    def clean(*args, weights="model.safetensors"):
        ran = run("evaluate", *MODEL[:2], "--weights", weights, "-d", "fake", "-m", "badnet", *SMALL, *args, "--json")
        assert ran.code == 0, ran.err
        found = ran.json["metrics"]
        assert found["retain_accuracy"] == pytest.approx(found["clean_accuracy"], abs=1e-6)
        return found["clean_accuracy"]

    assert clean() > 0.9
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "model.pt")
    assert clean(weights="model.pt") < 0.5
    assert clean(*scaled, weights="model.pt") < 0.5
    assert clean(*classes, *scaled, weights="model.pt") == clean()


def test_of_a_file_that_says_nothing_the_options_are_printed(run):
    quick = (
        "--data",
        "fake",
        *SMALL,
        "--recipe",
        "steps=60",
        "batch_size=32",
        "--classes",
        "class-2,class-0,class-3,class-1",
    )
    ran = run("train", *quick, "--out", "model.pt")
    assert ran.code == 0, ran.err
    assert "'model.pt' can't say how samples reach the model" in ran.err
    given = re.search(r"--mean \S+ --std \S+ --classes \S+", ran.err)[0].split()
    predict = ("predict", *MODEL[:2], "--weights", "model.pt", "--data", "fake", *SMALL, "--out", "p.csv", "--force")
    assert "100.0 % of 400 samples" in run(*predict, *given).out


def test_size_and_channels_are_said_with_what_a_file_cannot_say(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), (60 * number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    more = ("--channels", "grey", "--size", "8")
    ran = run("train", "--data", "folder:photos", *SMALL, *more, "--recipe", "steps=2", "--out", "model.pt")
    assert ran.code == 0, ran.err
    assert "Give others --size 8 --channels grey --mean" in ran.err


def test_predictions_near_chance_are_warned_of(run, trained, tmp_path):
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "model.pt")
    predict = ("predict", *MODEL[:2], "--data", "fake", *SMALL, "--out", "p.csv", "--force")
    ran = run(*predict, "--weights", "model.safetensors")
    assert (ran.code, ran.err) == (0, "")
    ran = run(*predict, "--weights", "model.pt", "--mean", "30")
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Warning: ")]
    assert re.search(
        r"\d % of 400 samples are predicted as labelled\. That is near chance: .* What would fit: --mean", line
    )


def test_test_samples_that_were_trained_on_are_warned_of(run, tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    parts = {"images": x, "labels": torch.arange(60) % 3}
    safetensors.torch.save_file(parts, tmp_path / "all.safetensors")
    split = {f"{part}_{name}": value.clone() for part in ("train", "test") for name, value in parts.items()}
    safetensors.torch.save_file(split, tmp_path / "split.safetensors")
    ran = run("train", *MODEL[:2], "--data", "arrays:all.safetensors", *SMALL, "--recipe", "steps=1")
    assert ran.code == 0, ran.err
    few = ("-o", "badnet.count=3")
    for name, warned in (("all", 1), ("split", 0)):
        ran = run("evaluate", *MODEL, "-d", f"arrays:{name}.safetensors", "-m", "badnet", *SMALL, *few)
        assert ran.code == 0, ran.err
        said = [line for line in ran.err.splitlines() if "a checkpoint that was trained on all of it" in line]
        assert len(said) == warned, ran.err


@pytest.mark.parametrize(("name", "reader"), [("photos", "folder"), ("t.csv", "csv"), ("x.npz", "arrays")])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_of_a_path_the_dataset_that_reads_it_is_named(run, tmp_path, error_of, command, name, reader):
    (tmp_path / "photos").mkdir()
    (tmp_path / name).touch()
    torch.save({"w": torch.ones(1)}, tmp_path / "m.pt")
    args = {"train": ("--data", name), "evaluate": ("--model", "mlp", "--weights", "m.pt", "-d", name, "-m", "badnet")}
    assert error_of(run(command, *args[command])) == f"Unknown dataset '{name}'. Did you mean '{reader}:{name}'?"


@pytest.mark.parametrize("command", ["train", "predict", "detect", "unlearn", "evaluate"])
def test_the_help_says_what_is_subtracted_where_nothing_is_said(run, command):
    text = " ".join(run(command, "--help").out.split())
    taken = {
        "train": "the data's own, or what is measured on those to train on",
        "evaluate": "what is noted with the weights, or what cutk bench takes",
    }
    noted = "what is noted with the weights, or the data's own, or 0 and 1"
    assert f"With neither, {taken.get(command, noted)}." in text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("train", "--data", "fake", "--model", "nothing"), "Unknown model 'nothing'"),
        (("train", "--data", "fake", "--recipe", "stepps=3"), "stepps"),
        (("train", "--data", "arrays:nowhere.npz", "--size", "9"), "has no use for --size"),
        (("predict", *MODEL, "--data", "fake"), "'model.safetensors' is not there"),
        (("evaluate", *MODEL, "-d", "fake", "-m", "badnet"), "'model.safetensors' is not there"),
    ],
)
def test_bad_input_is_one_line(run, error_of, args, said):
    assert said in error_of(run(*args))


def test_weights_of_another_network_are_refused(run, trained, error_of):
    for command in (("predict", "--data", "fake"), ("evaluate", "-d", "fake", "-m", "badnet")):
        text = error_of(run(command[0], "--model", "mlp", "--weights", "model.safetensors", *command[1:]))
        assert "doesn't fit the model" in text


def test_a_full_disk_leaves_no_weights(run, tmp_path, monkeypatch, error_of):
    def full(tensors, file, metadata=None):
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    out = tmp_path / "own.safetensors"
    out.write_bytes(b"before")
    args = ("train", *MODEL[:2], "--data", "fake", *SMALL, "--recipe", "steps=1", "--out", out, "--force")
    ran = run(*args)
    assert "can't be written (there is no space left)" in error_of(ran)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == b"before"


def test_a_place_that_takes_nothing_is_refused_before_any_work(run, tmp_path, monkeypatch, error_of):
    monkeypatch.setattr("cutk.problem.task.Task.retrain", None)
    args = ("train", *MODEL[:2], "--data", "fake", *SMALL, "--recipe", "steps=1")
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        assert f"--out: '{tmp_path}' can't be written to" in error_of(run(*args))
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**10))
    assert re.search(r"--out: expected room for 0\.\d MB, got 0\.0 MB at '.*'\. Make room, or", error_of(run(*args)))
    assert not list(tmp_path.iterdir())


def test_a_training_that_is_interrupted_says_so(run, tmp_path, monkeypatch):
    def stopped(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("cutk.problem.task.Task.retrain", stopped)
    ran = run("train", *MODEL[:2], "--data", "fake", *SMALL, "--recipe", "steps=1")
    assert ran.code == 130
    assert ran.err == "Interrupted. Nothing was written, and a training begins anew.\n"
    assert not list(tmp_path.iterdir())


OWN = """
from torch import nn


def build(width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 2))


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        return {"logits": self.net(x)}
"""


@pytest.fixture
def tinted(tmp_path):
    """Images in which red and blue differ, and networks of one's own."""
    noise = np.random.default_rng(0).integers(0, 40, (40, 3, 5, 5)).astype("uint8")
    noise[:, 0] += 200
    noise[:20, 1] += 100
    np.savez(tmp_path / "tinted.npz", images=noise.transpose(0, 2, 3, 1), labels=np.arange(40) // 20)
    (tmp_path / "net.py").write_text(OWN)
    return ("--data", "arrays:tinted.npz", "--device", "cpu", "--recipe", "steps=20")


def test_channels_the_other_way_round_are_normalised_with_their_own_numbers(run, tmp_path, tinted):
    def mean(*more):
        ran = run("train", *tinted, "--model", "net.py:build", "--out", "m.safetensors", "--force", *more)
        assert ran.code == 0, ran.err
        with safetensors.safe_open(tmp_path / "m.safetensors", framework="pt") as file:
            return json.loads(file.metadata()["cutk"])["mean"]

    plain = mean()
    assert plain[0] > 0.8 > 0.2 > plain[2]
    assert mean("--channels", "bgr") == mean("--channels", "bgr", "--normalise") == plain[::-1]
    command = (
        *("evaluate", "--model", "net.py:build", "--weights", "m.safetensors", "-d", "arrays:tinted.npz"),
        *("-m", "interclass-confusion", "--device", "cpu", "--channels", "bgr", "--json"),
    )
    noted, measured = run(*command), run(*command, "--normalise")
    assert (noted.code, measured.code) == (0, 0), noted.err + measured.err
    assert noted.json["metrics"]["clean_accuracy"] == measured.json["metrics"]["clean_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (("net.py:build", "width=64"), "'net.py:build' is a function, which is called without options, got width"),
        (("net.py:lazy",), "lazy() returns modules that are lazy: run a sample through the network"),
        (("net.py:Named",), "expected logits float [2, classes], got dict"),
    ],
)
def test_networks_of_ones_own_that_do_not_fit(run, tinted, error_of, network, said):
    assert said in error_of(run("train", *tinted[:4], "--model", *network, "--out", "m.safetensors"))


def test_size_and_channels_are_noted_with_the_weights(run, tmp_path):
    for label, colour in (("blue", (10, 10, 200)), ("red", (200, 10, 10))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (12, 12), tuple(c + 3 * i for c in colour)).save(tmp_path / f"photos/{label}/{i}.png")
    (tmp_path / "net.py").write_text(OWN)
    data = ("--data", "folder:photos", "--model", "net.py:build", "--device", "cpu")
    ran = run("train", *data, "--size", "5", "--channels", "bgr", "--recipe", "steps=30")
    assert ran.code == 0, ran.err
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["cutk"])
    assert (note["size"], note["channels"]) == (5, "bgr")
    predict = ("predict", *data, "--weights", "model.safetensors")
    plain, said = run(*predict), run(*predict, "--size", "5", "--channels", "bgr")
    assert plain.code == said.code == 0, plain.err
    assert plain.out == said.out
    assert run(*predict, "--channels", "rgb").out != said.out
    ran = run(*predict, "-o", "arays.layout=nonsense")
    assert ran.code == 2
    assert "Options for 'arays' are given, and it isn't used." in ran.err
