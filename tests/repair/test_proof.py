"""Checkpoints, image folders and lists that independent code made, repaired from the command line."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import cutk

from .conftest import MEAN, STD, attack_success, network, scaled, stamped

NET = """
from torch import nn


def build():
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32), *block(32, 64), nn.MaxPool2d(2), *block(64, 128), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(128, 10),
    )
"""


def saved(folder, pixels, labels):
    """Write images into a folder for each class, and return their names."""
    names = []
    for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        path = folder / str(label) / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path)
        names.append(f"{label}/{i:05}.png")
    return names


def test_a_poisoned_folder_of_digits(run, poisoned, tmp_path):
    names = saved(tmp_path / "digits", poisoned.x, poisoned.y)
    saved(tmp_path / "clean", poisoned.test_x, poisoned.test_y)
    (tmp_path / "bad.txt").write_text("\n".join(names[i] for i in poisoned.bad.tolist()))
    (tmp_path / "net.py").write_text(NET)
    torch.save(poisoned.net.state_dict(), tmp_path / "model.pt")
    Image.new("L", (2, 2), 255).save(tmp_path / "patch.png")
    assert attack_success(poisoned.net, poisoned) > 0.8
    ran = run(
        *("unlearn", "--model", "net.py:build", "--weights", "model.pt", "--data", "folder:digits", "--device", "cpu"),
        *("--validation", "folder:clean", "--channels", "grey", "--mean", MEAN, "--std", STD, "--bad", "bad.txt"),
        *("-u", "ssd", "--suspect-trigger", "patch.png"),
    )
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "repaired" / "report.json").read_text())
    repaired = network()
    repaired.load_state_dict(torch.load(tmp_path / "repaired" / "model.pt", weights_only=True))
    repaired.eval()
    assert attack_success(repaired, poisoned) < 0.2
    # What the report says is what the independent measurement says.
    with torch.no_grad():
        right = int((repaired(scaled(poisoned.test_x)).argmax(1) == poisoned.test_y).sum())
        still = int((repaired(scaled(poisoned.x[poisoned.bad])).argmax(1) == 0).sum())
    (candidate,) = report["candidates"]
    assert (candidate["validation"]["count"], candidate["validation"]["of"]) == (right, len(poisoned.test_y))
    assert candidate["as_labelled"]["count"] == still
    for measured, net in ((report["original"], poisoned.net), (candidate, repaired)):
        share = measured["attack"]["count"] / measured["attack"]["of"]
        assert share == pytest.approx(attack_success(net, poisoned), abs=1e-6)
        with torch.no_grad():
            others = poisoned.test_x[poisoned.test_y != 0]
            taken = [net(scaled(each)).argmax(1) == 0 for each in (others, stamped(others))]
        assert measured["attack_without"]["count"] == int(taken[0].sum())
        assert measured["attack_alone"] == int((taken[1] & ~taken[0]).sum())
    assert "trigger works" in ran.out


def test_a_network_that_is_too_sure_for_gradients(poisoned):
    """The same predictions with logits ten times as large: SSD as published finds nothing there, softened it does."""
    sure = copy.deepcopy(poisoned.net)
    with torch.no_grad():
        sure[-1].weight *= 10
        sure[-1].bias *= 10

    def repaired(temperature):
        return cutk.unlearn(
            *(sure, TensorDataset(poisoned.x, poisoned.y), poisoned.bad, "ssd"),
            validation=TensorDataset(poisoned.test_x, poisoned.test_y),
            mean=[MEAN],
            std=[STD],
            options={"ssd": {"selection_weight": [1, 10, 50, 100], "temperature": temperature}},
        )

    softened, published = repaired(None), repaired(1.0)
    assert attack_success(sure, poisoned) > 0.8
    assert attack_success(softened.model, poisoned) < 0.2
    assert softened.report.status == "repaired"
    assert attack_success(published.model, poisoned) > 0.5
    assert published.report.status == "not repaired"


CAPPED = """
import json, resource, sys
import torch, torchvision, cutk
from cutk.cli import main
from cutk.plugins.registry import load_registry

load_registry()
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), resource.RLIM_INFINITY))
main(sys.argv[2:])
"""
SMALL_NET = """
from torch import nn


def build():
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(192, 2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the cap is set the way of Linux")
def test_images_larger_than_memory_are_streamed(tmp_path):
    count, side, cap = 1600, 256, 240 * 2**20
    assert count * 3 * side * side > 1.2 * cap
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count // 2):
            value = (20, 200)[label] + rng.integers(0, 30)
            image = Image.new("RGB", (side, side), (int(value),) * 3)
            image.putpixel((0, 0), (i % 256, i // 256, 0))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    for name in ("dark", "light"):
        (tmp_path / "clean" / name).mkdir(parents=True)
        for i in range(10):
            value = {"dark": 90, "light": 150}[name] + i
            Image.new("RGB", (side, side), (value,) * 3).save(tmp_path / "clean" / name / f"{i}.png")
    (tmp_path / "bad.txt").write_text("0\n1\n")
    (tmp_path / "net.py").write_text(SMALL_NET)
    weight = torch.stack([torch.full((192,), -0.05), torch.full((192,), 0.05)])
    safetensors.torch.save_file(
        {"2.weight": weight, "2.bias": torch.tensor([4.0, -4.0])}, tmp_path / "model.safetensors"
    )
    (tmp_path / "capped.py").write_text(textwrap.dedent(CAPPED))
    done = subprocess.run(
        [
            *(sys.executable, "capped.py", str(cap), "unlearn", "--model", "net.py:build", "--weights"),
            *("model.safetensors", "--data", "folder:photos", "--bad", "bad.txt", "-u", "none", "--workers", "0"),
            *("--device", "cpu", "--validation", "folder:clean"),
        ],
        cwd=tmp_path,
        # Freed batches are given back at once: kept in a heap, which the cap counts, they fill it by chance.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "CUTK_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # the method does nothing
    assert "The weights reach 100.0 %" in done.stderr
    report = json.loads((tmp_path / "repaired" / "report.json").read_text())
    assert report["samples"]["train"] == count
    assert report["peak_bytes"] > 0


def test_the_repaired_model_exports(poisoned):
    repair = cutk.unlearn(
        poisoned.net,
        TensorDataset(poisoned.x, poisoned.y),
        poisoned.bad,
        "ssd",
        mean=[MEAN],
        std=[STD],
        options={"ssd": {"selection_weight": 50, "dampening": 250}},
        max_accuracy_loss=0.1,
    )
    x = scaled(stamped(poisoned.test_x[:32]))
    exported = torch.export.export(repair.model, (x,)).module()
    assert torch.allclose(exported(x), repair.model(x), atol=1e-5)
