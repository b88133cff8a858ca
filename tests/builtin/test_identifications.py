"""Who is in S_f, against what can be counted."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.identifications.biased import Biased, class_by_class, distances
from cutk_builtin.identifications.false_positives import FalsePositives, mixed
from cutk_builtin.identifications.file import File
from cutk_builtin.identifications.uniform import Uniform, share_of


@dataclass
class Told:
    """As much of the truth as identifications ask for."""

    samples: cutk.Samples
    manipulated: torch.Tensor
    held_out: cutk.Samples | None = None
    clean_labels: torch.Tensor = field(init=False)
    train: ResidentTrainSet = field(init=False)

    def __post_init__(self):
        self.clean_labels = self.samples.labels.clone()
        width = 0 if self.samples.form == "tokens" else self.samples.shape[0]
        self.train = ResidentTrainSet(self.samples, cutk.Normalisation((0.0,) * width, (1.0,) * width))


def features(x, labels, classes=3, **kwargs):
    return cutk.Samples(torch.tensor(x), torch.tensor(labels), tuple("abcdefghij"[:classes]), **kwargs)


def many(count=60):
    return Told(features([[float(i)] for i in range(count)], [i % 3 for i in range(count)]), torch.arange(0, count, 2))


def found(component, truth, alpha, seed=0, **options):
    chance = torch.Generator().manual_seed(seed)
    return component(component.Options(**options)).identify(truth, alpha, chance)


# Uniform.


def test_uniform_by_hand():
    manipulated = torch.tensor([3, 8, 11, 20])
    order = torch.randperm(4, generator=torch.Generator().manual_seed(5))
    by_hand = sorted(manipulated[order[:2]].tolist())
    assert share_of(manipulated, 0.5, torch.Generator().manual_seed(5)).tolist() == by_hand
    assert share_of(manipulated, 1.0, torch.Generator().manual_seed(5)).tolist() == [3, 8, 11, 20]


@settings(max_examples=30)
@given(count=st.integers(10, 60), seed=st.integers(0, 1000))
def test_identified_sets_are_nested_and_of_the_right_size(count, seed):
    manipulated = torch.arange(0, 3 * count, 3)
    smaller: set[int] = set()
    for tenth in range(1, 11):
        identified = share_of(manipulated, tenth / 10, torch.Generator().manual_seed(seed))
        assert len(identified) == round(tenth / 10 * count)
        assert smaller <= set(identified.tolist()) <= set(manipulated.tolist())
        smaller = set(identified.tolist())


def test_identification_is_uniform():
    drawn = [int(share_of(torch.arange(10), 0.1, torch.Generator().manual_seed(seed))) for seed in range(2000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260


@pytest.mark.parametrize("component", [Uniform, FalsePositives, Biased])
def test_an_alpha_that_identifies_nothing_is_refused(component):
    with pytest.raises(cutk.UsageError, match=r"Alpha 0\.01 identifies none of the 30 manipulated samples"):
        found(component, many(), 0.01)


@pytest.mark.parametrize(
    ("component", "options"),
    [(Uniform, {}), (FalsePositives, {"share": 0.3}), (Biased, {"by": "class"}), (Biased, {"by": "ease"})],
)
def test_what_is_found_at_one_alpha_is_found_at_every_larger_one(component, options):
    truth = many()
    sets = [set(found(component, truth, tenth / 10, **options).tolist()) for tenth in range(1, 11)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))
    assert sets[-1] >= set(truth.manipulated.tolist())


# False positives.


@pytest.mark.parametrize(
    ("share", "alpha", "right", "wrong"), [(0.2, 0.4, 12, 3), (0.5, 0.5, 15, 15), (0.0, 1.0, 30, 0)]
)
def test_a_share_of_s_f_is_clean(share, alpha, right, wrong):
    truth = many()
    identified = found(FalsePositives, truth, alpha, share=share)
    manipulated = torch.isin(identified, truth.manipulated)
    assert (int(manipulated.sum()), int((~manipulated).sum())) == (right, wrong)
    assert (identified[1:] > identified[:-1]).all()


def test_more_false_positives_than_clean_samples_are_refused():
    with pytest.raises(cutk.UsageError, match="at most the 30 clean samples there are in S_f, got 120"):
        found(FalsePositives, many(), 1.0, share=0.8)
    assert len(mixed(torch.arange(2), 4, 1.0, 0.5, torch.Generator())) == 4


# Biased.


def test_one_class_is_found_before_the_next():
    truth = many()
    identified = found(Biased, truth, 0.5, by="class")
    counts = sorted(torch.bincount(truth.clean_labels[identified], minlength=3).tolist())
    assert counts == [0, 5, 10]  # ten of each class were manipulated, and fifteen are found
    first = {int(truth.clean_labels[found(Biased, truth, 0.3, seed=seed)].mode().values) for seed in range(20)}
    assert first == {0, 1, 2}  # which class comes first is a matter of chance


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), st.integers(0, 99))
def test_classes_come_one_after_the_other(labels, seed):
    given_labels = torch.tensor(labels)
    order = class_by_class(given_labels, torch.Generator().manual_seed(seed))
    assert order.sort().values.tolist() == list(range(len(labels)))
    changes = int((given_labels[order][1:] != given_labels[order][:-1]).sum())
    assert changes == len(set(labels)) - 1


def test_distances_from_the_class_centre_by_hand():
    # Class a has its centre at (1, 0), class b at (0, 4).
    samples = features([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 7.0], [0.0, 4.0]], [0, 0, 1, 1, 1], 2)
    normal = cutk.Normalisation((0.0, 0.0), (1.0, 1.0))
    expected = torch.tensor([1.0, 1.0, 3.0, 3.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(distances(ResidentTrainSet(samples, normal)), expected)


def test_what_looks_odd_is_found_first():
    x = [[0.0], [0.1], [5.0], [9.0], [0.2], [0.3]]
    truth = Told(features(x, [0] * 6, 1), torch.tensor([1, 2, 3, 4]))
    assert found(Biased, truth, 0.25, by="ease").tolist() == [3]
    assert found(Biased, truth, 0.5, by="ease").tolist() == [2, 3]


def test_tokens_have_no_distance():
    tokens = cutk.Samples(torch.arange(12).view(6, 2), torch.zeros(6, dtype=torch.int64), ("a",))
    with pytest.raises(cutk.UsageError, match="by=ease needs images or features"):
        found(Biased, Told(tokens, torch.arange(3)), 1.0, by="ease")


# A file.


@pytest.fixture
def published():
    """Ten published samples, of which 3 and 8 are held out; the others stand in their order."""
    names = tuple(f"{'ab'[i % 2]}/{i}.png" for i in range(10))
    whole = features([[float(i)] for i in range(10)], [0] * 10, 1, names=names)
    kept = whole.select(torch.tensor([0, 1, 2, 4, 5, 6, 7, 9]))
    return Told(kept, torch.tensor([0, 3]), held_out=whole.select(torch.tensor([3, 8])))


# Names and ids of 1, 4, 7 and 9, and of 8, which is held out.
LISTS = {
    "ids.txt": "1\n4\n\n# what the audit found\n007\n9\n8\n4\n",
    "names.txt": "b/1.png\na/4.png\nb/7.png\nb/9.png\na/8.png\n",
    "windows.txt": "\ufeff1\r\n4\r\n7\r\n9\r\n8\r\n",
    "mixed.csv": 'name,why\nb/1.png,odd\n4,"odd, too"\n7,\n9,\n8,\n',
    "plain.csv": "1\n4\n7\n9\n",
    "ids.json": json.dumps([1, 4, "b/7.png", "9", 8]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_samples_by_name_or_id(published, tmp_path, name):
    (tmp_path / name).write_text(LISTS[name], encoding="utf-8", newline="")
    identified = found(File, published, 1.0, file=tmp_path / name)
    assert published.samples.ids[identified].tolist() == [1, 4, 7, 9]
    half = found(File, published, 0.5, file=tmp_path / name)
    assert len(half) == 2
    assert set(half.tolist()) < set(identified.tolist())


def test_what_matches_nothing_is_listed(published, tmp_path):
    (tmp_path / "bad.txt").write_text("1\n12\na/4.jpg\n99999999999999999999999\n")
    with pytest.raises(cutk.UsageError, match=r"names or ids.*got 3 that match none: '12', 'a/4\.jpg', '9999"):
        found(File, published, 1.0, file=tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_text("".join(f"{number}\n" for number in range(20, 60)))
    with pytest.raises(cutk.UsageError, match=r"got 40 that match none: '20', .*'29', …"):
        found(File, published, 1.0, file=tmp_path / "bad.txt")


REFUSED = {
    "empty.txt": (lambda f: f.write_text("\n# nothing\n"), "names no sample"),
    "binary.txt": (lambda f: f.write_bytes(b"\xff\x00"), "expected a list of ids or names"),
    "object.json": (lambda f: f.write_text('{"1": 2}'), "JSON array of whole numbers and texts"),
    "true.json": (lambda f: f.write_text("[true]"), "JSON array of whole numbers and texts"),
    "deep.json": (lambda f: f.write_text("[" * 100_000), "expected a list of ids or names"),
    "list.pkl": (lambda f: f.write_bytes(b""), "ends otherwise: expected a .txt, .csv or .json list"),
    "pipe.txt": (os.mkfifo, "is not there, or no regular file"),
    "device.txt": (lambda f: f.symlink_to("/dev/zero"), "is not there, or no regular file"),
    "absent.txt": (lambda f: None, "is not there, or no regular file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_list_is_refused(published, tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(cutk.UsageError, match=message):
        found(File, published, 1.0, file=tmp_path / name)


def test_a_part_of_the_list_can_be_nothing(published, tmp_path):
    (tmp_path / "bad.txt").write_text("1\n4\n")
    with pytest.raises(cutk.UsageError, match=r"Alpha 0\.1 identifies none of the 2 samples that are listed"):
        found(File, published, 0.1, file=tmp_path / "bad.txt")
