"""A sound dataset, and those that break one check each."""

import itertools
from pathlib import Path

import torch

import cutk


def noise(count, size=8, seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return cutk.Samples(x, torch.arange(count) % 2, ("a", "b"))


class Noise(cutk.Dataset):
    """Noise, and two classes."""

    name = "noise"

    def load(self):
        return cutk.Splits(train=noise(20), test=noise(10, seed=1))


def loading(load, **attributes):
    return type("Loading", (Noise,), {"__doc__": Noise.__doc__, "load": load, **attributes})


def splits(**changes):
    return loading(lambda _self: cutk.Splits(**{"train": noise(20), "test": noise(10, seed=1), **changes}))


class Missing(Noise):
    """Is not here."""

    def load(self):
        raise cutk.UsageError(
            "Noise is not in 'data': expected 'data/noise.npz'. Give its folder with --data-root DIR."
        )


class Curt(Noise):
    def load(self):
        raise cutk.UsageError("Not there.")


class Growing(Noise):
    count = itertools.count().__next__

    def load(self):
        return cutk.Splits(train=noise(20, seed=self.count()), test=noise(10, seed=99))


class Shared(Noise):
    splits = cutk.Splits(train=noise(20), test=noise(10, seed=1))

    def load(self):
        return self.splits


class ChangesDtype(Noise):
    def load(self):
        torch.set_default_dtype(torch.float64)
        return super().load()


class Rows(Noise):
    """Feature vectors, and two classes."""

    def load(self):
        x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        samples = cutk.Samples(x, torch.arange(30) % 2, ("a", "b"))
        means, stds = x.mean(0).tolist(), x.std(0).tolist()
        parts = [samples.select(indices) for indices in (torch.arange(20), torch.arange(20, 30))]
        return cutk.Splits(*parts, normalisation=cutk.Normalisation(tuple(means), tuple(stds)))


SOUND = [Noise, Rows]
REMARKS = {"test_samples_are_unseen"}
BROKEN = {
    "suggestions_are_valid": [
        loading(Noise.load, recipe={"stepz": 5}),
        loading(Noise.load, suggests={"shift": 5}),
        loading(Noise.load, model=None),
    ],
    "load_returns_splits": [
        loading(lambda _self: noise(5)),
        Curt,
        loading(lambda _self: Path("/not/there").read_bytes()),
    ],
    "splits_fit_together": [splits(test=noise(10, size=9)), splits(test=noise(0)), splits(train=noise(1))],
    "normalisation_fits": [
        splits(normalisation=cutk.Normalisation((0.5,) * 3, (0.2,) * 3)),
        splits(normalisation=cutk.Normalisation((0.5,), (0.0,))),
    ],
    "loads_are_independent": [Shared],
    "same_seed_gives_the_same": [Growing],
    "nothing_global_is_left": [ChangesDtype],
}
