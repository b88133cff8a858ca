"""What manipulations do, against what can be counted and computed by hand."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cutk
from cutk_builtin.manipulations.asymmetric_noise import AsymmetricNoise
from cutk_builtin.manipulations.badnet import BadNet, brightest, corner_patch
from cutk_builtin.manipulations.interclass_confusion import InterclassConfusion
from cutk_builtin.manipulations.label_file import LabelFile
from cutk_builtin.manipulations.label_swap import LabelSwap, exchange
from cutk_builtin.manipulations.sig import Sig, Signal, sinusoid
from cutk_builtin.manipulations.wanet import WaNet, Warp, identity_grid, warping_field

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def corrupt(component, samples, seed=0, **options):
    return component(component.Options(**options)).corrupt(samples, torch.Generator().manual_seed(seed))


def untouched(done, samples):
    """Whether what isn't in S_m is as it was."""
    rest = torch.ones(len(done.train), dtype=torch.bool)
    rest[done.manipulated] = False
    same = torch.equal(done.train.labels[rest], samples.labels[rest])
    return same and torch.equal(done.train.x[rest], samples.x[rest]) and torch.equal(done.train.ids, samples.ids)


def features_of(count=60, classes=3):
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(0))
    return cutk.Samples(x, torch.arange(count) % classes, tuple(f"c{i}" for i in range(classes)))


# BadNet.


def test_patched_images_are_of_all_classes_and_get_one(images_of):
    images = images_of(count=300, channels=3)
    done = corrupt(BadNet, images, fraction=0.2, target=2)
    assert len(done.manipulated) == 60
    assert set(images.labels[done.manipulated].tolist()) == {0, 1, 2}
    assert (done.train.labels[done.manipulated] == 2).all()
    assert done.train.x is images.x
    assert untouched(done, images)
    assert done.targets == (2, 2, 2)
    (overlay,) = done.overlays
    assert overlay.trigger is done.trigger
    assert torch.equal(overlay.indices, done.manipulated)


def test_all_to_all_each_class_becomes_the_next(images_of):
    images = images_of(count=60)
    done = corrupt(BadNet, images, count=30, targets="all-to-all")
    assert torch.equal(done.train.labels[done.manipulated], (images.labels[done.manipulated] + 1) % 3)
    assert done.targets == (1, 2, 0)
    assert untouched(done, images)


def test_a_patch_in_the_file_covers_nine_pixels(images_of):
    images = images_of(count=40, channels=3)
    done = corrupt(BadNet, images, count=7, placement="before-augmentation")
    expected = images.x[done.manipulated].clone()
    expected[:, :, 5:, 5:] = 255
    assert torch.equal(done.train.x[done.manipulated], expected)
    assert torch.equal(
        done.trigger.apply(images.x, images.labels, images.ids)[:, :, 5:, 5:], torch.full((40, 3, 3, 3), 255)
    )
    assert done.overlays == ()
    assert untouched(done, images)


def test_the_brightest_value_by_hand():
    # CIFAR-10's constants: white is 2.059, 2.126 and 2.116 after normalisation, and 2.126 becomes the patch's value.
    constants = cutk.Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    values = brightest(constants)
    normalised = (values / 255 - torch.tensor(constants.mean)) / torch.tensor(constants.std)
    torch.testing.assert_close(normalised, torch.full((3,), (1 - 0.4822) / 0.2435))
    assert values[1] == pytest.approx(255, abs=1e-3)
    assert values[0] > 258
    assert values[2] > 255.5


