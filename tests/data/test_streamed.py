from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cutk
from cutk.data.batches import Augmentation, ResidentTrainSet
from cutk.data.samples import Normalisation
from cutk.data.streamed import StreamedTrainSet

# From Python 3.12 on, forking warns of threads; from 3.14 on it isn't the default, which would want these datasets in
# a module that other processes can import.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

FORMS = ["images", "features", "tokens"]
WORKERS = [0, 1, 2]


@pytest.fixture(autouse=True)
def forked():
    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(method, force=True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Listed(torch.utils.data.Dataset):
    """A dataset of what is in a list, with labels that nobody should read."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index], "not asked for"


class Bad(Listed):
    """Does at one index what the test says."""

    def __init__(self, items, at, act):
        super().__init__(items)
        self.at, self.act = at, act

    def __getitem__(self, index):
        return self.act() if index == self.at else super().__getitem__(index)


def streamed(items, workers=0, count=None, **kwargs):
    labels = torch.arange(len(items) if count is None else count) % 3
    dataset = Listed(items) if isinstance(items, list) else items
    first = dataset.items[0]
    width = len(first) if isinstance(first, torch.Tensor) else 3
    normalisation = kwargs.pop("normalisation", Normalisation((0.5,) * width, (0.2,) * width))
    return StreamedTrainSet(dataset, labels, 3, normalisation, num_workers=workers, **kwargs)


@pytest.fixture
def both(samples_of):
    """The same samples, resident and streamed."""

    def make(form, workers, augmentation=None):
        samples = samples_of(count=23, form=form)
        normalisation = Normalisation.of(samples)
        return (
            ResidentTrainSet(samples, normalisation, augmentation, generator=seeded(4)),
            StreamedTrainSet(
                Listed(list(samples.x)),
                samples.labels,
                len(samples.classes),
                normalisation,
                augmentation,
                num_workers=workers,
                generator=seeded(4),
            ),
        )

    return make


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and a.stride() == b.stride() and a.dtype == b.dtype
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("form", FORMS)
def test_batches_are_those_of_the_resident_set(both, form, workers):
    resident, stream = both(form, workers, Augmentation(2, True))
    assert (stream.shape, stream.form, len(stream)) == (resident.shape, resident.form, 23)
    assert stream.augments == resident.augments == (form == "images")
    for asked in (
        {},
        {"batch_size": 5, "shuffle": True, "augment": True},
        {"batch_size": 5, "shuffle": True, "augment": True, "steps": 13},
        {"indices": torch.tensor([7, 3, 22, 3]), "batch_size": 3, "steps": 4, "augment": True},
        {"batch_size": 50, "steps": 2, "shuffle": True},
    ):
        assert equal(list(resident.batches(**asked)), list(stream.batches(**asked)))
        assert torch.equal(resident.generator.get_state(), stream.generator.get_state())
        assert resident.drawn == stream.drawn
    assert stream.intact


@pytest.mark.parametrize("workers", WORKERS)
def test_reading_ahead_draws_nothing_ahead(both, workers):
    """Two loops that take turns on one generator, as methods that forget and retain do; one of them stops early."""
    resident, stream = both("images", workers, Augmentation(2, True))

    def turns(held):
        asked = {"batch_size": 4, "shuffle": True, "augment": True}
        one = held.batches(torch.arange(9), **asked, steps=12)
        two = held.batches(torch.arange(9, 23), **asked)
        taken = [batch for pair in zip(one, two, strict=False) for batch in pair]
        taken += itertools.islice(one, 5)
        one.close()
        return [*taken, *held.batches(**asked)]

    assert equal(turns(resident), turns(stream))
    assert torch.equal(resident.generator.get_state(), stream.generator.get_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_random_state_is_touched(both, workers):
    _, stream = both("images", workers)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(stream.batches(batch_size=4, shuffle=True, steps=9))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_few_samples_are_in_memory_at_a_time(workers, tmp_path):
    class Counting(Listed):
        def __getitem__(self, index):
            (tmp_path / f"{os.getpid()}-{index}").touch()
            return super().__getitem__(index)

    items = [torch.full((4,), float(i)) for i in range(100)]
    batches = streamed(Counting(items), workers).batches(batch_size=2)
    next(batches)
    seen = {int(path.name.partition("-")[2]) for path in tmp_path.iterdir()}
    assert len(seen) <= 4 + 2 * 2 * 3  # what was looked at first, and two batches ahead for each worker
    batches.close()


def test_workers_stay_from_pass_to_pass_and_copy_to_copy(tmp_path):
    class Counting(Listed):
        def __getitem__(self, index):
            (tmp_path / str(os.getpid())).touch()
            return super().__getitem__(index)

    held = streamed(Counting([torch.full((4,), float(i)) for i in range(12)]), 1)
    for path in tmp_path.iterdir():
        path.unlink()
    list(held.batches(batch_size=4, steps=9))
    for other in (held.drawing_from(seeded()), copy.deepcopy(held), held):
        list(other.batches(batch_size=3))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("copied", [lambda held: held.drawing_from(seeded(9)), copy.deepcopy], ids=["draws", "deep"])
def test_a_copy_has_labels_and_a_generator_of_its_own(both, copied):
    _, stream = both("images", 0, Augmentation(2, True))
    list(stream.batches())
    other = copied(stream)
    other.labels.zero_()
    other._scaling.scale.zero_()
    torch.rand(1, generator=other.generator)
    assert stream.labels.any()
    assert stream._scaling.scale.all()
    assert torch.equal(stream.generator.get_state(), seeded(4).get_state())
    assert other._source is stream._source


def test_it_can_be_pickled(both):
    resident, stream = both("images", 0)
    list(stream.batches())
    assert equal(list(resident.batches()), list(pickle.loads(pickle.dumps(stream)).batches()))  # noqa: S301


# What a dataset may give.


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_pillows_images_are_read(mode):
    images = [Image.new("RGB", (5, 4), (40 * i, 10, 200)).convert(mode) for i in range(3)]
    width = 1 if mode == "L" else 3
    held = streamed(images, normalisation=Normalisation((0.0,) * width, (1.0,) * width))
    assert held.shape == (width, 4, 5)
    (batch,) = held.batches()
    for x, image in zip(batch.x, images, strict=True):
        expected = np.atleast_3d(np.array(image if width == 1 else image.convert("RGB"))).transpose(2, 0, 1)
        np.testing.assert_allclose(x.numpy() * 255, expected, atol=1e-4)


def test_arrays_and_bare_items_are_read():
    class Bare(Listed):
        def __getitem__(self, index):
            return self.items[index]

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (batch,) = streamed(Bare(list(x)), normalisation=Normalisation((0.0,) * 4, (1.0,) * 4)).batches()
    np.testing.assert_array_equal(batch.x.numpy(), x)


def test_images_of_many_sizes_are_scaled_to_one():
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(3, 8, 16)
    held = streamed([ramp, ramp[:, :4, :8], torch.full((3, 2, 3), 7, dtype=torch.uint8)], size=(4, 8))
    assert held.shape == (3, 4, 8)
    (batch,) = held.batches()
    pixels = ((batch.x * 0.2 + 0.5) * 255).round().int()
    # Halved, columns become averages of neighbours.
    assert (pixels[0, 0, :, 1:-1].float() - torch.tensor([25.0, 45, 65, 85, 105, 125])).abs().max() <= 1
    assert torch.equal(pixels[1], ramp[:, :4, :8].int())
    assert (pixels[2] == 7).all()


IMAGES = [torch.full((3, 4, 4), i, dtype=torch.uint8) for i in range(9)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("at", "item", "message"),
    [
        (
            0,
            torch.zeros(3, 4, 4),
            r"Sample 0 can't be read: .* got float32 \[3, 4, 4\]: leave out ToTensor and Normalize",
        ),
        (0, torch.zeros(4, dtype=torch.float64), r"Sample 0 can't be read: .* got float64 \[4\]\.$"),
        (0, None, "Sample 0 can't be read: "),
        (0, Image.new("I;16", (4, 4)), "Sample 0 can't be read: .*expected 8 bits a channel, got the mode I;16"),
        (7, Image.new("F", (4, 4)), "Sample 7 can't be read: .*expected 8 bits a channel, got the mode F"),
        (7, torch.zeros(3, 4, 5, dtype=torch.uint8), r"Sample 7: .* \[3, 4, 4\] of the first sample, .* Give a size"),
        (1, torch.zeros(3, 4, 5, dtype=torch.uint8), r"Sample 1: .* \[3, 4, 4\] of the first sample, .* Give a size"),
        (7, torch.zeros(48), "Sample 7: expected the shape "),
    ],
)
def test_samples_that_do_not_fit_are_named(at, item, message, workers):
    dataset = Bad(IMAGES, at, lambda: (item, 0))
    with pytest.raises(cutk.UsageError, match=message) as error:
        list(streamed(dataset, workers, normalisation=Normalisation((0.5,) * 3, (0.2,) * 3)).batches(batch_size=2))
    assert "\n" not in str(error.value)


def test_numbers_that_are_none_are_no_random_transform():
    with pytest.raises(cutk.UsageError, match="Expected finite numbers, got others among the first samples"):
        streamed([torch.full((3,), torch.nan)] * 3, normalisation=Normalisation((0.0,) * 3, (1.0,) * 3))


def fail():
    raise KeyError("no\nsuch file")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_dataset_raises_is_told_in_one_line(workers):
    held = streamed(Bad(IMAGES, 7, fail), workers)
    with pytest.raises(cutk.UsageError, match=r"^Sample 7 can't be read: KeyError: 'no\\nsuch file'\.$"):
        list(held.batches(batch_size=2))
    # The set is as good as before.
    assert len(list(held.batches(torch.arange(6), 2))) == 3


DYING = """
import os, signal, torch
import cutk
from cutk.data.streamed import StreamedTrainSet

class Dying(torch.utils.data.Dataset):
    def __len__(self):
        return 9
    def __getitem__(self, index):
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(4), 0

held = StreamedTrainSet(
    Dying(), torch.zeros(9, dtype=torch.int64), 1, cutk.Normalisation((0.0,) * 4, (1.0,) * 4), num_workers=1
)
try:
    list(held.batches(batch_size=2))
except cutk.UsageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a signal that kills")
def test_a_worker_that_dies_is_noticed(tmp_path):
    # In a process of its own: torch raises what it hears of its workers wherever the process happens to be.
    ran = subprocess.run([sys.executable, "-c", DYING], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert ran.stdout.startswith("A worker that reads samples ended unexpectedly (RuntimeError: DataLoader worker")
    assert ran.stdout.endswith("Try fewer workers, or none.\n")
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_random_transforms_are_refused(workers):
    class Shifting(Listed):
        def __getitem__(self, index):
            return self.items[index] + torch.randn(4), 0

    with pytest.raises(cutk.UsageError, match="Leave out random transforms"):
        streamed(Shifting([torch.zeros(4)] * 9), workers, normalisation=Normalisation((0.0,) * 4, (1.0,) * 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(8, dtype=torch.int64)}, r"Expected labels int64 \[9\]"),
        ({"labels": torch.full((9,), 3)}, "Expected labels from 0 to 2, got 3 to 3"),
        ({"normalisation": Normalisation((0.0,), (1.0,))}, "Expected a normalisation with 3 means"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(arguments, message):
    given = {
        "labels": torch.zeros(9, dtype=torch.int64),
        "num_classes": 3,
        "normalisation": Normalisation((0.0,) * 3, (1.0,) * 3),
    }
    with pytest.raises(ValueError, match=message):
        StreamedTrainSet(Listed(IMAGES), **{**given, **arguments})


@pytest.mark.parametrize("workers", [0, 2])
def test_training_gives_the_same_model_as_on_the_resident_set(both, registry, workers):
    sgd = registry.get("recipe", "sgd").component
    recipe = sgd(sgd.Options(steps=9, batch_size=8, lr=0.1))

    def trained(held):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(192, 3))
        recipe.fit(model, held.batches(None, 8, shuffle=True, augment=True, steps=9), steps=9)
        return model, recipe.predict(model, held)

    (one, predicted), (other, also) = (trained(held) for held in both("images", workers, Augmentation(2, True)))
    assert torch.equal(one[2].weight, other[2].weight)
    assert torch.equal(predicted, also)
