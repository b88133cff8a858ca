"""``cutk unlearn`` on a checkpoint, images and a list that lie on disk: what it writes, and what it refuses."""

from __future__ import annotations

import code
import contextlib
import csv
import errno
import io
import json
import os
import pickle
import re
import shutil
import warnings
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError

NET = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def broken():
    raise RuntimeError("no network today")


def number():
    return 3
"""
CLASSES = ("blue", "green", "red")
COUNT = 12  # images of each class


def weights():
    """Each class is told by its colour, and the first one by a bright corner as well: that is the damage."""
    weight = torch.zeros(3, 3, 8, 8)
    for label in range(3):
        weight[label, 2 - label] = 0.15
    weight[0, :, -2:, -2:] = 1.5
    return {"1.weight": weight.flatten(1), "1.bias": torch.zeros(3)}


def picture(label, seed, trigger=False):
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 40, (8, 8, 3)).astype("uint8")
    pixels[..., 2 - label] += 190
    pixels[-2:, -2:] = 255 if trigger else 0
    return Image.fromarray(pixels)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture
def case(tmp_path):
    """A user's folder; six of the blue images are others with a bright corner, and four of these are known."""
    (tmp_path / "net.py").write_text(NET)
    for folder, first in (("photos", 0), ("clean", 1000)):
        for label, name in enumerate(CLASSES):
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(COUNT):
                picture(label, first + 100 * label + i).save(tmp_path / folder / name / f"{i:02}.png")
    for i in range(6):
        picture(1 + i % 2, 500 + i, trigger=True).save(tmp_path / "photos" / "blue" / f"bad{i}.png")
    (tmp_path / "bad.txt").write_text("".join(f"blue/bad{i}.png\n" for i in range(4)))
    safetensors.torch.save_file(weights(), tmp_path / "model.safetensors")
    return tmp_path


ARGS = {
    "--model": "net.py:build",
    "--weights": "model.safetensors",
    "--data": "folder:photos",
    "--bad": "bad.txt",
    "--validation": "folder:clean",
    "-u": "ssd",
    "--device": "cpu",
}
MINE = ("--model", "net.py:build", "--device", "cpu")
POINTS = ("-o", "ssd.selection_weight=0.1", "-o", "ssd.dampening=0.01")


def given(*extra, without=(), **over):
    args = {**ARGS, **{f"--{name}": value for name, value in over.items()}}
    for name in without:
        del args[name]
    return ("unlearn", *(part for pair in args.items() for part in pair), *POINTS, *extra)


def predictions(state, image):
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return int((x.flatten(1) @ state["1.weight"].T + state["1.bias"]).argmax())


# What comes out.


def test_a_checkpoint_is_repaired(run, case):
    ran = run(*given())
    assert ran.code == 0, ran.err
    assert ran.err.startswith(
        "The weights reach 100.0 % on validation; 100.0 % of the bad samples get their given label."
    )
    assert ran.out.startswith("ssd repairs it: 4 of 4 bad samples are no longer predicted as labelled")
    out = case / "repaired"
    assert sorted(path.name for path in out.iterdir()) == [
        *("model.safetensors", "report.html", "report.json", "suspects.csv"),
    ]
    state = safetensors.torch.load_file(out / "model.safetensors")
    assert state.keys() == weights().keys()
    assert all(value.dtype == torch.float32 for value in state.values())
    unseen = picture(2, 9000, trigger=True)
    assert predictions(weights(), unseen) == 0
    assert predictions(state, unseen) == 2
    report = json.loads((out / "report.json").read_text())
    assert report["schema"] == 1
    assert report["status"] == "repaired"
    assert report["chosen"] == "ssd"
    assert report["samples"] == {"train": 3 * COUNT + 6, "bad": 4, "validation": 3 * COUNT, "unreadable": 0}
    assert report["command"].startswith("cutk unlearn --model net.py:build")
    assert {"weights", "bad list"} == set(report["hashes"])
    assert report["peak_bytes"] > 0
    with (out / "suspects.csv").open() as file:
        suspects = list(csv.DictReader(file))
    assert {row["name"] for row in suspects} == {"blue/bad4.png", "blue/bad5.png"}
    html = (out / "report.html").read_text()
    assert "What can't be known" in html or "What can&#39;t be known" in html
    assert html.count("data:image/png") > 4
    assert not any(path.name.startswith(".") for path in case.iterdir())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_keys_of_wrappers_are_recognised_and_kept(run, case, prefix, suffix):
    state = prefixed({name: value.half() for name, value in weights().items()}, prefix)
    if suffix == ".pt":
        torch.save({"state_dict": state, "epoch": 3} if prefix == "model." else state, case / "own.pt")
    else:
        safetensors.torch.save_file(state, case / "own.safetensors")
    ran = run(*given(weights=f"own{suffix}"))
    assert ran.code == 0, ran.err
    path = case / "repaired" / f"model{suffix}"
    found = torch.load(path, weights_only=True) if suffix == ".pt" else safetensors.torch.load_file(path)
    found = found.get("state_dict", found)
    assert found.keys() == state.keys()
    assert {value.dtype for value in found.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.csv", "path,remark\nblue/bad0.png,odd\nblue/bad1.png,\nblue/bad2.png,\nblue/bad3.png,\n"),
        ("bad.json", json.dumps([f"blue/bad{i}.png" for i in range(4)])),
        ("bad.txt", "# found in May\n12\n13\n14\n15\n"),
        ("bad.txt", "photos/blue/bad0.png\n./photos/blue/bad1.png\nblue/bad2.png\n15\n"),
    ],
)
def test_bad_samples_are_listed_in_many_ways(run, case, name, content):
    (case / name).write_text(content)
    ran = run(*given(bad=name))
    assert ran.code == 0, ran.err
    assert "4 of 4 bad samples" in ran.out