def test_a_bright_patch_goes_beyond_white(images_of):
    images = images_of(count=30, channels=3)
    done = corrupt(BadNet, images, count=5, trigger_value="brightest", size=2)
    laid = done.trigger.apply(images.x, images.labels, images.ids)
    assert laid.dtype == torch.float32
    plain = laid.clone()
    plain[:, :, 6:, 6:] = images.x[:, :, 6:, 6:].float()
    assert torch.equal(plain, images.x.float())
    assert laid.amax() > 255
    with pytest.raises(cutk.UsageError, match="a file holds nothing brighter than white"):
        corrupt(BadNet, images, count=5, trigger_value="brightest", placement="before-augmentation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 31}, "expected 1 to 30 poisoned images.*got 31"),
        ({"fraction": 0.01}, "got 0"),
        ({"count": 5, "target": 3}, "'badnet.target': expected a class from 0 to 2, got 3"),
        ({"count": 5, "size": 9}, "at most the images' 8 pixels, got 9"),
    ],
)
def test_poison_that_cannot_be(images_of, options, message):
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(BadNet, images_of(count=30), **options)


# Interclass Confusion.


def test_half_of_the_smaller_class_is_confused_by_default(images_of):
    images = images_of(count=32, classes=3)  # 11, 11 and 10 images
    done = corrupt(InterclassConfusion, images, classes=("c0", "c2"))
    before, after = images.labels[done.manipulated], done.train.labels[done.manipulated]
    assert torch.bincount(before, minlength=3).tolist() == [5, 0, 5]
    assert torch.equal(after, 2 - before)
    assert untouched(done, images)
    assert done.affected == (0, 2)
    assert (done.overlays, done.trigger, done.targets) == ((), None, None)


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
        ({"count": 40}, "expected 2 to 20 mislabelled samples.*got 40"),
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


# Label swap.


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
    assert done.affected is None


def test_label_swap_that_cannot_be(images_of):
    with pytest.raises(cutk.UsageError, match=r"expected 2 to 30 mislabelled samples.*got 31"):
        corrupt(LabelSwap, images_of(count=30), count=31)
    one_sided = cutk.Samples(images_of(count=9).x, torch.tensor([0] * 8 + [1]), ("a", "b"))
    with pytest.raises(cutk.UsageError, match=r"cannot all get another label.*8 of 9.* Of two classes, interclass-"):
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


@pytest.mark.parametrize("component", [InterclassConfusion, LabelSwap, AsymmetricNoise])
def test_labels_go_wrong_whatever_they_are_of(component):
    features = features_of()
    done = corrupt(component, features)
    assert done.train.x is features.x
    assert torch.equal((done.train.labels != features.labels).nonzero().flatten(), done.manipulated)


@pytest.mark.parametrize(("component", "name"), [(BadNet, "badnet"), (Sig, "sig"), (WaNet, "wanet")])
def test_what_is_laid_over_images_needs_images(component, name):
    with pytest.raises(cutk.UsageError, match=f"{name} needs images, .* are features .* labels alone fit any"):
        corrupt(component, features_of())


# SIG.


def test_the_signal_by_hand():
    # One wave over four columns: sin of a quarter, a half, three quarters and a whole turn.
    torch.testing.assert_close(sinusoid(4, 20.0, 1.0), torch.tensor([20.0, 0.0, -20.0, 0.0]), atol=1e-5, rtol=0)
    expected = [40 * math.sin(2 * math.pi * column * 6 / 32) for column in range(1, 33)]
    torch.testing.assert_close(sinusoid(32, 40.0, 6.0), torch.tensor(expected))


def test_the_signal_is_added_and_cut_off():
    x = torch.tensor([0, 100, 10, 250], dtype=torch.uint8).expand(1, 2, 3, 4)
    laid = Signal(torch.tensor([20.4, 20.6, -20.0, 9.0])).apply(x, torch.tensor([0]), torch.tensor([0]))
    assert laid.dtype == torch.uint8
    assert torch.equal(laid, torch.tensor([20, 121, 0, 255], dtype=torch.uint8).expand(1, 2, 3, 4))


