"""The next cell: the plan's order for one worker, the longest first for several."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cutk.run.cells import Training, Unlearning
from cutk.run.ready import Ready

METHODS = ("short", "long", "middle")
SECONDS = {"short": 1.0, "long": 6.0, "middle": 3.0}


def plan(seeds=2, alphas=(0.5, 1.0)):
    cells = []
    for seed in range(seeds):
        cells += [Training("m", seed, role) for role in ("original", "gold")]
        cells += [Unlearning("m", seed, method, alpha) for alpha in alphas for method in METHODS]
    return cells


def started(cells, ready, through=()):
    for cell in through:
        ready.took(cell, SECONDS.get(getattr(cell, "unlearner", ""), 2.0))
    found = []
    while ready:
        found.append(cells[ready.pop()])
    return found


def test_one_worker_keeps_the_plans_order():
    cells = plan()
    ready = Ready(cells, by_duration=False)
    for position in range(len(cells)):
        ready.add(position)
    assert started(cells, ready, through=cells) == cells


def test_what_nothing_is_known_of_keeps_the_plans_order():
    cells = plan()
    ready = Ready(cells, by_duration=True)
    for position in range(len(cells)):
        ready.add(position)
    assert started(cells, ready) == cells


def test_the_longest_go_first_within_a_seed():
    cells = plan()
    ready = Ready(cells, by_duration=True)
    for position in (*range(2, 8), *range(8, 16)):  # the first seed's methods, and all of the second
        ready.add(position)
    names = [
        (cell.seed, getattr(cell, "unlearner", None) or cell.role) for cell in started(cells, ready, through=cells[:8])
    ]
    first = [(0, name) for name in ("long", "long", "middle", "middle", "short", "short")]
    second = ("original", "long", "long", "middle", "middle", "gold", "short", "short")  # others wait for the original
    assert names == [*first, *((1, name) for name in second)]


def test_a_cell_that_can_start_late_goes_before_later_seeds():
    cells = plan()
    ready = Ready(cells, by_duration=True)
    for position in (0, 1, 8, 9):
        ready.add(position)
    assert [ready.pop() for _ in range(3)] == [0, 1, 8]
    ready.add(2)  # the original of the first seed is there
    assert [ready.pop(), ready.pop(), bool(ready)] == [2, 9, False]


@given(st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_each_cell_comes_once(seeds, by_duration, chance):
    cells = plan(seeds)
    ready = Ready(cells, by_duration=by_duration)
    left, found = chance.sample(range(len(cells)), len(cells)), []
    while left or ready:
        if left and chance.random() < 0.5:
            ready.add(left.pop())
        elif ready:
            found.append(ready.pop())
            ready.took(cells[found[-1]], chance.uniform(0, 100))
    assert sorted(found) == list(range(len(cells)))


def test_two_workers_end_together():
    """The last seed of two workers who start the next cell whenever one is free ends within its shortest cell."""

    def spans(by_duration):
        cells = plan(seeds=1, alphas=(0.3, 0.6, 1.0))
        ready = Ready(cells, by_duration=by_duration)
        for position in range(2, len(cells)):
            ready.add(position)
        for cell in cells[2:5]:
            ready.took(cell, SECONDS[cell.unlearner])
        ends = [0.0, 0.0]
        while ready:
            worker = ends.index(min(ends))
            ends[worker] += SECONDS[cells[ready.pop()].unlearner]
        return max(ends)

    # 3 · (1 + 6 + 3) seconds are 15 each.
    assert spans(True) <= 16
    assert spans(False) > spans(True)
