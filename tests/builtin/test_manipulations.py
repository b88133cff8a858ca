"""Interclass Confusion and label swap, against what can be counted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cutk
from cutk_builtin.manipulations.interclass_confusion import InterclassConfusion
from cutk_builtin.manipulations.label_swap import LabelSwap, exchange


def corrupt(component, images, seed=0, **options):
    return component(component.Options(**options)).corrupt(images, torch.Generator().manual_seed(seed))


def test_half_of_the_smaller_class_is_confused_by_default(images_of):
    images = images_of(count=32, classes=3)  # 11, 11 and 10 images
    done = corrupt(InterclassConfusion, images, classes=("c0", "c2"))
    before, after = images.labels[done.manipulated], done.train.labels[done.manipulated]
    assert torch.bincount(before, minlength=3).tolist() == [5, 0, 5]
    assert torch.equal(after, 2 - before)
    untouched = torch.ones(32, dtype=torch.bool)
    untouched[done.manipulated] = False
    assert torch.equal(done.train.labels[untouched], images.labels[untouched])
    assert torch.equal(done.train.pixels, images.pixels)
    assert done.affected_classes == (0, 2)
    assert (done.stamp, done.trigger, done.target) == (None, None, None)


def test_classes_by_index_and_by_name_are_the_same(images_of):
    images = images_of(count=30)
    by_name = corrupt(InterclassConfusion, images, classes=("c1", "c2"), count=4)
    by_index = corrupt(InterclassConfusion, images, classes=("1", "2"), count=4)
    assert torch.equal(by_name.manipulated, by_index.manipulated)
    assert len(by_name.manipulated) == 4


def test_a_fraction_is_one_of_the_whole_training_set(images_of):
    done = corrupt(InterclassConfusion, images_of(count=100, classes=4), fraction=0.1)
    assert len(done.manipulated) == 10


def test_images_are_drawn_anew_for_each_seed_or_the_first_are_taken(images_of):
    images = images_of(count=60)
    drawn = {tuple(corrupt(InterclassConfusion, images, seed=s, count=6).manipulated.tolist()) for s in range(5)}
    assert len(drawn) == 5
    first = corrupt(InterclassConfusion, images, count=6, selection="first").manipulated
    assert first.tolist() == [0, 1, 3, 4, 6, 7]  # labels go 0, 1, 2, 0, 1, 2, …


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("c0", "cx")}, r"names or indices from 0 to 2 \(c0, c1, c2\), got 'cx'"),
        ({"classes": ("c0", "3")}, "got '3'"),
        ({"classes": ("c1", "1")}, "expected two different classes, got 'c1' twice"),
        ({"count": 40}, "expected 2 to 20 mislabelled images.*got 40"),
        ({"fraction": 0.01}, "got 0"),
    ],
)
def test_confusion_that_cannot_be(images_of, options, message):
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(InterclassConfusion, images_of(count=30), **options)


def test_confused_classes_on_the_command_line(run):
    common = ("bench", "-d", "fake", "-u", "none", "-m", "interclass-confusion", "--dry-run")
    assert run(*common, "-o", "interclass-confusion.classes=class-1,3").code == 0
    odd = run(*common, "-o", "interclass-confusion.count=3")
    assert odd.code == 2
    assert "Option 'interclass-confusion.count': expected" in odd.err
    single = run(*common, "-o", "interclass-confusion.classes=1")
    assert single.code == 2
    assert "interclass-confusion.classes" in single.err


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 2**31))
def test_exchanged_labels_are_the_same_ones_and_all_wrong(labels, seed):
    given_labels = torch.tensor(labels)
    if 2 * int(torch.bincount(given_labels).max()) > len(labels):
        with pytest.raises(ValueError, match="more than half"):
            exchange(given_labels, torch.Generator().manual_seed(seed))
        return
    swapped = exchange(given_labels, torch.Generator().manual_seed(seed))
    assert torch.equal(swapped.sort().values, given_labels.sort().values)
    assert not (swapped == given_labels).any()


def test_label_swap_changes_what_it_says(images_of):
    images = images_of(count=90)
    done = corrupt(LabelSwap, images, fraction=0.2)
    changed = (done.train.labels != images.labels).nonzero().flatten()
    assert torch.equal(changed, done.manipulated)
    assert len(changed) == 18
    assert torch.equal(torch.bincount(done.train.labels), torch.bincount(images.labels))
    assert done.affected_classes is None


def test_label_swap_that_cannot_be(images_of):
    with pytest.raises(cutk.UsageError, match=r"expected 2 to 30 mislabelled images.*got 31"):
        corrupt(LabelSwap, images_of(count=30), count=31)
    one_sided = cutk.Images(images_of(count=9).pixels, torch.tensor([0] * 8 + [1]), ("a", "b"))
    with pytest.raises(cutk.UsageError, match=r"cannot all get another label.*8 of 9"):
        corrupt(LabelSwap, one_sided, count=9)


def test_a_label_swap_affects_everything_and_leaves_no_retain_accuracy(run):
    ran = run(
        *("bench", "-d", "fake", "-u", "none", "-m", "label-swap", "--alpha", "1", "--seeds", "1", "--json"),
        *("--recipe", "steps=10"),
    )
    assert ran.code == 0, ran.err
    for record in ran.json["records"]:
        assert "corrected_accuracy" in record["metrics"]
        assert "retain_accuracy" not in record["metrics"]
        assert record["breakdowns"]["retain_class_accuracy"] == {}