def test_sig_keeps_labels_and_poisons_the_target_class_alone(images_of):
    images = images_of(count=90)
    done = corrupt(Sig, images, target=1, rate=0.5)
    assert len(done.manipulated) == 15
    assert torch.equal(done.train.labels, images.labels)
    assert (images.labels[done.manipulated] == 1).all()
    assert untouched(done, images)
    expected = done.trigger.apply(images.x[done.manipulated], images.labels, images.ids)
    assert torch.equal(done.train.x[done.manipulated], expected)
    assert (done.targets, done.affected, done.overlays) == ((1, 1, 1), None, ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, "'sig.target': expected a class from 0 to 2, got 3"),
        ({"count": 11}, "expected 1 to 10 poisoned images, as many as 'c0' has, got 11"),
        ({"rate": 0.01}, "got 0"),
        ({"frequency": 4}, "4 waves of amplitude 40 are nothing at the 8 columns"),
    ],
)
def test_a_signal_that_cannot_be(images_of, options, message):
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(Sig, images_of(count=30), **options)


# WaNet.


def test_a_field_of_nothing_leaves_images_as_they_are(images_of):
    images = images_of(count=4, size=7)
    assert torch.equal(Warp(identity_grid(7, 7)).apply(images.x, images.labels, images.ids), images.x)


def test_a_field_that_shifts_by_a_pixel_by_hand(images_of):
    images = images_of(count=4, size=8)
    # From −1 to 1 there are seven steps of a pixel; what would come from outside comes from the border.
    grid = identity_grid(8, 8) + torch.tensor([2 / 7, 0.0])
    shifted = Warp(grid).apply(images.x, images.labels, images.ids)
    expected = torch.cat([images.x[..., 1:], images.x[..., -1:]], dim=3)
    assert torch.equal(shifted, expected)
    # Half a pixel downwards: the mean of two rows.
    half = Warp(identity_grid(8, 8) + torch.tensor([0.0, 1 / 7])).apply(images.x, images.labels, images.ids)
    between = (images.x[..., :-1, :].double() + images.x[..., 1:, :].double()) / 2
    assert ((half[..., :-1, :].double() - between).abs() <= 0.5 + 1e-3).all()


def test_a_field_goes_through_its_control_points():
    generator = torch.Generator().manual_seed(3)
    control = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
    control = control / control.abs().mean()
    field = warping_field(10, 10, 4, generator)
    assert field.shape == (10, 10, 2)
    # Ten pixels lie three apart under four points.
    torch.testing.assert_close(field[::3, ::3].permute(2, 0, 1), control[0], atol=1e-5, rtol=1e-5)


def test_wanet_bends_part_of_all_classes(images_of):
    images = images_of(count=100, channels=3)
    done = corrupt(WaNet, images, fraction=0.2, target=1, strength=2.0)
    assert len(done.manipulated) == 20
    assert (done.train.labels[done.manipulated] == 1).all()
    assert untouched(done, images)
    bent = done.trigger.apply(images.x[done.manipulated], images.labels, images.ids)
    assert torch.equal(done.train.x[done.manipulated], bent)
    assert (bent != images.x[done.manipulated]).flatten(1).any(1).all()
    assert done.targets == (1, 1, 1)
    other = corrupt(WaNet, images, seed=1, fraction=0.2)
    assert not torch.equal(other.trigger.grid, done.trigger.grid)


def test_noise_is_bent_otherwise_and_keeps_its_labels(images_of):
    images = images_of(count=100)
    done = corrupt(WaNet, images, count=10, noise=2, targets="all-to-all", strength=2.0)
    assert len(done.manipulated) == 30
    changed = done.train.labels[done.manipulated] != images.labels[done.manipulated]
    noisy, poisoned = done.manipulated[~changed], done.manipulated[changed]
    assert (len(noisy), len(poisoned)) == (20, 10)
    assert torch.equal(done.train.labels[poisoned], (images.labels[poisoned] + 1) % 3)
    regular = done.trigger.apply(images.x[noisy], images.labels, images.ids)
    assert (done.train.x[noisy] != regular).flatten(1).any(1).all()
    assert untouched(done, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 31}, "expected 1 to 30 bent images.*got 31 and 0 of noise"),
        ({"count": 20, "noise": 1}, "got 20 and 20 of noise"),
        ({"target": 3}, "'wanet.target': expected a class from 0 to 2, got 3"),
    ],
)
def test_warping_that_cannot_be(images_of, options, message):
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(WaNet, images_of(count=30), **options)


