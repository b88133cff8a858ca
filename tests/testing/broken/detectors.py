"""A sound detector, and those that break one check each."""

import itertools

import torch

import cutk


class Known(cutk.Detector):
    """Suspects those that are known, and nobody else."""

    name = "known"

    def detect(self, task):
        found = torch.zeros(len(task.train))
        found[task.identified] = 1.0
        return found

    @classmethod
    def passes(cls, options, sizes):
        return 0.0


class Silent(Known):
    """Doesn't say what it costs."""

    @classmethod
    def passes(cls, options, sizes):
        return None


def finding(detect):
    return type("Finding", (Known,), {"__doc__": Known.__doc__, "detect": detect})


class WritesWeights(Known):
    def detect(self, task):
        with torch.no_grad():
            next(task.original.parameters()).add_(1)
        return super().detect(task)


class WritesLabels(Known):
    def detect(self, task):
        task.train.labels[0] += 1
        return super().detect(task)


class DrawsGlobally(Known):
    def detect(self, task):
        torch.set_default_dtype(torch.float64)
        return super().detect(task).float()


class SeedsTorch(Known):
    def detect(self, task):
        torch.manual_seed(3)
        return super().detect(task)


class Wanders(Known):
    count = itertools.count().__next__

    def detect(self, task):
        return super().detect(task) * (0.9 + 0.01 * (self.count() % 7))


class Costly(Known):
    @classmethod
    def passes(cls, options, sizes):
        return -1.0


SOUND = [Known, Silent]
BROKEN = {
    "suspicion_is_from_0_to_1": [
        finding(lambda _self, task: torch.zeros(len(task.train), dtype=torch.float64)),
        finding(lambda _self, task: torch.zeros(len(task.train) - 1)),
        finding(lambda _self, task: torch.full((len(task.train),), 1.5)),
        finding(lambda _self, task: torch.full((len(task.train),), float("nan"))),
        finding(lambda _self, task: [0.0] * len(task.train)),
        finding(lambda _self, task: task.nothing),
    ],
    "somebody_is_trusted": [finding(lambda _self, task: torch.ones(len(task.train)))],
    "task_is_untouched": [WritesWeights, WritesLabels],
    "seed_is_left_to_cutk": [SeedsTorch],
    "suspicion_is_no_part_of_a_graph": [
        finding(lambda _self, task: torch.full((len(task.train),), 0.3, requires_grad=True))
    ],
    "passes_are_estimated": [Costly],
    "same_seed_gives_the_same": [Wanders],
    "nothing_global_is_left": [DrawsGlobally],
}
