"""What ``torch.save`` wrote, read without running code."""

from __future__ import annotations

import argparse
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch

import cutk

OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6)


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_plain_data_come_back(tmp_path, zipped):
    content = {"weight": torch.arange(6.0).view(2, 3), "epoch": 3, "names": ["a", "b"], 2: (None, 1.5)}
    torch.save(content, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
    found = cutk.load_plain(tmp_path / "some.pt")
    assert torch.equal(found.pop("weight"), content.pop("weight"))
    assert found == content


@pytest.mark.skipif(OLD, reason="torch 2.6 takes the first names of what may be read")
def test_what_trainings_note_comes_back(tmp_path):
    noted = {
        "labels": np.arange(4),
        "loss": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1),
        "text": np.array(["a"]),
    }
    torch.save({**noted, "out": pathlib.PurePosixPath("runs")}, tmp_path / "some.pt")
    found = cutk.load_plain(tmp_path / "some.pt")
    assert (found["labels"].tolist(), found["loss"], found["args"].lr, found["text"].tolist()) == (
        [0, 1, 2, 3],
        0.5,
        0.1,
        ["a"],
    )
    assert str(found["out"]) == "runs"


@pytest.mark.skipif(OLD, reason="torch 2.6 takes the first names of what may be read")
@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_are_read_whichever_numpy_wrote_them(tmp_path, core):
    """NumPy 2 calls the module that makes them otherwise."""
    torch.save(np.arange(3), tmp_path / "some.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "some.pt").read_bytes()
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert any(name in content for name in names)
    for name in names:
        content = content.replace(name, b"c" + core + b"\n")
    (tmp_path / "some.pt").write_bytes(content)
    assert cutk.load_plain(tmp_path / "some.pt").tolist() == [0, 1, 2]


def test_no_code_is_run(tmp_path):
    torch.save({"labels": Touches(tmp_path / "made")}, tmp_path / "some.pt")
    with pytest.raises(pickle.UnpicklingError):
        cutk.load_plain(tmp_path / "some.pt")
    assert not (tmp_path / "made").exists()


def test_what_was_allowed_is_not_allowed_elsewhere(tmp_path):
    torch.save({"args": argparse.Namespace(lr=0.1)}, tmp_path / "some.pt")
    if not OLD:
        cutk.load_plain(tmp_path / "some.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "some.pt", weights_only=True)