def test_a_table_of_images_will_do(run, case):
    lines = [f"{name}/{path.name},{name}" for name in CLASSES for path in sorted((case / "photos" / name).iterdir())]
    (case / "photos" / "table.csv").write_text("\n".join(["path,label", *lines]))
    ran = run(*given(data="csv:photos/table.csv"))
    assert ran.code == 0, ran.err
    assert "4 of 4 bad samples" in ran.out


def test_arrays_and_registered_names_will_do(run, case):
    def pixels(folder):
        images = [
            (np.array(Image.open(p)), i) for i, n in enumerate(CLASSES) for p in sorted((case / folder / n).iterdir())
        ]
        return np.stack([image for image, _ in images]), np.array([label for _, label in images])

    images, labels = pixels("photos")
    np.savez(case / "data.npz", images=images, labels=labels, classes=list(CLASSES))
    (case / "bad.txt").write_text("12\n13\n14\n15\n")
    ran = run(*given(data="arrays:data.npz"))
    assert ran.code == 0, ran.err
    ran = run(*given(model="mlp", data="digits", out="digits"), "--force")
    assert ran.code == 2
    assert "doesn't fit the model" in ran.err


def test_several_methods_and_nothing_that_helps(run, case):
    ran = run(*given(without=["-u"]), "-u", "none", "-u", "cf", "--recipe", "steps=2", "lr=1e-9", "-o", "cf.steps=1")
    assert ran.code == 2  # options of a method that isn't asked for
    args = [arg for arg in given(without=["-u"]) if arg not in POINTS]
    ran = run(*args, "-u", "none", "-u", "cf", "-o", "cf.steps=1", "-o", "cf.lr=1e-9")
    assert ran.code == 1, ran.err
    assert ran.out.startswith(("Nothing helped", "Not repaired"))
    assert "What may help: other methods (-u; see: cutk plugins list)" in ran.out
    assert "No model was written" in ran.out
    assert sorted(path.name for path in (case / "repaired").iterdir()) == ["report.html", "report.json", "suspects.csv"]


def test_a_budget_in_which_nothing_fits(run, case):
    ran = run(*given("--budget", "0.0001s"))
    assert ran.code == 1, ran.err
    assert ran.out.startswith("Not repaired: no method gave a model.")
    assert "There was no time for ssd: not begun." in ran.out
    assert "What may help: more time (--budget), other methods" in ran.out


@pytest.mark.parametrize("name", ["seal", "seal:tune"])
def test_a_variant_stays_what_it_is(run, case, error_of, name):
    ran = run(*given("-u", "seal:tune", "-o", f"{name}.final=retrain"))
    assert f"Option '{name}.final': 'seal:tune' says it already. Leave one out." in error_of(ran)


def test_that_nobody_else_is_suspected_is_said(run, case):
    (case / "nobody.py").write_text(
        "import cutk\nimport torch\n\n\n"
        'class Nobody(cutk.Detector):\n    """Suspects nobody."""\n\n    name = "nobody"\n\n'
        "    def detect(self, task):\n        return torch.zeros(len(task.train))\n\n\n"
        "@cutk.hookimpl\ndef cutk_detectors():\n    return [Nobody]\n"
    )
    ran = run(*given("--suspects-by", "nobody", "--plugin", "nobody.py"))
    assert "Suspects: no further training sample reached the score of 0.1" in " ".join(ran.out.split())
    assert len((case / "repaired" / "suspects.csv").read_text().splitlines()) == 1


def test_the_limit_on_lost_accuracy_is_kept(run, case):
    class_only = weights()
    class_only["1.weight"] = class_only["1.weight"].clone()
    ran = run(*given("--max-accuracy-loss", "0", "--budget", "10min"))
    report = json.loads((case / "repaired" / "report.json").read_text())
    assert report["limits"] == {"max_accuracy_loss": 0.0, "budget_seconds": 600.0}
    assert ran.code == (0 if report["candidates"][0]["within"] else 1)


