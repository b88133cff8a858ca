"""What ``torch.save`` wrote beside weights: read where no code is run for it, and else refused with what to do."""

from __future__ import annotations

import argparse
import code
import pathlib
import sys
import types

import numpy as np
import pytest
import torch

import cutk
from cutk.repair.weights import read_weights

STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


class Payload:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return pathlib.Path.touch, (self.file,)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(content):
        torch.save(content, "own.pt")
        return pathlib.Path("own.pt")

    return call


def test_a_tensor_beside_the_weights_is_none_of_them(saved):
    noted = {"epoch": 90, "arch": "resnet18", "best_acc1": torch.tensor(76.1)}  # as PyTorch's ImageNet example does
    weights = read_weights(saved({**noted, "state_dict": STATE}))
    assert weights.within == "state_dict"
    assert set(weights.tensors) == set(STATE)
    found = torch.load(saved(weights.put_back(weights.tensors)), weights_only=True)
    assert {name: found[name] for name in noted} == noted


def test_what_trainings_note_is_read_and_written_again(saved):
    noted = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs") / "a"),
        "best": np.float64(0.5),
        "history": np.arange(6, dtype=np.float32).reshape(2, 3),
        "counts": np.array([1, 2]),
        "names": np.array(["a", "bc"]),
        "seen": (np.int64(3), np.bool_(True)),
    }
    weights = read_weights(saved({"model": STATE, **noted}))
    assert weights.within == "model"
    found = torch.load(saved(weights.put_back(weights.tensors)), weights_only=False)
    assert found["args"] == noted["args"]
    assert type(found["args"].out) is type(noted["args"].out)
    assert type(found["best"]) is np.float64
    assert found["seen"] == noted["seen"]
    for name in ("history", "counts", "names"):
        np.testing.assert_array_equal(found[name], noted[name])
        assert found[name].dtype == noted[name].dtype


@pytest.mark.parametrize(
    "hide",
    [
        lambda payload: argparse.Namespace(lr=payload),
        lambda payload: np.array([payload, 1], dtype=object),
        lambda payload: {"a": [payload]},
    ],
)
def test_code_among_it_is_not_run(saved, hide):
    file = pathlib.Path("ran").absolute()
    path = saved({"model": STATE, "args": hide(Payload(file))})
    with pytest.raises(cutk.UsageError, match="wants to run code"):
        read_weights(path)
    assert not file.exists()
    torch.load(path, weights_only=False)
    assert file.exists()


@pytest.fixture
def classes(monkeypatch):
    module = types.ModuleType("their_code")
    exec("class Config:\n    lr = 0.1", vars(module))  # noqa: S102  # a module that a user has, and no file
    monkeypatch.setitem(sys.modules, "their_code", module)
    return module


@pytest.mark.parametrize("inside", ["tensors", "a module"])
def test_two_lines_take_weights_out_of_a_checkpoint(saved, classes, inside):
    net = torch.nn.Linear(3, 2)
    net.load_state_dict(STATE)
    held = STATE if inside == "tensors" else net
    with pytest.raises(cutk.UsageError, match=r"'own.pt' holds more than weights \('their_code.Config'") as error:
        read_weights(saved({"config": classes.Config(), "epoch": 3, "model": held}))
    assert len(error.value.to_paste) == 2
    console = code.InteractiveConsole()
    assert not any(map(console.push, error.value.to_paste))
    found = read_weights(pathlib.Path("own-weights.pt"))
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in STATE.items())
