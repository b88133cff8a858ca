"""A sound identification, and those that break one check each."""

import itertools

import torch

import cutk


class Some(cutk.Identification):
    """Finds a part of the manipulated samples."""

    name = "some"

    def identify(self, truth, alpha, generator):
        order = torch.randperm(len(truth.manipulated), generator=generator)
        return truth.manipulated[order[: max(1, round(alpha * len(order)))]].sort().values


class Anew(Some):
    """Finds other ones at every α."""

    def identify(self, truth, alpha, generator):
        return super().identify(truth, alpha, torch.Generator().manual_seed(int(alpha * 1000)))


def finding(identify):
    return type("Finding", (Some,), {"__doc__": Some.__doc__, "identify": identify})


class WritesTheTruth(Some):
    def identify(self, truth, alpha, generator):
        truth.clean_labels[0] += 1
        return super().identify(truth, alpha, generator)


class WritesPixels(Some):
    def identify(self, truth, alpha, generator):
        truth.samples.x[0] = 1
        return super().identify(truth, alpha, generator)


class DrawsGlobally(Some):
    def identify(self, truth, alpha, generator):
        found = super().identify(truth, alpha, generator)
        torch.rand(1)
        return found


class RefusesAll(Some):
    """Refuses whatever comes."""

    def identify(self, truth, alpha, generator):
        raise cutk.UsageError("I take no scenario at all.")


class Wanders(Some):
    count = itertools.count().__next__

    def identify(self, truth, alpha, generator):
        return truth.manipulated[self.count() % 3 :][: round(8 * alpha)]


SOUND = [Some, Anew]
BROKEN = {
    "samples_are_identified": [
        finding(lambda _self, truth, _alpha, _generator: truth.manipulated.flip(0)),
        finding(lambda _self, truth, _alpha, _generator: truth.manipulated[:0]),
        finding(lambda _self, truth, _alpha, _generator: truth.manipulated + len(truth.train)),
        finding(lambda _self, truth, _alpha, _generator: truth.manipulated.tolist()),
        finding(lambda _self, truth, _alpha, _generator: truth.nothing),
    ],
    "more_are_found_at_larger_alpha": [
        finding(lambda _self, truth, _alpha, _generator: truth.manipulated),
        finding(lambda _self, truth, alpha, _generator: truth.manipulated[: round(len(truth.manipulated) / 8 / alpha)]),
        finding(lambda _self, truth, alpha, _generator: torch.arange(round(alpha * len(truth.train)))),
    ],
    "truth_is_untouched": [WritesTheTruth, WritesPixels],
    "same_seed_gives_the_same": [Wanders],
    "nothing_global_is_left": [DrawsGlobally],
}