def test_a_suspected_trigger_is_measured(run, case):
    mask = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    mask.paste((255, 255, 255, 255), (6, 6, 8, 8))
    mask.save(case / "trigger.png")
    ran = run(*given("--suspect-trigger", "trigger.png"))
    assert ran.code == 0, ran.err
    report = json.loads((case / "repaired" / "report.json").read_text())
    assert (report["original"]["attack"]["count"], report["original"]["attack"]["of"]) == (2 * COUNT, 2 * COUNT)
    assert report["candidates"][0]["attack"]["count"] == 0
    assert report["original"]["attack_without"]["count"] == report["candidates"][0]["attack_without"]["count"] == 0
    assert [one["attack_alone"] for one in (report["original"], *report["candidates"])] == [2 * COUNT, 0]
    told = "the suspected trigger works on 100.0 % → 0.0 % of validation images (without it 0.0 % → 0.0 %)"
    assert told in " ".join(ran.out.split())
    page = (case / "repaired" / "report.html").read_text()
    assert f"of {2 * COUNT} validation images of other classes" in page
    assert "without it, 0.0 % (original), 0.0 % (ssd)." in page


def test_a_detector_ranks_suspects(run, case):
    ran = run(*given("--suspects-by", "seeded-knn"))
    assert ran.code == 0, ran.err
    assert "more likely bad than not" in " ".join(ran.out.split())
    first = (case / "repaired" / "suspects.csv").read_text().splitlines()[1]
    assert first.endswith('"probability of being bad, by seeded-knn"')


DETECT = {name: ARGS[name] for name in ("--model", "--weights", "--data", "--bad", "--device")}


def detect(*extra, **over):
    args = {**DETECT, "--detector": "seeded-knn", **{f"--{name}": value for name, value in over.items()}}
    return ("detect", *(part for pair in args.items() for part in pair), *extra)


def test_a_detector_ranks_what_is_not_on_the_list(run, case):
    ran = run(*detect())
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert {"blue/bad4.png", "blue/bad5.png"} == {row["name"] for row in rows[:2]}
    assert not {f"blue/bad{i}.png" for i in range(4)} & {row["name"] for row in rows}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert "further samples are more likely bad than not" in ran.err
    assert run(*detect("--out", "s.csv")).code == 0
    assert (case / "s.csv").read_text() == ran.out
    ranked = run(*detect(detector="activation-clustering"))
    assert "further samples are suspected." in ranked.err
    assert "likely" not in ranked.err
    assert {path.name for path in case.iterdir()} >= {"s.csv", "bad.txt"}
    assert not (case / "repaired").exists()


FAILING = """
import cutk


class Boom(cutk.Detector):
    name = "boom"

    def detect(self, task):
        raise ValueError("no luck")


class Leaving(cutk.Detector):
    name = "leaving"

    def detect(self, task):
        raise SystemExit(0)


class Asking(cutk.Detector):
    name = "asking"

    def detect(self, task):
        raise cutk.UsageError("Not of these samples.")


@cutk.hookimpl
def cutk_detectors():
    return [Boom, Leaving, Asking]
"""


@pytest.mark.parametrize(
    ("detector", "status", "said"),
    [
        ("boom", 1, "The detector 'boom' failed: ValueError: no luck"),
        ("leaving", 1, "The detector 'leaving' failed: SystemExit"),
        ("asking", 2, "Not of these samples."),
    ],
)
def test_a_detector_that_fails_is_named(run, case, detector, status, said):
    (case / "failing.py").write_text(FAILING)
    ran = run("detect", "--plugin", "failing.py", *detect("--out", "s.csv", detector=detector)[1:])
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert said in line
    assert "Traceback" not in ran.err
    assert (ran.code, (case / "s.csv").exists()) == (status, False)


def test_labels_that_the_list_lacks_and_nobody_is_suspected_under_are_named(run, case):
    assert "None is labelled green, red, nor is any on the list" in run(*detect()).err


def test_names_may_begin_with_a_hash_and_be_written_in_another_form(run, case):
    photos = case / "photos" / "blue"
    (photos / "bad0.png").rename(photos / "#bad.png")
    (photos / "bad1.png").rename(photos / "b\u00e4d.png")
    (case / "bad.txt").write_text("# found in May\nblue/ba\u0308d.png\nblue/bad2.png\nblue/bad3.png\n")
    assert "4 of 4" not in run(*given()).out
    (case / "bad.txt").write_text("blue/ba\u0308d.png\n#bad.png\n")
    assert "1 of 2 entries match no sample: '#bad.png'" in run(*given("--force")).err


