"""The built-in datasets, manipulations and models, each against what can be counted."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

import cutk
from cutk_builtin.datasets.cifar10 import Cifar10
from cutk_builtin.datasets.digits import Digits
from cutk_builtin.datasets.fake import Fake
from cutk_builtin.manipulations.badnet import BadNet, corner_patch
from cutk_builtin.models.convnet_small import ConvNetSmall
from cutk_builtin.models.resnet9 import ResNet9


def test_digits_are_the_real_ones():
    splits = Digits().load()
    assert (len(splits.train), len(splits.test)) == (1442, 355)
    pixels = torch.cat([splits.train.pixels, splits.test.pixels])
    assert pixels.shape == (1797, 1, 8, 8)
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    # Class frequencies as UCI documents them for optdigits.tes.
    labels = torch.cat([splits.train.labels, splits.test.labels])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.bincount(splits.test.labels).min() >= 34


def test_fake_images_have_the_shape_asked_for_and_are_seeded():
    options = Fake.Options(samples=30, test_samples=12, classes=3, channels=3, size=16)
    first, second = Fake(options).load(), Fake(options).load()
    assert first.train.pixels.shape == (30, 3, 16, 16)
    assert len(first.test) == 12
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != Fake(options.model_copy(update={"seed": 1})).load().fingerprint()
    assert torch.bincount(first.train.labels).tolist() == [10, 10, 10]


def write_cifar10(root, monkeypatch, per_batch=20):
    """Write files in CIFAR-10's original format, and make torchvision expect their checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists, everything = {"train": [], "test": []}, []
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        data = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": data, "labels": [int(i) % 10 for i in range(per_batch)]})
        (folder / name).write_bytes(content)
        lists["test" if name == "test_batch" else "train"].append([name, hashlib.md5(content).hexdigest()])  # noqa: S324
        everything.append(data)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    content = pickle.dumps({"label_names": classes})
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", lists["train"])
    monkeypatch.setattr(CIFAR10, "test_list", lists["test"])
    digest = hashlib.md5(content).hexdigest()  # noqa: S324
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest})
    return np.concatenate(everything[:5])


def test_cifar10_is_read_from_files_of_the_original_format(tmp_path, monkeypatch):
    rows = write_cifar10(tmp_path, monkeypatch)
    splits = Cifar10(Cifar10.Options(root=tmp_path)).load()
    assert splits.train.pixels.shape == (100, 3, 32, 32)
    assert splits.test.pixels.shape == (20, 3, 32, 32)
    # A row is 1,024 red, 1,024 green, 1,024 blue values.
    np.testing.assert_array_equal(splits.train.pixels.numpy(), rows.reshape(-1, 3, 32, 32))
    assert splits.train.classes[3] == "cat"
    assert splits.train.labels[:12].tolist() == [*range(10), 0, 1]


def test_damaged_cifar10_is_refused(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    with pytest.raises(cutk.UsageError, match=r"not in .*, or its files are damaged.*--data-root DIR.*--download"):
        Cifar10(Cifar10.Options(root=tmp_path)).load()


def corrupt(images, seed=0, **options):
    return BadNet(BadNet.Options(**options)).corrupt(images, torch.Generator().manual_seed(seed))


def test_badnet_changes_labels_of_the_poisoned_alone(images_of):
    images = images_of(count=60, channels=3)
    corruption = corrupt(images, count=12, target=1)
    changed = (corruption.train.labels != images.labels).nonzero().flatten()
    assert len(corruption.manipulated) == 12
    assert set(changed.tolist()) <= set(corruption.manipulated.tolist())
    assert (corruption.train.labels[corruption.manipulated] == 1).all()
    assert torch.equal(corruption.train.pixels, images.pixels)  # the patch comes after augmentation
    assert corruption.target == 1
    assert corruption.affected_classes is None
    # Uniform over all classes, the target class included.
    assert {int(images.labels[i]) for i in corruption.manipulated} == {0, 1, 2}


def test_badnet_before_augmentation_lies_in_the_file(images_of):
    images = images_of(count=20, channels=3)
    corruption = corrupt(images, count=5, size=2, placement="before-augmentation")
    poisoned = corruption.manipulated
    assert corruption.stamp is None
    assert (corruption.train.pixels[poisoned][:, :, 6:, 6:] == 255).all()
    rest = torch.ones(20, dtype=torch.bool)
    rest[poisoned] = False
    assert torch.equal(corruption.train.pixels[rest], images.pixels[rest])
    assert torch.equal(corruption.train.pixels[:, :, :6], images.pixels[:, :, :6])


def test_the_patch_is_white_in_every_channel():
    patch = corner_patch((3, 32, 32), 3)
    stamped = patch.apply(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert int((stamped == 255).sum()) == 27
    assert (stamped[:, :, 29:, 29:] == 255).all()


def test_fraction_counts_the_samples_to_train_on(images_of):
    assert len(corrupt(images_of(count=200), fraction=0.03).manipulated) == 6
    assert len(corrupt(images_of(count=200), fraction=0.03, count=9).manipulated) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 61}, "expected 1 to 60 poisoned images, as many as there are to train on, got 61"),
        ({"fraction": 0.001}, "got 0"),
        ({"count": 5, "target": 3}, "'badnet.target': expected a class from 0 to 2, got 3"),
        ({"count": 5, "size": 9}, "'badnet.size': expected at most the images' 8 pixels, got 9"),
    ],
)
def test_badnet_refuses_what_does_not_fit(images_of, options, message):
    with pytest.raises(cutk.UsageError) as error:
        corrupt(images_of(count=60), **options)
    assert message in str(error.value)


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 32, 32), (4, 17, 9)])
def test_convnet_small_takes_any_channels_and_size(shape):
    model = ConvNetSmall().build(shape, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_convnet_small_refuses_smaller_images():
    with pytest.raises(cutk.UsageError, match="at least 8×8 pixels, got 7×9"):
        ConvNetSmall().build((1, 7, 9), 10)


def test_resnet9_has_the_parameters_that_its_layers_add_up_to():
    # Convolutions without bias, two parameters a channel in each batch norm, a linear layer without bias.
    convolutions = [(3, 64, 9), (64, 128, 25), (128, 128, 9), (128, 128, 9), (128, 256, 9)]
    convolutions += [(256, 256, 9), (256, 256, 9), (256, 128, 9)]
    by_hand = sum(i * o * k + 2 * o for i, o, k in convolutions) + 128 * 10
    assert count_parameters(ResNet9().build((3, 32, 32), 10)) == by_hand


def test_resnet9_follows_its_width_and_refuses_small_images():
    model = ResNet9(ResNet9.Options(width=0.5)).build((3, 32, 32), 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model[0][0].out_channels == 32
    assert ResNet9(ResNet9.Options(width=0.1)).build((1, 11, 11), 3)(torch.zeros(2, 1, 11, 11)).shape == (2, 3)
    with pytest.raises(cutk.UsageError, match="too deep for images of 10×10 pixels; it needs 11×11"):
        ResNet9().build((3, 10, 10), 10)
