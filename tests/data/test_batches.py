from __future__ import annotations

import copy
import hashlib
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutk
from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.data.samples import Samples
from cutk.data.triggers import Overlay, Stamp, Trigger

FORMS = ["images", "features", "tokens"]
# Computed with commit 08ca627.
GIVEN = "06180a236d0336de645441a8914817c48a24f51ad13c911c5db68f1643a8b1de"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Augmentation.


def naive_augment(pixels, pad, generator, flip):
    """One image at a time, with slices, from the same draws."""
    count, channels, height, width = pixels.shape
    shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < (0.5 if flip else 0.0)
    result = []
    for i in range(count):
        canvas = np.zeros((channels, height + 2 * pad, width + 2 * pad), np.uint8)
        canvas[:, pad : pad + height, pad : pad + width] = pixels[i].numpy()
        top, left = int(shift[0, i]), int(shift[1, i])
        crop = canvas[:, top : top + height, left : left + width]
        result.append(torch.from_numpy((crop[:, :, ::-1] if mirrored[i] else crop).copy()))
    return torch.stack(result)


@settings(max_examples=25)
@given(pad=st.integers(0, 4), flip=st.booleans(), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_augmentation_equals_cropping_and_flipping_each_image(pad, flip, channels, seed):
    pixels = torch.randint(0, 256, (5, channels, 6, 7), dtype=torch.uint8)
    fast = Augmentation(pad, flip).apply(pixels, seeded(seed))
    assert torch.equal(fast, naive_augment(pixels, pad, seeded(seed), flip))


def test_half_of_the_images_are_flipped_and_all_shifts_occur():
    pixels = torch.zeros(4000, 1, 3, 3, dtype=torch.uint8)
    pixels[:, 0, 1, 0] = 1
    shifted = Augmentation(1, True).apply(pixels, seeded())
    seen = {tuple(map(int, where)) for where in (shifted[:, 0] == 1).nonzero()[:, 1:]}
    assert seen == {(row, column) for row in range(3) for column in range(3)}
    flipped = Augmentation(0, True).apply(pixels, seeded())
    assert 0.47 < float((flipped[:, 0, 1, 2] == 1).double().mean()) < 0.53


@pytest.mark.parametrize("form", ["features", "tokens"])
def test_only_images_are_augmented(samples_of, plain_set, form):
    held = plain_set(samples_of(form=form), augmentation=Augmentation(4, True))
    assert not held.augments
    state = held.generator.get_state()
    (augmented,), (plain,) = held.batches(augment=True), held.batches()
    assert torch.equal(augmented.x, plain.x)
    assert torch.equal(held.generator.get_state(), state)


# What a batch holds.


def test_images_are_normalised_and_in_channels_last_layout(samples_of):
    samples = samples_of(count=6)
    normalisation = cutk.Normalisation((0.2, 0.4, 0.5), (0.5, 0.25, 0.1))
    (batch,) = ResidentTrainSet(samples, normalisation).batches()
    mean = torch.tensor(normalisation.mean).view(-1, 1, 1)
    std = torch.tensor(normalisation.std).view(-1, 1, 1)
    torch.testing.assert_close(batch.x, (samples.x / 255 - mean) / std)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.y, samples.labels)
    assert torch.equal(batch.index, torch.arange(6))


def test_features_are_normalised(samples_of):
    samples = samples_of(form="features")
    (batch,) = ResidentTrainSet(samples, cutk.Normalisation.of(samples)).batches()
    x = samples.x.double()
    torch.testing.assert_close(batch.x, ((x - x.mean(0)) / x.std(0, correction=0)).float())


def test_a_feature_far_from_zero_keeps_its_digits():
    x = torch.arange(100.0).view(-1, 1) % 10 + 1e6
    samples = Samples(x, torch.arange(100) % 2, ("a", "b"))
    (batch,) = ResidentTrainSet(samples, cutk.Normalisation.of(samples)).batches()
    exact = (x.double() - x.double().mean()) / x.double().std(correction=0)
    torch.testing.assert_close(batch.x.double(), exact, rtol=1e-6, atol=1e-6)