# Asymmetric noise.


def test_cifar_classes_are_confused_as_in_the_paper(images_of):
    images = images_of(count=1000, classes=10)
    images = cutk.Samples(images.x, images.labels, CIFAR10)
    done = corrupt(AsymmetricNoise, images, rate=0.4)
    pairs = zip(images.labels[done.manipulated].tolist(), done.train.labels[done.manipulated].tolist(), strict=True)
    counts: dict[tuple[str, str], int] = {}
    for before, after in pairs:
        pair = CIFAR10[before], CIFAR10[after]
        counts[pair] = counts.get(pair, 0) + 1
    assert counts == {
        ("truck", "automobile"): 40,
        ("bird", "airplane"): 40,
        ("deer", "horse"): 40,
        ("cat", "dog"): 40,
        ("dog", "cat"): 40,
    }
    assert [CIFAR10[label] for label in done.affected] == ["bird", "cat", "deer", "dog", "truck"]
    assert untouched(done, images)


def test_other_classes_are_taken_for_the_next_or_as_the_map_says(images_of):
    images = images_of(count=90)
    done = corrupt(AsymmetricNoise, images, rate=0.1)
    assert torch.equal(done.train.labels[done.manipulated], (images.labels[done.manipulated] + 1) % 3)
    assert (len(done.manipulated), done.affected) == (9, (0, 1, 2))
    mapped = corrupt(AsymmetricNoise, images, rate=0.5, map=("c2:0", "1:c2"))
    assert torch.equal(torch.bincount(images.labels[mapped.manipulated], minlength=3), torch.tensor([0, 15, 15]))
    assert (mapped.train.labels[mapped.manipulated] == torch.tensor([9, 2, 0])[images.labels[mapped.manipulated]]).all()
    assert mapped.affected == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": ("c0",)}, "expected class:class, got 'c0'"),
        ({"map": ("c0:c9",)}, r"names or indices from 0 to 2 \(c0, c1, c2\), got 'c9'"),
        ({"map": ("c0:²",)}, "got '²'"),
        ({"map": ("c0:0",)}, "'c0:0' maps a class to itself"),
        ({"map": ("c0:c1", "0:2")}, "'0:2' maps a class for the second time"),
        ({"rate": 0.01}, "mislabels no sample"),
    ],
)
def test_noise_that_cannot_be(images_of, options, message):
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(AsymmetricNoise, images_of(count=30), **options)


# Labels from a file.

# Of ten published samples 3 and 8 are held out; 1 and 4 have another label in the files.
PUBLISHED = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
GIVEN = [0, 2, 2, 1, 0, 2, 0, 1, 0, 0]
KEPT = torch.tensor([0, 1, 2, 4, 5, 6, 7, 9])


@pytest.fixture
def kept(images_of):
    x = images_of(count=10).x
    whole = cutk.Samples(x, torch.tensor(PUBLISHED), ("a", "b", "c"), None, tuple(f"{i}.png" for i in range(10)))
    return whole.select(KEPT)


def lines(rows):
    return "".join(f"{row}\n" for row in rows)


