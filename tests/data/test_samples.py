from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutk
from cutk.components import Published
from cutk.data.samples import Normalisation, Samples, Splits

FORMS = ["images", "features", "tokens"]
SHAPES = {"images": (3, 8, 8), "features": (5,), "tokens": (6,)}


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_any_form_know_what_they_are(samples_of, form):
    samples = samples_of(form=form)
    assert (samples.form, samples.shape, len(samples)) == (form, SHAPES[form], 10)
    assert samples.ids.tolist() == list(range(10))
    samples.require(form, "It")
    for other in set(FORMS) - {form}:
        with pytest.raises(cutk.UsageError, match=f"^It needs {other}, and these samples are {form} "):
            samples.require(other, "It")


X = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X.float()}, r"Expected x as uint8 \[N, C, H, W\] .*, got float32 \[2, 1, 2, 2\]"),
        ({"x": torch.zeros(2, 3, dtype=torch.float64)}, r"got float64 \[2, 3\]"),
        ({"x": torch.zeros(2, 3, dtype=torch.int32)}, r"got int32 \[2, 3\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"Expected labels int64 \[2\], got int64 \[3\]"),
        ({"labels": torch.zeros(2)}, r"Expected labels int64 \[2\], got float32 \[2\]"),
        ({"labels": torch.tensor([0, 2])}, "Expected labels from 0 to 1, got 0 to 2"),
        ({"labels": torch.tensor([-1, 1])}, "Expected labels from 0 to 1, got -1 to 1"),
        ({"ids": torch.tensor([0])}, r"Expected ids int64 \[2\], got int64 \[1\]"),
        ({"ids": torch.tensor([4, 4])}, "Expected ids without repeats"),
        ({"names": ("a",)}, "Expected 2 names, got 1"),
    ],
)
def test_malformed_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Samples(**{"x": X, "labels": LABELS, "classes": ("a", "b"), **arguments})


@settings(max_examples=50)
@given(data=st.data(), count=st.integers(1, 12), form=st.sampled_from(FORMS))
def test_ids_and_names_follow_their_samples_through_selections(data, count, form):
    x = {
        "images": torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1),
        "features": torch.arange(count, dtype=torch.float32).view(-1, 1),
        "tokens": torch.arange(count).view(-1, 1),
    }[form]
    samples = Samples(x, torch.arange(count) % 2, ("a", "b"), names=tuple(f"{i}.png" for i in range(count)))
    for _ in range(3):
        if data.draw(st.booleans()):
            mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(samples), max_size=len(samples))))
            samples = samples.select(mask.bool())
        else:
            order = data.draw(st.permutations(range(len(samples))))
            samples = samples.select(torch.tensor(order[: data.draw(st.integers(0, len(order)))], dtype=torch.int64))
        assert samples.x.flatten().tolist() == samples.ids.tolist()
        assert samples.labels.tolist() == [i % 2 for i in samples.ids.tolist()]
        assert samples.names == tuple(f"{i}.png" for i in samples.ids.tolist())
        samples.digest()


def test_a_selection_is_a_copy(samples_of):
    samples = samples_of()
    samples.select(torch.arange(10)).x.zero_()
    assert samples.x.any()


def test_changed_samples_keep_ids_and_names(samples_of):
    samples = samples_of(ids=torch.arange(10) * 7, names=tuple("abcdefghij"))
    changed = samples.changed(labels=2 - samples.labels)
    assert torch.equal(changed.ids, samples.ids)
    assert changed.names == samples.names
    assert changed.x is samples.x
    assert changed.labels.tolist() == [2 - i % 3 for i in range(10)]
    with pytest.raises(ValueError, match="Expected labels from 0 to 2"):
        samples.changed(labels=samples.labels + 1)


def test_added_samples_have_ids_that_nobody_has_had(samples_of):
    samples = samples_of(names=tuple("abcdefghij")).select(torch.tensor([9, 3]))
    more = samples.extended(samples.x, torch.tensor([1, 1]))
    assert more.ids.tolist() == [9, 3, 10, 11]
    assert more.names == ("j", "d", "added-0", "added-1")
    assert more.labels.tolist() == [0, 0, 1, 1]


def test_images_is_the_old_name(samples_of):
    with pytest.warns(DeprecationWarning, match=r"cutk\.Samples"):
        old = cutk.Images(X, LABELS, ("a", "b"))
    with pytest.warns(DeprecationWarning, match="called x since"):
        assert old.pixels is X


# Normalisation.