def test_tokens_are_given_as_they_are(samples_of, plain_set):
    samples = samples_of(form="tokens")
    (batch,) = plain_set(samples).batches()
    assert batch.x.dtype == torch.int64
    assert torch.equal(batch.x, samples.x)


@pytest.mark.parametrize(("form", "means", "expected"), [("images", 1, 3), ("features", 3, 5), ("tokens", 1, 0)])
def test_a_normalisation_of_another_length_is_refused(samples_of, form, means, expected):
    with pytest.raises(ValueError, match=f"Expected a normalisation with {expected} means .*, got {means} and {means}"):
        ResidentTrainSet(samples_of(form=form), cutk.Normalisation((0.0,) * means, (1.0,) * means))


def test_the_default_dtype_of_the_process_is_not_asked(samples_of, plain_set):
    torch.set_default_dtype(torch.float64)
    try:
        (batch,) = plain_set().batches()
    finally:
        torch.set_default_dtype(torch.float32)
    assert batch.x.dtype == torch.float32


# Which samples come when.


def test_one_pass_visits_every_sample_once(plain_set):
    held = plain_set()
    seen = torch.cat([batch.index for batch in held.batches(batch_size=4, shuffle=True)])
    assert [len(batch.index) for batch in held.batches(batch_size=4)] == [4, 4, 2]
    assert torch.equal(seen.sort().values, torch.arange(10))
    assert held.drawn == 20


@settings(max_examples=40)
@given(count=st.integers(1, 12), size=st.integers(1, 15), steps=st.integers(1, 12), shuffle=st.booleans())
def test_steps_yield_full_batches_over_whole_passes(count, size, steps, shuffle):
    samples = Samples(torch.zeros(20, 1), torch.zeros(20, dtype=torch.int64), ("a",))
    held = ResidentTrainSet(samples, cutk.Normalisation((0.0,), (1.0,)))
    chosen = torch.randperm(20, generator=seeded(count))[:count]
    batches = list(held.batches(chosen, size, shuffle=shuffle, steps=steps))
    assert [len(batch.index) for batch in batches] == [min(size, count)] * steps
    visits = torch.cat([batch.index for batch in batches])
    for start in range(0, len(visits) - count + 1, count):
        one = visits[start : start + count]
        assert torch.equal(one.sort().values, chosen.sort().values) if shuffle else torch.equal(one, chosen)
    assert max(Counter(visits.tolist()).values()) == -(-len(visits) // count)


def test_one_seed_gives_one_order(plain_set):
    def order(seed):
        return [b.index.tolist() for b in plain_set().batches(None, 3, shuffle=True, generator=seeded(seed))]

    assert order(1) == order(1) != order(2)


def test_a_seed_gives_the_batches_that_it_gave_in_version_0_1():
    pixels = (torch.arange(23 * 3 * 6 * 6) * 37 % 251).to(torch.uint8).view(23, 3, 6, 6)
    samples = Samples(pixels, torch.arange(23) % 4, tuple("abcd"))
    stamp = Stamp(torch.full((3, 6, 6), 255, dtype=torch.uint8), torch.eye(6) / 4)
    held = ResidentTrainSet(
        samples,
        cutk.Normalisation((0.0,) * 3, (1.0,) * 3),
        Augmentation(2, True),
        overlays=[Overlay(stamp, torch.tensor([3, 20, 7]))],
        generator=seeded(9),
    )
    digest = hashlib.sha256()
    for batch in held.batches(None, 5, shuffle=True, augment=True, steps=11):
        digest.update((batch.x * 255).round().to(torch.uint8).contiguous().numpy().tobytes())
        digest.update(batch.index.numpy().tobytes())
    assert digest.hexdigest() == GIVEN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "at least 1, got 0 and None"),
        ({"steps": 0}, "at least 1, got .* and 0"),
        ({"indices": torch.empty(0, dtype=torch.int64)}, "Expected at least one sample"),
        ({"indices": torch.tensor([3, 10])}, "Expected indices from 0 to 9, got 3 to 10"),
        ({"indices": torch.tensor([-1, 3])}, "Expected indices from 0 to 9, got -1 to 3"),
        ({"indices": torch.ones(10, dtype=torch.bool)}, r"Expected indices int64 \[n\], got bool \[10\]"),
        ({"indices": torch.tensor([[1]])}, r"Expected indices int64 \[n\], got int64 \[1, 1\]"),
        ({"indices": torch.tensor(1)}, r"Expected indices int64 \[n\], got int64 \[\]"),
    ],
)
def test_impossible_batches_are_refused(plain_set, arguments, message):
    with pytest.raises(ValueError, match=message):
        next(plain_set().batches(**arguments))


