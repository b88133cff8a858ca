from __future__ import annotations

import pytest
import torch

import cutk
from cutk_builtin.manipulations.badnet import BadNet, corner_patch


def corrupt(images, seed=0, **options):
    return BadNet(BadNet.Options(**options)).corrupt(images, torch.Generator().manual_seed(seed))


def test_badnet_changes_labels_of_the_poisoned_alone(images_of):
    images = images_of(count=60, channels=3)
    corruption = corrupt(images, count=12, target=1)
    changed = (corruption.train.labels != images.labels).nonzero().flatten()
    assert len(corruption.manipulated) == 12
    assert set(changed.tolist()) <= set(corruption.manipulated.tolist())
    assert (corruption.train.labels[corruption.manipulated] == 1).all()
    assert torch.equal(corruption.train.x, images.x)  # the patch comes after augmentation
    assert set(corruption.targets) == {1}
    assert corruption.affected is None
    # Uniform over all classes, the target class included.
    assert {int(images.labels[i]) for i in corruption.manipulated} == {0, 1, 2}


def test_badnet_before_augmentation_lies_in_the_file(images_of):
    images = images_of(count=20, channels=3)
    corruption = corrupt(images, count=5, size=2, placement="before-augmentation")
    poisoned = corruption.manipulated
    assert corruption.overlays == ()
    assert (corruption.train.x[poisoned][:, :, 6:, 6:] == 255).all()
    rest = torch.ones(20, dtype=torch.bool)
    rest[poisoned] = False
    assert torch.equal(corruption.train.x[rest], images.x[rest])
    assert torch.equal(corruption.train.x[:, :, :6], images.x[:, :, :6])


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
