"""The datasets that are shipped: as published, and with their licences."""

from __future__ import annotations

import pytest
import torch

from cutk_builtin.datasets import breast_cancer, digits
from cutk_builtin.datasets.breast_cancer import BreastCancer
from cutk_builtin.datasets.digits import Digits


@pytest.mark.parametrize(
    ("component", "train", "test"), [(Digits, 1442, 355), (BreastCancer, 456, 113)], ids=["digits", "breast-cancer"]
)
def test_every_fifth_of_each_class_is_for_testing(component, train, test):
    splits = component().load()
    assert (len(splits.train), len(splits.test)) == (train, test)
    ids, order = torch.cat([splits.train.ids, splits.test.ids]).sort()
    assert ids.tolist() == list(range(train + test))
    labels = torch.cat([splits.train.labels, splits.test.labels])[order]
    testing = torch.isin(ids, splits.test.ids)
    for label in range(len(splits.train.classes)):
        members = testing[labels == label].tolist()
        assert [i for i, chosen in enumerate(members) if chosen] == list(range(4, len(members), 5))


@pytest.mark.parametrize("module", [digits, breast_cancer])
def test_its_licence_lies_beside_it(module):
    text = module.FILE.with_name(module.FILE.stem + ".LICENSE.md").read_text(encoding="utf-8")
    assert "Creative Commons Attribution 4.0 International (CC BY 4.0)" in text
    assert "Changes: " in text


def test_digits_are_the_real_ones():
    splits = Digits().load()
    x = torch.cat([splits.train.x, splits.test.x])
    assert x.shape == (1797, 1, 8, 8)
    assert (int(x.min()), int(x.max())) == (0, 255)
    # Class frequencies as UCI documents them for optdigits.tes.
    labels = torch.cat([splits.train.labels, splits.test.labels])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.bincount(splits.test.labels).min() >= 34


def test_breast_cancer_is_what_was_published():
    splits = BreastCancer().load()
    samples = splits.train
    # The first line of the file: 842302,M,17.99,10.38,122.8,1001,0.1184,…,0.1189
    torch.testing.assert_close(samples.x[0, :5], torch.tensor([17.99, 10.38, 122.8, 1001, 0.1184]))
    torch.testing.assert_close(samples.x[0, -1], torch.tensor(0.1189))
    assert samples.classes[samples.labels[0]] == "malignant"
    counts = sum(torch.bincount(part.labels) for part in (splits.train, splits.test))
    assert dict(zip(samples.classes, counts.tolist(), strict=True)) == {"malignant": 212, "benign": 357}
    assert samples.form == "features"
    # What its authors' summary says of the radius: from 6.981 to 28.11.
    radius = torch.cat([splits.train.x, splits.test.x])[:, 0]
    torch.testing.assert_close(torch.stack([radius.min(), radius.max()]), torch.tensor([6.981, 28.11]))