# Copies.


@pytest.mark.parametrize("form", FORMS)
def test_a_set_that_draws_from_elsewhere_shares_samples_alone(samples_of, plain_set, form):
    held = plain_set(samples_of(form=form))
    before = [batch.x.clone() for batch in held.batches()]
    other = held.drawing_from(seeded(5))
    assert (other.drawn, held.drawn, len(other)) == (0, 10, 10)
    other.labels.fill_(0)
    for value in vars(other._scaling).values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert held.labels.tolist() == [i % 3 for i in range(10)]
    assert torch.equal(torch.cat([batch.x for batch in held.batches()]), torch.cat(before))
    assert held.intact
    assert other._x is held._x


def test_a_deep_copy_is_intact_and_independent(plain_set):
    held = plain_set()
    other = copy.deepcopy(held)
    assert other.intact
    other._x.zero_()
    assert held.intact
    assert not other.intact


# A write to the samples, whichever way, is noticed.

WRITES = {
    "in place": lambda x: x[3].add_(1),
    ".data": lambda x: x.data[3].add_(1),
    ".numpy()": lambda x: np.add(x.numpy()[3], 1, out=x.numpy()[3]),
    "detached": lambda x: x.detach().view(-1)[7].add_(1),
    "swapped": lambda x: x.data.copy_(x.flip(0)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("form", FORMS)
def test_a_write_is_noticed_whichever_way(samples_of, plain_set, form, write):
    held = plain_set(samples_of(form=form))
    shared = held.drawing_from(seeded())
    assert held.intact
    assert shared.intact
    write(shared._x)
    assert not shared.intact
    assert not held.intact


def test_batches_can_be_written_to(samples_of, plain_set):
    for form in FORMS:
        held = plain_set(samples_of(form=form))
        for batch in held.batches(batch_size=4):
            batch.x.zero_()
            batch.y.zero_()
        assert held.intact
        assert held.labels.any()


# Triggers.


def test_a_stamp_replaces_or_blends():
    stamp = cutk.Stamp(torch.full((1, 1, 3), 200, dtype=torch.uint8), torch.tensor([[0.0, 0.25, 1.0]]))
    assert isinstance(stamp, Trigger)
    assert stamp.apply(torch.full((1, 1, 1, 3), 100, dtype=torch.uint8)).flatten().tolist() == [100, 125, 200]


WHITE, HALF = torch.full((3, 4, 4), 255, dtype=torch.uint8), torch.full((4, 4), 0.5)


@pytest.mark.parametrize(
    ("pattern", "opacity", "said"),
    [
        (WHITE.float(), HALF, r"^Expected a pattern as uint8 \[C, H, W\], got float32 \[3, 4, 4\]\.$"),
        (WHITE[0], HALF, r"got uint8 \[4, 4\]\.$"),
        (WHITE, HALF[None], r"^Expected the opacity as float32 \[4, 4\], got float32 \[1, 4, 4\]\.$"),
        (WHITE, WHITE[0], r"got uint8 \[4, 4\]\.$"),
        (WHITE, HALF * 3, r"^Expected an opacity from 0 to 1, got 1\.5 to 1\.5\.$"),
        (WHITE, HALF * float("nan"), r"got nan to nan\.$"),
    ],
)
def test_a_stamp_of_another_form_is_refused(pattern, opacity, said):
    with pytest.raises(ValueError, match=said):
        cutk.Stamp(pattern, opacity)


class Written:
    """Writes the clean label into the first pixel and the id into the second, and counts in the third."""

    def apply(self, x, labels, ids):
        x = x.clone()
        x[:, :, 0, 0], x[:, :, 0, 1] = labels[:, None].to(x.dtype), ids[:, None].to(x.dtype)
        x[:, :, 0, 2] += 1
        return x


@pytest.fixture
def written(samples_of, plain_set):
    """Twenty black images of which some carry one trigger and some two; their ids start at 100."""

    def make(augmentation=None, clean_labels=None):
        samples = samples_of(count=20, ids=torch.arange(100, 120).flip(0)).changed(
            x=torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
        )
        overlays = [Overlay(Written(), torch.tensor([17, 2, 5])), Overlay(Written(), torch.tensor([5, 8]))]
        return plain_set(samples, augmentation=augmentation, overlays=overlays, clean_labels=clean_labels)

    return make


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("clean", [None, torch.arange(20) % 3 + 5])
def test_triggers_are_told_each_samples_id_and_clean_label(written, augment, clean):
    held = written(Augmentation(4, True), clean)
    labels = held.labels if clean is None else clean
    for batch in held.batches(batch_size=7, shuffle=True, augment=augment, steps=9):
        first, second, third = (batch.x[:, 0, 0, :3] * 255).round().long().unbind(1)
        for i, index in enumerate(batch.index.tolist()):
            count = [2, 5, 17].count(index) + [5, 8].count(index)
            told = (int(labels[index]), 119 - index) if count else (0, 0)
            assert (int(first[i]), int(second[i]), int(third[i])) == (*told, count)


def test_triggers_are_laid_on_in_their_order(samples_of, plain_set):
    def grey(level):
        return Stamp(torch.full((3, 8, 8), level, dtype=torch.uint8), torch.ones(8, 8))

    overlays = [Overlay(grey(51), torch.tensor([0, 1])), Overlay(grey(102), torch.tensor([1, 2]))]
    held = plain_set(samples_of(), overlays=overlays, augmentation=Augmentation(1))
    for augment in (False, True):
        (batch,) = held.batches(torch.tensor([0, 1, 2]), augment=augment)
        assert torch.allclose(batch.x[:, 0, 0, 0], torch.tensor([0.2, 0.4, 0.4]))


def test_a_trigger_lies_over_the_augmented_image(samples_of, plain_set):
    stamp = cutk.Stamp(torch.full((3, 8, 8), 255, dtype=torch.uint8), torch.zeros(8, 8))
    stamp.opacity[7, 7] = 1
    overlays = [Overlay(stamp, torch.tensor([2, 5]))]
    held = plain_set(samples_of(), augmentation=Augmentation(4, True), overlays=overlays)
    clean = plain_set(samples_of(), augmentation=Augmentation(4, True))
    for seed in range(10):
        (with_stamp,) = held.batches(augment=True, generator=seeded(seed))
        (without,) = clean.batches(augment=True, generator=seeded(seed))
        assert (with_stamp.x[[2, 5], 0, 7, 7] == 1).all()
        different = (with_stamp.x != without.x).flatten(1).any(1).nonzero().flatten()
        assert set(different.tolist()) <= {2, 5}


def test_features_and_tokens_take_triggers(samples_of, plain_set):
    class Added:
        def apply(self, x, labels, ids):
            return x + ids[:, None].to(x.dtype)

    for form in ("features", "tokens"):
        samples = samples_of(form=form)
        held = plain_set(samples, overlays=[Overlay(Added(), torch.tensor([4, 9]))])
        (batch,) = held.batches()
        expected = samples.x.clone()
        expected[4] += 4
        expected[9] += 9
        torch.testing.assert_close(batch.x, expected)
        assert torch.equal(samples.x, samples_of(form=form).x)


@pytest.mark.parametrize("augment", [False, True])
def test_a_trigger_may_be_brighter_than_white(samples_of, plain_set, augment):
    class Bright:
        def apply(self, x, labels, ids):
            bright = x.float()
            bright[:, :, 0, 0] = 510.5
            return bright

    held = plain_set(
        samples_of(), augmentation=Augmentation(2, True), overlays=[Overlay(Bright(), torch.tensor([2, 5]))]
    )
    clean = plain_set(samples_of(), augmentation=Augmentation(2, True))
    (batch,), (without,) = (each.batches(augment=augment, generator=seeded(1)) for each in (held, clean))
    expected = without.x.clone()
    expected[[2, 5], :, 0, 0] = 510.5 / 255
    torch.testing.assert_close(batch.x, expected)


def test_a_trigger_that_changes_the_form_is_refused(samples_of, plain_set):
    class One:
        def apply(self, x, labels, ids):
            return x[:1]

    class Double:
        def apply(self, x, labels, ids):
            return x.double()

    for trigger, came in ((Double(), r"float64 \[2, 3, 8, 8\]"), (One(), r"uint8 \[1, 3, 8, 8\]")):
        with pytest.raises(cutk.CellError, match=rf"expected uint8 \[2, 3, 8, 8\] as it was given, got {came}"):
            plain_set(samples_of(), overlays=[Overlay(trigger, torch.tensor([2, 5]))])


def test_sets_can_be_joined(samples_of, plain_set):
    one, two = plain_set(samples_of(count=4)), plain_set(samples_of(count=3, seed=1))
    both = ResidentTrainSet.joined([one, two])
    assert len(both) == 7
    assert both.intact
    (batch,) = both.batches()
    assert torch.equal(batch.x, torch.cat([next(each.batches()).x for each in (one, two)]))
    assert torch.equal(batch.y, torch.cat([one.labels, two.labels]))
    assert ResidentTrainSet.joined([one]) is one


def test_a_trigger_can_not_be_reached_or_pickled(written):
    held = written()
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(held)
    assert not any(isinstance(value, Written) for value in vars(held).values())


# Borders and flips that alternate.


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=30)
def test_a_reflected_border_is_numpys(size, pad, seed):
    pixels = torch.randint(0, 256, (3, 2, size, size + 1), dtype=torch.uint8)
    pad = min(pad, size - 1)  # NumPy reflects once
    cropped = Augmentation(pad, border="reflect").apply(pixels, seeded(seed))
    drawn = torch.randint(0, 2 * pad + 1, (2, 3, 1), generator=seeded(seed))
    for which, image in enumerate(pixels.numpy()):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        row, column = drawn[0, which, 0], drawn[1, which, 0]
        assert np.array_equal(cropped[which], padded[:, row : row + size, column : column + size + 1])


def test_flips_that_alternate_mirror_every_image_at_every_other_visit(samples_of):
    samples = samples_of(count=10)
    held = ResidentTrainSet(
        samples, cutk.Normalisation((0.0,) * 3, (1.0,) * 3), Augmentation(flip=True, alternate=True)
    )
    plain = {int(i): x for batch in held.batches() for i, x in zip(batch.index, batch.x, strict=True)}
    seen: dict[int, list[bool]] = {}
    # Batches that straddle passes, in another order each time.
    for batch in held.batches(None, 4, shuffle=True, augment=True, steps=10, generator=seeded(3)):
        for i, x in zip(batch.index.tolist(), batch.x, strict=True):
            mirrored = torch.equal(x, plain[i].flip(-1))
            assert mirrored or torch.equal(x, plain[i])
            seen.setdefault(i, []).append(mirrored)
    assert all(visits in ([True, False] * 2, [False, True] * 2) for visits in seen.values())
    assert len({visits[0] for visits in seen.values()}) == 2