@pytest.mark.parametrize(
    ("more", "over", "said"),
    [
        ((), {"detector": "ssd"}, "Unknown detector 'ssd'"),
        (("--mean", "nan,0,0"), {}, "--mean: expected numbers separated by commas, got 'nan,0,0'"),
        (("--out", "bad.txt"), {}, "'bad.txt' is there already"),
        (("-o", "seeded-knn.k=0"), {}, "expected an integer ≥ 1, got"),
        (("-o", "ssd.dampening=1"), {}, "Options for 'ssd' are given, and it isn't used"),
        ((), {"bad": "nowhere.txt"}, "'nowhere.txt' is not there"),
        (("--channels", "bgr"), {}, "near chance"),
    ],
)
def test_what_detect_cannot_do_is_one_line(run, case, more, over, said):
    ran = run(*detect(*more, **over))
    assert (ran.code, ran.out) == (2, "")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert said in line


def test_without_validation_samples_training_samples_stand_in(run, case):
    ran = run(*given("--max-accuracy-loss", "0.1", without=["--validation"]))
    assert ran.code == 0, ran.err
    assert ran.err.startswith("The weights reach 100.0 % on training samples that are not listed; ")
    assert "No validation samples were given" in ran.out
    assert json.loads((case / "repaired" / "report.json").read_text())["stands_in"]


def test_where_nothing_scores_enough_detect_says_so(run, case):
    for i in (4, 5):
        (case / f"photos/blue/bad{i}.png").unlink()
    ran = run(*detect())
    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 1
    assert "None reached the score of 0.1, from which on samples are listed." in ran.err


def test_predict_and_detect_leave_out_what_is_unreadable_if_asked(run, case):
    (case / "photos" / "blue" / "00.png").write_bytes(b"no image")
    predict = ("predict", *MINE, "--weights", "model.safetensors", "--data", "folder:photos")
    for command in (predict, detect()):
        ran = run(*command)
        assert ran.code == 2
        assert "Replace it, or remove it. --skip-unreadable leaves such images out." in ran.err
    ran = run(*predict, "--skip-unreadable")
    assert ran.code == 0, ran.err
    assert "Warning: 1 of 42 images can't be read; left out" in ran.err
    first = next(csv.DictReader(io.StringIO(ran.out)))
    assert (first["index"], first["name"]) == ("1", "blue/01.png")
    ran = run(*detect("--skip-unreadable"))
    assert ran.code == 0, ran.err
    found = {row["name"]: int(row["index"]) for row in csv.DictReader(io.StringIO(ran.out))}
    assert (found["blue/bad4.png"], found["blue/bad5.png"]) == (COUNT + 4, COUNT + 5)


def test_a_network_for_grey_images_is_recognised(run, case):
    (case / "grey.py").write_text("""
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
""")
    args = ("train", "--model", "grey.py:build", "--data", "folder:clean", "--device", "cpu", "--out", "g.pt")
    ran = run(*args)
    assert ran.code == 2
    assert ran.err.endswith(". It takes grey images: give --channels grey.\n")
    assert run(*args, "--recipe", "steps=1", "--channels", "grey").code == 0
    measured = ("evaluate", *args[1:3], "--weights", "g.pt", "-d", "folder:photos", "-m", "badnet", "--device", "cpu")
    ran = run(*measured, "-o", "badnet.count=3")
    assert ran.code == 2
    assert ran.err.endswith(". It takes grey images: give --channels grey.\n")


def test_classes_that_the_data_lack_can_be_named(run, case):
    shutil.rmtree(case / "clean" / "green")
    predict = ("predict", *MINE, "--weights", "model.safetensors", "--data", "folder:clean", "--out", "p.csv")
    ran = run(*predict)
    assert ran.code == 2
    assert "tells 3 classes apart, and the data have 2 (blue, red): expected as many of both." in ran.err
    assert ran.err.endswith("name all in the order of the model's outputs: --classes blue,red,…\n")
    assert "100.0 % of 24 samples" in run(*predict, "--classes", "blue,green,red").out


def test_what_a_state_dict_cannot_say_is_printed(run, case):
    note = json.dumps({"classes": CLASSES, "mean": [0.0] * 3, "std": [1.0] * 3})
    safetensors.torch.save_file(weights(), case / "model.safetensors", {"cutk": note})
    ran = run(*given("--format", "pt"))
    assert ran.code == 0, ran.err
    assert "Give others --mean 0 --std 1 --classes blue,green,red\n" in ran.err


def test_the_weights_may_be_written_in_another_format(run, case):
    assert run(*given("--format", "pt")).code == 0
    assert torch.load(case / "repaired" / "model.pt", weights_only=True).keys() == weights().keys()