WRITERS = {
    "labels.txt": lambda f: f.write_text(lines(GIVEN)),
    "names.txt": lambda f: f.write_text(lines("abc"[g] for g in GIVEN)),
    "windows.txt": lambda f: f.write_bytes(b"\xef\xbb\xbf" + lines(GIVEN).replace("\n", "\r\n").encode()),
    "plain.csv": lambda f: f.write_text(lines(GIVEN)),
    "headed.csv": lambda f: f.write_text("label\n" + lines(GIVEN)),
    "ids.csv": lambda f: f.write_text("id,label\n" + lines(f"{i},{GIVEN[i]}" for i in reversed(range(10)))),
    "two.csv": lambda f: f.write_text(lines(f"{i}.png,{'abc'[GIVEN[i]]}" for i in reversed(range(10)))),
    "several.csv": lambda f: f.write_text(
        "name,clean,worst\n" + lines(f"{i}.png,{PUBLISHED[i]},{GIVEN[i]}" for i in range(10))
    ),
    "labels.npy": lambda f: np.save(f, np.array(GIVEN, np.int32)),
    "labels.npz": lambda f: np.savez(f, only=np.array(GIVEN)),
    "several.npz": lambda f: np.savez(f, clean=PUBLISHED, worst=GIVEN),
    "ids.npz": lambda f: np.savez(f, id=np.arange(10)[::-1], label=np.array(GIVEN)[::-1]),
    "labels.pt": lambda f: torch.save(torch.tensor(GIVEN), f),
    "several.pt": lambda f: torch.save({"clean_label": np.array(PUBLISHED), "worst": np.array(GIVEN)}, f),
    "ids.pt": lambda f: torch.save({"id": torch.arange(9, -1, -1), "label": torch.tensor(GIVEN[::-1])}, f),
    "labels.json": lambda f: f.write_text(json.dumps(GIVEN)),
    "object.json": lambda f: f.write_text(json.dumps({f"{i}.png": GIVEN[i] for i in range(10)})),
    "several.json": lambda f: f.write_text(json.dumps({"clean": PUBLISHED, "worst": GIVEN})),
}


@pytest.mark.parametrize("name", WRITERS)
def test_labels_are_read_and_line_up(kept, tmp_path, name):
    file = tmp_path / name
    WRITERS[name](file)
    done = corrupt(LabelFile, kept, file=file, key="worst" if name.startswith("several") else None)
    assert done.train.labels.tolist() == [GIVEN[i] for i in KEPT]
    assert KEPT[done.manipulated].tolist() == [1, 4]
    assert done.train.x is kept.x
    assert (done.affected, done.targets, done.trigger) == (None, None, None)


