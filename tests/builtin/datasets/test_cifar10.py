from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from cutk_builtin.datasets.cifar10 import Cifar10


@pytest.fixture
def cifar10(tmp_path, monkeypatch, noise):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows, sums = {}, []
    for seed, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        rows[name] = noise(20, 3072, seed=seed)
        content = pickle.dumps({"data": rows[name], "labels": [9 - i % 10 for i in range(20)]})
        (folder / name).write_bytes(content)
        sums.append([name, hashlib.md5(content).hexdigest()])  # noqa: S324
    content = pickle.dumps({"label_names": list(Cifar10.published.classes)})
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", sums[:2])
    monkeypatch.setattr(CIFAR10, "test_list", sums[2:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(content).hexdigest()})  # noqa: S324
    return rows


def test_cifar10_is_read_with_its_batches_in_order(cifar10, load, tmp_path):
    splits = load(Cifar10, root=tmp_path)
    # A row is 1,024 red, 1,024 green, 1,024 blue values.
    train = np.concatenate([cifar10["data_batch_1"], cifar10["data_batch_2"]])
    np.testing.assert_array_equal(splits.train.x.numpy(), train.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(splits.test.x.numpy(), cifar10["test_batch"].reshape(-1, 3, 32, 32))
    assert splits.train.labels.tolist() == [9 - i % 10 for i in range(20)] * 2
    assert splits.train.ids.tolist() == list(range(40))
    assert splits.train.classes == splits.test.classes == Cifar10.published.classes
    assert splits.validation is None


def test_cats_and_dogs_are_classes_of_cifar10():
    suggested = Cifar10.suggests["interclass-confusion"]["classes"]
    assert suggested == ("cat", "dog")
    assert [Cifar10.published.classes.index(name) for name in suggested] == [3, 5]


def test_damaged_cifar10_is_refused(cifar10, message, tmp_path):
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"")
    assert "or its files are damaged" in message(Cifar10, root=tmp_path)