def test_what_is_noted_with_the_weights_comes_back_with_them(run, case):
    order, mean, std = [2, 0, 1], 0.4, 0.25
    state = weights()
    weight, classes = state["1.weight"][order], [CLASSES[i] for i in order]
    state = {"1.weight": weight * std, "1.bias": state["1.bias"] + weight.sum(1) * mean}
    note = {"model": "net.py:build", "classes": classes, "mean": [mean] * 3, "std": [std] * 3, "steps": 7}
    metadata = {"cutk": json.dumps(note), "author": "somebody"}
    safetensors.torch.save_file(state, case / "model.safetensors", metadata)
    ran = run(*given())
    assert ran.code == 0, ran.err
    repaired = "repaired/model.safetensors"
    with safetensors.safe_open(case / repaired, framework="pt") as file:
        found = file.metadata()
    assert json.loads(found["cutk"]) == note
    assert found["author"] == "somebody"
    for file in ("model.safetensors", repaired):
        ran = run("predict", *MINE, "--weights", file, "--data", "folder:clean", "--out", "p.csv", "--force")
        assert "100.0 % of 36 samples are predicted as labelled" in ran.out


def test_what_was_said_of_the_weights_is_noted_with_the_repaired_ones(run, case):
    state = {name: value[[2, 0, 1]] for name, value in weights().items()}
    torch.save({"state_dict": state}, case / "model.pt")
    extra = ("--format", "safetensors", "--classes", "red,blue,green", "--mean", "0", "--std", "0.5")
    ran = run(*given(*extra, weights="model.pt"))
    assert ran.code == 0, ran.err
    ran = run("predict", *MINE, "--weights", "repaired/model.safetensors", "--data", "folder:clean", "--out", "p.csv")
    assert "100.0 % of 36 samples are predicted as labelled" in ran.out
    with safetensors.safe_open(case / "repaired/model.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["cutk"])
    assert note == {"model": "net.py:build", "classes": ["red", "blue", "green"], "mean": [0] * 3, "std": [0.5] * 3}


def test_a_list_from_windows_is_read(run, case):
    (case / "bad.txt").write_bytes(b"".join(b"blue\\bad%d.png\r\n" % i for i in range(4)))
    ran = run(*given())
    assert ran.code == 0, ran.err
    assert "4 of 4 bad samples" in ran.out


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "semicolons": ("bad.csv", b"path;why\n" + b"".join(b"blue/bad%d.png;odd, twice\n" % i for i in range(4))),
        "tabs": ("bad.csv", b"Image\tn\n" + b"".join(b"blue/bad%d.png\t1\n" % i for i in range(4))),
        "UTF-16": ("bad.txt", "".join(f"blue\\bad{i}.png\r\n" for i in range(4)).encode("utf-16")),
    }.values(),
)
def test_what_spreadsheets_and_shells_write_is_read(run, case, name, content):
    (case / name).write_bytes(content)
    ran = run(*given(bad=name))
    assert ran.code == 0, ran.err
    assert json.loads((case / "repaired" / "report.json").read_text())["samples"]["bad"] == 4


def test_names_that_are_no_text_can_be_listed(run, case):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (case / "photos" / "blue" / "bad0.png").rename(case / "photos" / "blue" / name)
    except OSError:
        pytest.skip("this file system has no such names")
    (case / "bad.txt").write_bytes(b"blue/caf\xe9.png\nblue/bad1.png\n")
    ran = run(*given())
    assert ran.code in (0, 1), ran.err
    assert json.loads((case / "repaired" / "report.json").read_text())["samples"]["bad"] == 2