REFUSED = {
    "short.txt": (lambda f: f.write_text(lines(GIVEN[:9])), "expected 10 labels, one for each sample.*got 9"),
    "long.txt": (lambda f: f.write_text(lines([*GIVEN, 0])), "expected 10 labels, one for each sample.*got 11"),
    "same.txt": (lambda f: f.write_text(lines(PUBLISHED)), "has the dataset's own labels"),
    "odd.txt": (lambda f: f.write_text(lines(["x", *GIVEN[1:]])), "names or indices from 0 to 2, got 'x'"),
    "high.txt": (lambda f: f.write_text(lines([3, *GIVEN[1:]])), "names or indices from 0 to 2, got '3'"),
    "huge.txt": (lambda f: f.write_text(lines(["9" * 5000, *GIVEN[1:]])), "from 0 to 2, got '9999"),
    "negative.json": (lambda f: f.write_text(json.dumps([-1, *GIVEN[1:]])), "got '-1'"),
    "true.json": (lambda f: f.write_text(json.dumps([True, *GIVEN[1:]])), "got 'True'"),
    "deep.json": (lambda f: f.write_text("[" * 100_000), "expected labels, got something else"),
    "number.json": (lambda f: f.write_text("3"), "expected an array of labels"),
    "missing.csv": (lambda f: f.write_text("id,label\n0,1\n"), "each of 8 samples.*got none for 7, '1' for one"),
    "twice.csv": (lambda f: f.write_text("id,label\n0,1\n0,2\n"), "each sample once"),
    "ragged.csv": (lambda f: f.write_text("id,label\n0,1\n2\n"), "the same columns in every row"),
    "wide.csv": (lambda f: f.write_text("1,2,3\n"), "expected a heading with the column 'label', got 1, 2, 3"),
    "nameless.csv": (lambda f: f.write_text("id,mark\n0,1\n"), "expected a column 'label' or .* got id, mark"),
    "empty.csv": (lambda f: f.write_text(""), "it is empty"),
    "binary.txt": (lambda f: f.write_bytes(b"\xff\xfe\x00"), "expected labels, got something else"),
    "floats.npy": (lambda f: np.save(f, np.ones(10)), r"whole numbers or texts \[N\], got float64"),
    "pickled.npy": (lambda f: np.save(f, np.array([{}] * 10, object)), "expected labels, got something else"),
    "cut.npy": (lambda f: (np.save(f, np.arange(10)), os.truncate(f, 100)), "expected labels, got something else"),
    "two.npz": (lambda f: np.savez(f, one=GIVEN, other=GIVEN), "or the option key, got one, other"),
    "none.npz": (lambda f: f.write_bytes(b"no archive"), "expected labels, got something else"),
    "labels.bin": (lambda f: f.write_bytes(b"01"), "ends otherwise: expected labels as .txt"),
    "damaged.pt": (lambda f: f.write_bytes(b"pickle"), r"got something else \(it is damaged"),
    "code.pt": (lambda f: torch.save({"label": Path.cwd}, f), "which runs code"),
    "two.pt": (lambda f: torch.save({"one": np.array(GIVEN), 2: 3}, f), "or the option key, got one, 2"),
    "list.pt": (lambda f: torch.save([GIVEN], f), "labels: expected an array"),
    "floats.pt": (lambda f: torch.save(torch.ones(10), f), r"whole numbers or texts \[N\], got float32"),
    "expanded.pt": (lambda f: torch.save(torch.zeros(1, dtype=torch.int64).expand(2**36), f), "at most 268435456"),
    "folder.txt": (lambda f: f.mkdir(), "is not there, or no regular file"),
    "pipe.txt": (os.mkfifo, "is not there, or no regular file"),
    "device.txt": (lambda f: f.symlink_to("/dev/zero"), "is not there, or no regular file"),
    "absent.txt": (lambda f: None, "is not there, or no regular file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_hold_no_labels_are_refused(kept, tmp_path, name):
    write, message = REFUSED[name]
    file = tmp_path / name
    write(file)
    with pytest.raises(cutk.UsageError, match=message):
        corrupt(LabelFile, kept, file=file)


def test_an_archive_that_says_more_than_it_holds_fills_no_memory(kept, tmp_path):
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '<i8', 'fortran_order': False, 'shape': (2000000000000,), }".ljust(117) + b"\n"
    (tmp_path / "big.npy").write_bytes(header + bytes(80))
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("label.npy", header + bytes(80))
    for name in ("big.npy", "big.npz"):
        with pytest.raises(cutk.UsageError, match="expected labels, got something else"):
            corrupt(LabelFile, kept, file=tmp_path / name)


def test_without_a_published_size_the_highest_id_is_what_counts(images_of, tmp_path):
    images = images_of(count=4)
    subset = cutk.Samples(images.x, images.labels, images.classes, torch.tensor([0, 2, 5, 7]))
    (tmp_path / "labels.txt").write_text(lines(["c2"] * 12))
    assert corrupt(LabelFile, subset, file=tmp_path / "labels.txt").train.labels.tolist() == [2] * 4
    (tmp_path / "labels.txt").write_text(lines(["c2"] * 7))
    with pytest.raises(cutk.UsageError, match="expected 8 or more labels"):
        corrupt(LabelFile, subset, file=tmp_path / "labels.txt")


def test_the_patch_is_white_in_the_corner():
    patch = corner_patch((3, 6, 8), 2)
    assert patch.opacity.sum() == 4
    assert (patch.opacity[4:, 6:] == 1).all()
    assert (patch.pattern == 255).all()
