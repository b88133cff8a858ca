from __future__ import annotations

import hashlib

import numpy as np
import pytest
from torchvision.datasets import SVHN

from cutk_builtin.datasets.svhn import Svhn


@pytest.fixture
def svhn(tmp_path, monkeypatch, noise):
    from scipy.io import savemat

    written, expected = {}, {}
    for seed, (split, count) in enumerate([("train", 31), ("test", 12)]):
        # MATLAB counts from 1: the digit 0 is class 10.
        labels = np.array([1 + i % 10 for i in range(count)], np.uint8)
        written[split] = noise(32, 32, 3, count, seed=seed), labels
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": written[split][0], "y": labels[:, None]}, do_compression=True)
        expected[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]  # noqa: S324
    monkeypatch.setattr(SVHN, "split_list", expected)
    return written


def test_svhn_is_read_and_its_tenth_class_is_the_digit_0(svhn, load, tmp_path):
    splits = load(Svhn, root=tmp_path)
    for part, (pixels, labels) in ((splits.train, svhn["train"]), (splits.test, svhn["test"])):
        assert part.x.shape == (len(labels), 3, 32, 32)
        for i in (0, 5, len(labels) - 1):
            for channel in range(3):
                np.testing.assert_array_equal(part.x[i, channel].numpy(), pixels[:, :, channel, i])
        assert part.labels.tolist() == [int(label) % 10 for label in labels]
    assert [splits.train.classes[i] for i in splits.train.labels[:10]] == list("1234567890")
    assert splits.train.x.is_contiguous()


def test_damaged_svhn_is_refused(svhn, message, tmp_path):
    file = tmp_path / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:-20])
    assert "or its files are damaged" in message(Svhn, root=tmp_path)