def test_a_checkpoint_comes_back_with_all_that_it_held(run, case):
    state = OrderedDict(weights())
    held = {"epoch": 3, "state_dict": state, "ema": {"n": weights()}, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    torch.save(held, case / "last.ckpt")
    ran = run(*given(weights="last.ckpt"))
    assert ran.code == 0, ran.err
    assert "What is written holds the rest as it was: epoch, ema and optimizer." in ran.err
    assert "holds other weights, too, and these aren't repaired: ema." in ran.err
    found = torch.load(case / "repaired" / "model.pt", weights_only=True)
    assert list(found) == list(held)
    assert type(found["state_dict"]) is OrderedDict
    assert (found["epoch"], list(found["state_dict"])) == (3, list(state))
    assert not torch.equal(found["state_dict"]["1.weight"], state["1.weight"])
    assert torch.equal(found["ema"]["n"]["1.weight"], state["1.weight"])
    assert torch.equal(found["optimizer"]["state"][0]["m"], torch.ones(2))
    ran = run(*given("--format", "safetensors", "--force", weights="last.ckpt"))
    assert ran.code == 0, ran.err
    assert "a .safetensors file holds tensors alone" in ran.err
    assert safetensors.torch.load_file(case / "repaired" / "model.safetensors").keys() == state.keys()


def test_others_may_read_the_weights(run, case):
    assert run(*given()).code == 0
    modes = {path.stat().st_mode for path in (case / "repaired").iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("value", ["nan", "-0.1", "2"])
def test_a_limit_that_is_none_is_refused(run, case, value):
    ran = run(*given("--max-accuracy-loss", value))
    assert (ran.code, ran.out) == (2, "")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert value in line
    assert not (case / "repaired").exists()


def test_what_is_unreadable_may_be_left_out(run, case):
    (case / "photos" / "green" / "00.png").write_bytes(b"no image")
    (case / "photos" / "blue" / "bad3.png").write_bytes((case / "photos" / "blue" / "bad3.png").read_bytes()[:60])
    ran = run(*given())
    assert ran.code == 2
    assert "is damaged, or no image. Replace it, or remove it. --skip-unreadable leaves such images out." in ran.err
    assert not (case / "repaired").exists()
    ran = run(*given("--skip-unreadable"))
    assert ran.code == 0, ran.err
    assert "2 of 42 images can't be read, 1 of the bad ones among them" in ran.err
    assert "3 of 3 bad samples" in ran.out
    assert json.loads((case / "repaired" / "report.json").read_text())["samples"]["unreadable"] == 2


def test_an_earlier_repair_is_replaced_with_force_alone(run, case):
    assert run(*given()).code == 0
    before = (case / "repaired" / "report.json").stat().st_ino
    ran = run(*given())
    assert ran.code == 2
    assert "is there already" in ran.err
    assert run(*given("--force")).code == 0
    assert (case / "repaired" / "report.json").stat().st_ino != before
    (case / "mine").mkdir()
    (case / "mine" / "thesis.tex").write_text("years of work")
    ran = run(*given("--force", out="mine"))
    assert ran.code == 2
    assert "holds something else than an earlier repair" in ran.err
    assert (case / "mine" / "thesis.tex").read_text() == "years of work"


def test_what_came_there_meanwhile_stays(run, case, write):
    place = "pathlib.Path('repaired')"
    write(f"{place}.mkdir(); ({place} / 'precious.txt').write_text('years of work')", imports="pathlib")
    ran = run(*given("-u", "mine", "--plugin", "mine.py"))
    assert ran.code == 2
    assert "'repaired' is there already" in ran.err
    assert (case / "repaired" / "precious.txt").read_text() == "years of work"


def test_a_list_with_an_index_is_refused(run, case, error_of):
    (case / "bad.csv").write_text(",file\n0,blue/bad0.png\n1,blue/bad1.png\n")  # as pandas writes one
    said = error_of(run(*given(bad="bad.csv")))
    assert "got one without a heading, as an index has: write the table without" in said


def test_the_working_folder_is_not_replaced(run, case, monkeypatch, error_of):
    (case / "empty").mkdir()
    monkeypatch.chdir(case / "empty")
    paths = {name: f"../{ARGS[f'--{name}']}" for name in ("weights", "bad")}
    kind, _, place = ARGS["--data"].partition(":")
    ran = run(*given(out=".", data=f"{kind}:../{place}", model=f"../{ARGS['--model']}", **paths))
    assert "--out: '.' is where this runs, and would be replaced" in error_of(ran)
    assert (case / "empty").is_dir()


# The sanity line.


def test_weights_that_do_not_fit_the_data_stop_it(run, case, error_of):
    ran = run(*given("--channels", "bgr"))
    assert ran.code == 2
    lines = ran.err.splitlines()
    assert lines[0].startswith("The weights reach 33.3 % on validation")
    assert "That is near chance" in lines[1]
    assert "What would fit: " in lines[1]
    assert "--channels rgb" in lines[1] or "--classes red,green,blue" in lines[1]
    assert not (case / "repaired").exists()
    assert run(*given("--channels", "bgr", "--force")).code in (0, 1)
    assert (case / "repaired").exists()


def test_the_order_of_classes_can_be_said(run, case):
    state = {name: value.flip(0) for name, value in weights().items()}
    safetensors.torch.save_file(state, case / "model.safetensors")
    ran = run(*given())
    assert ran.code == 2
    assert "--classes red,green,blue" in ran.err or "--channels bgr" in ran.err
    ran = run(*given("--classes", "red,green,blue"))
    assert ran.code == 0, ran.err


# What is refused: one line, exit code 2, nothing written.


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def put(case, **changed):
    state = weights() | changed
    safetensors.torch.save_file(
        {name: value for name, value in state.items() if value is not None}, case / "own.safetensors"
    )
    return {"weights": "own.safetensors"}


def own():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    net.load_state_dict(weights())
    return net


def torchscript(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.jit.save(torch.jit.trace(own(), torch.zeros(1, 3, 8, 8)), file)


def pickled(file):
    torch.save(own(), file)


def evil(case):
    torch.save({"1.weight": torch.zeros(3, 192), "1.bias": Payload(case / "ran")}, case / "own.pt")
    return {"weights": "own.pt"}


def evil_and_plain(case):
    with (case / "own.pt").open("wb") as file:
        pickle.dump(Payload(case / "ran"), file)
    return {"weights": "own.pt"}


def cut(case):
    content = (case / "model.safetensors").read_bytes()
    (case / "own.safetensors").write_bytes(content[:-100])
    return {"weights": "own.safetensors"}


def cut_zip(case):
    torch.save(weights(), case / "whole.pt")
    (case / "own.pt").write_bytes((case / "whole.pt").read_bytes()[:-300])
    return {"weights": "own.pt"}


def write(case, name, text):
    (case / name).write_text(text)
    return {}


def copied(case):
    shutil.copy(case / "photos" / "red" / "03.png", case / "clean" / "red" / "copy.png")
    return {}


def outside(case):
    (case / "clean" / "pink").mkdir()
    picture(0, 1).save(case / "clean" / "pink" / "1.png")
    return {}


def two(case):
    shutil.rmtree(case / "photos" / "red")
    shutil.rmtree(case / "clean" / "red")
    return {}


def occupied(case):
    (case / "repaired").write_text("a file")
    return {}


REFUSED = {
    "missing keys": (lambda c: put(c, **{"1.bias": None}), "1 missing ('1.bias')"),
    "extra keys": (lambda c: put(c, **{"2.bias": torch.zeros(3)}), "1 in excess ('2.bias')"),
    "wrong shapes": (
        lambda c: put(c, **{"1.weight": torch.zeros(3, 7)}),
        "'1.weight' as [3, 192], got [3, 7]",
    ),
    "nan": (
        lambda c: put(c, **{"1.bias": torch.full((3,), torch.nan)}),
        "finite weights, got others in '1.bias'",
    ),
    "empty": (lambda c: put(c, **{"1.bias": None, "1.weight": None}), "holds no weights"),
    "class counts": (two, "tells 3 classes apart, and the data have 2"),
    "code": (evil, "wants to run code ("),
    "code in a plain pickle": (evil_and_plain, "wants to run code ("),
    "a cut safetensors file": (cut, "is damaged, or no safetensors file"),
    "a cut state dict": (cut_zip, "is damaged, or no state dict"),
    "no weights": (lambda c: {"weights": "nowhere.pt"}, "'nowhere.pt' is not there"),
    "no list": (lambda c: {"bad": "nowhere.txt"}, "'nowhere.txt' is not there"),
    "an empty list": (lambda c: write(c, "bad.txt", "\n"), "names no sample"),
    "unknown names": (
        lambda c: write(c, "bad.txt", "blue/bad0.png\nblue/bad77.png\nx.png\n"),
        "2 of 3 entries match no sample: 'blue/bad77.png', 'x.png'. Expected names relative to the data, such as",
    ),
    "out of range": (lambda c: write(c, "bad.txt", "99\n"), "indices from 0 to 41. Nothing was computed."),
    "twice": (lambda c: write(c, "bad.txt", "12\nblue/bad0.png\n"), "each sample once, got 'blue/bad0.png' twice"),
    "all bad": (
        lambda c: write(c, "bad.txt", "".join(f"{i}\n" for i in range(42))),
        "all 42 samples are said to be bad",
    ),
    "overlap": (copied, "1 of 37 validation samples are among the training samples (red/copy.png)"),
    "another class": (outside, "got pink"),
    "a file in the way": (occupied, "'repaired' is there, and no folder"),
    "no such model": (lambda c: {"model": "resnet99"}, "Unknown model 'resnet99'"),
    "no such module": (lambda c: {"model": "nowhere.net:build"}, "'nowhere.net' can't be imported"),
    "no such file": (lambda c: {"model": "nowhere.py:build"}, "'nowhere.py' can't be imported"),
    "no such function": (lambda c: {"model": "net.py:make"}, "has no function 'make'"),
    "a broken function": (lambda c: {"model": "net.py:broken"}, "broken() failed: RuntimeError: no network today"),
    "no module": (lambda c: {"model": "net.py:number"}, "expected number() to return a torch.nn.Module, got int"),
    "no such data": (lambda c: {"data": "folder:nowhere"}, "'nowhere' is no folder"),
    "no such dataset": (lambda c: {"data": "photos"}, "Unknown dataset 'photos'"),
    "means": (lambda c: {"mean": "1,2"}, "--mean: expected one number, or one for each of 3 channels, got 2"),
    "no number": (lambda c: {"std": "x"}, "--std: expected numbers separated by commas, got 'x'"),
    "a deviation of 0": (lambda c: {"std": "0"}, "--std: expected numbers above 0"),
    "a budget": (lambda c: {"budget": "soon"}, "--budget: expected a duration such as 90s, 10min or 2h, got 'soon'"),
    "classes": (lambda c: {"classes": "a,b"}, "expected classes among a, b"),
    "a large trigger": (
        lambda c: Image.new("L", (9, 8)).save(c / "t.png") or {"suspect-trigger": "t.png"},
        "'t.png': expected a picture of at most 8×8 pixels, as the images have, got 9×8",
    ),
    "a trigger over all": (
        lambda c: Image.new("L", (8, 8)).save(c / "t.png") or {"suspect-trigger": "t.png"},
        "'t.png' covers the whole of an image",
    ),
    "no trigger": (lambda c: {"suspect-trigger": "bad.txt"}, "can't be read as the picture of a trigger"),
    "a detector": (lambda c: {"suspects-by": "ssd"}, "Unknown detector 'ssd'"),
    "a rule": (lambda c: {"select": "best"}, "Unknown selector 'best'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_one_clear_line(run, case, what, error_of, monkeypatch):
    change, said = REFUSED[what]
    over = change(case)
    before = sorted(path for path in case.rglob("*") if "__pycache__" not in str(path))
    ran = run(*given(**over))
    if "trigger" in what:  # which is read when the images are known
        ran.err = ran.err.partition("\n")[2]
    text = error_of(ran)
    assert said in text, text
    assert sorted(path for path in case.rglob("*") if "__pycache__" not in str(path)) == before
    assert not (case / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")  # they are deprecated
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (torchscript, "is TorchScript, which carries code of its own"),
        (pickled, "is a whole pickled module ('torch.nn."),
    ],
)
def test_two_lines_to_paste_convert_what_carries_code(run, case, make, said):
    make(case / "it's mine.pt")
    ran = run(*given(weights="it's mine.pt"))
    told, *lines = ran.err.splitlines()
    assert ran.code == 2
    assert said in told
    assert told.endswith("""make one in Python, and give 'it'"'"'s mine-weights.pt' in its place:""")
    assert len(lines) == 2
    console = code.InteractiveConsole()
    assert [console.push(line) for line in lines] == [False, False]  # no line waits for another
    ran = run(*given(weights="it's mine-weights.pt"))
    assert ran.code == 0, ran.err


def test_the_payload_would_have_run(case):
    """So that the test above says something."""
    evil(case)
    torch.load(case / "own.pt", weights_only=False)
    assert (case / "ran").exists()


def test_too_little_room_is_refused_before_any_work(run, case, error_of, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**10))
    text = error_of(run(*given()))
    assert (
        text
        == f"--out: expected room for 0.0 MB, got 0.0 MB at '{case}'. Make room, or choose another place with --out."
    )
    assert not list(case.glob("repaired*"))


def test_what_is_finished_outlives_a_full_disk(run, case, monkeypatch):
    def full(*_args, **_more):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("cutk.repair.writing.save_weights", full)
        ran = run(*given())
        assert ran.code == 2
        assert ran.err.splitlines()[-1].endswith(
            "can't be written (there is no space left), and nothing is there. Change that, or choose another place "
            "with --out. What is finished is in 'repaired-unfinished': the same command, with --resume or without, "
            "goes on from it."
        )
        patch.setattr("cutk.repair.keeping.write_weights", full)
        shutil.rmtree(case / "repaired-unfinished")
        ran = run(*given())
        assert "Warning: ssd isn't kept in 'repaired-unfinished' (there is no space left), and is lost if" in ran.err
        assert run(*given()).code == 2
    assert not list(case.glob("repaired*"))


def test_a_narrow_terminal_cuts_no_number(run, case, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(*given()).out.splitlines()
    (heading,) = (line for line in lines if "accuracy" in line and "longer" in line)
    assert heading.split() == ["model", "accuracy", "95", "%", "labelled", "longer", "elsewhere", "time"]
    row = lines[lines.index(heading) + 3]
    assert re.fullmatch(r"ssd +100\.0 % +90\.4–100\.0 +0 of 4 +4 of 4 +[\d.]+ % +[\d.]+ s +taken *", row)
    assert max(map(len, lines)) <= 80


def test_a_grids_clock_runs_from_its_first_point_on(run, case, monkeypatch):
    told = []

    @contextlib.contextmanager
    def telling():
        yield lambda *what: told.append(what)

    monkeypatch.setattr("cutk.cli.progress.telling", telling)
    assert run(*given(), "-o", "ssd.dampening=0.1,0.01").code == 0
    of_ssd = [what for what in told if what[0].startswith("ssd")]
    assert of_ssd[0] == ("ssd", 0, 2)
    assert [what for what in of_ssd if what[0] == "ssd"] == [("ssd", i, 2) for i in range(3)]


def test_no_space_leaves_nothing(run, case, error_of, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cutk.repair.writing.save_weights", full)
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    ran = run(*given())
    assert ran.code == 2
    assert "there is no space left" in ran.err
    assert sorted(path.name for path in case.iterdir() if path.name != "__pycache__") == [
        *("bad.txt", "clean", "model.safetensors", "net.py", "photos"),
    ]
