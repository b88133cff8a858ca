from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from cutk_builtin.datasets.cifar100 import CLASSES, Cifar100


@pytest.fixture
def cifar100(tmp_path, monkeypatch, noise):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows, sums = {}, {}
    for seed, (name, count) in enumerate([("train", 230), ("test", 40)]):
        rows[name] = noise(count, 3072, seed=seed)
        # Fine labels go down from class 99, coarse ones are there to be mistaken for them.
        labels = {"fine_labels": [99 - i % 100 for i in range(count)], "coarse_labels": [i % 20 for i in range(count)]}
        content = pickle.dumps({"data": rows[name], **labels})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()  # noqa: S324
    content = pickle.dumps({"fine_label_names": list(CLASSES), "coarse_label_names": ["trees"] * 20})
    (folder / "meta").write_bytes(content)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": hashlib.md5(content).hexdigest()})  # noqa: S324
    return rows


def test_cifar100_is_read_with_its_fine_labels(cifar100, load, tmp_path):
    splits = load(Cifar100, root=tmp_path)
    # A row is 1,024 red, 1,024 green, 1,024 blue values.
    np.testing.assert_array_equal(splits.train.x.numpy(), cifar100["train"].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(splits.test.x.numpy(), cifar100["test"].reshape(-1, 3, 32, 32))
    assert splits.train.labels.tolist() == [99 - i % 100 for i in range(230)]
    assert splits.train.classes == splits.test.classes == CLASSES
    assert splits.validation is None


def test_maple_and_oak_are_classes_of_cifar100():
    assert len(CLASSES) == 100
    suggested = Cifar100.suggests["interclass-confusion"]["classes"]
    assert [CLASSES.index(name) for name in suggested] == [47, 52]


def test_damaged_cifar100_is_refused(cifar100, message, tmp_path):
    (tmp_path / "cifar-100-python" / "test").write_bytes(b"")
    assert "or its files are damaged" in message(Cifar100, root=tmp_path)