def test_normalisation_of_images_equals_numpy(samples_of):
    samples = samples_of(count=20)
    measured = Normalisation.of(samples)
    scaled = samples.x.numpy() / 255
    np.testing.assert_allclose(measured.mean, scaled.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(measured.std, scaled.std((0, 2, 3)), rtol=1e-9)


def test_normalisation_of_features_equals_numpy(samples_of):
    samples = samples_of(count=20, form="features")
    measured = Normalisation.of(samples)
    np.testing.assert_allclose(measured.mean, samples.x.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(measured.std, samples.x.double().numpy().std(0), rtol=1e-12)


def test_what_never_varies_gets_the_standard_deviation_one(samples_of):
    images = Samples(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ("a",))
    assert Normalisation.of(images).std == (1.0,)
    features = Samples(torch.full((4, 2), 7.0), torch.zeros(4, dtype=torch.int64), ("a",))
    assert Normalisation.of(features).std == (1.0, 1.0)
    assert Normalisation.of(samples_of(form="tokens")) == Normalisation((), ())


# Splits.


@pytest.mark.parametrize("form", FORMS)
def test_the_fingerprint_changes_with_anything(samples_of, form):
    def fingerprint(**changes):
        samples = samples_of(form=form)
        for name, value in changes.items():
            getattr(samples, name)[0] = value
        return Splits(samples, samples_of(form=form, seed=1)).fingerprint()

    samples, test = samples_of(form=form), samples_of(form=form, seed=1)
    others = [
        fingerprint(x=0),
        fingerprint(labels=2),
        fingerprint(ids=77),
        Splits(samples_of(form=form, names=tuple("abcdefghij")), test).fingerprint(),
        Splits(samples, test, validation=samples).fingerprint(),
        Splits(samples, samples).fingerprint(),
        Splits(samples, test, normalisation=Normalisation((0.0,), (1.0,))).fingerprint(),
    ]
    assert fingerprint() == fingerprint()
    assert len({fingerprint(), *others}) == 8


def test_a_split_is_stratified_seeded_and_complete(samples_of):
    samples = samples_of(count=91)  # 31, 30 and 30 of a class
    splits = Splits.of(samples, 0.3, seed=5)
    assert torch.bincount(splits.test.labels).tolist() == [9, 9, 9]
    assert torch.bincount(splits.train.labels).tolist() == [22, 21, 21]
    assert splits.validation is None
    train, test = splits.train.ids.tolist(), splits.test.ids.tolist()
    assert sorted(train + test) == list(range(91))
    assert (train, test) == (sorted(train), sorted(test))
    assert torch.equal(splits.train.x, samples.x[splits.train.ids])
    assert splits.fingerprint() == Splits.of(samples, 0.3, seed=5).fingerprint()
    assert splits.fingerprint() != Splits.of(samples, 0.3, seed=6).fingerprint()


@pytest.mark.parametrize(("fraction", "testing"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_a_class_is_never_all_on_one_side(samples_of, fraction, testing):
    splits = Splits.of(samples_of(count=8, classes=2), fraction, seed=0)
    assert torch.bincount(splits.test.labels, minlength=2).tolist() == [testing] * 2
    assert torch.bincount(splits.train.labels, minlength=2).tolist() == [4 - testing] * 2


def test_a_class_of_one_sample_cannot_be_split(samples_of):
    with pytest.raises(cutk.UsageError, match=r"Class 'c2': expected at least 2 samples, .*, got 1"):
        Splits.of(samples_of(count=6).select(torch.arange(5)), 0.5, seed=0)


@pytest.mark.parametrize(("shape", "form"), [((3, 4, 4), "images"), ((7,), "features")])
def test_blank_samples_stand_for_those_that_are_not_there(shape, form):
    splits = Splits.blank(Published(train=9, test=4, shape=shape, classes=("a", "b")))
    assert (len(splits.train), len(splits.test), splits.validation) == (9, 4, None)
    assert (splits.train.form, splits.train.shape, splits.train.classes) == (form, shape, ("a", "b"))
    assert torch.bincount(splits.train.labels).tolist() == [5, 4]
    assert len(Splits.blank(Published(9, 4, shape, ("a", "b"), validation=3)).validation) == 3


# Reading published files.


def refused(error, root, expected, download=False):
    with pytest.raises(cutk.UsageError) as raised, Splits.reading("X", root, expected, download):
        raise error
    assert "\n" not in str(raised.value)
    return str(raised.value)


def fetching(root, expected, *files):
    """A download that makes folders and some files, and then fails."""
    with Splits.reading("X", root, expected, download=True):
        expected.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.write_text("what came before the network went")
        raise OSError("no network")


def test_a_failed_download_leaves_no_empty_folder(tmp_path):
    root = tmp_path / "new" / "data"
    (tmp_path / "kept").mkdir()  # was there before
    with pytest.raises(cutk.UsageError):
        fetching(root, root / "x" / "raw")
    assert [place.name for place in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(cutk.UsageError):
        fetching(root, root / "x" / "raw", root / "x" / "half")
    assert [place.name for place in (root / "x").iterdir()] == ["half"]
    with pytest.raises(cutk.UsageError):
        fetching(tmp_path, tmp_path / "kept")
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize(
    "error", [OSError("no\nfile"), KeyError("x"), ValueError("short"), EOFError(), AssertionError(), MemoryError()]
)
def test_what_readers_raise_becomes_advice(error, tmp_path):
    assert refused(error, tmp_path, tmp_path / "x") == (
        f"X is not in '{tmp_path}', or its files are damaged: expected '{tmp_path / 'x'}'. "
        "Give its folder with --data-root DIR, or let it be fetched with --download."
    )
    assert "cannot be fetched into" in refused(error, tmp_path, tmp_path / "x", download=True)


def test_a_bug_is_not_taken_for_missing_files(tmp_path):
    with pytest.raises(ZeroDivisionError), Splits.reading("X", tmp_path, tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize("barred", ["a", "a/b", "a/b/file"])
@pytest.mark.parametrize("root", ["a", "."])
def test_what_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch, barred, root):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: Path(path) != tmp_path / barred and access(path, mode, **more)
    )
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    assert refused(PermissionError(13, "no"), tmp_path / root, tmp_path / "a" / "b") == (
        f"X cannot be read: permission to read '{tmp_path / barred}' is denied. "
        "Change that, or give another folder with --data-root DIR."
    )
