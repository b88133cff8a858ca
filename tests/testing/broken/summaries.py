"""A sound summary, and those that break one check each."""

import itertools
import os

import cutk


class Best(cutk.Summary):
    """The best value over all α."""

    name = "best"
    of = ("corrected",)

    def summarise(self, curve):
        return max(curve.values["corrected"].values())


def summing(summarise, **attributes):
    return type("Summing", (Best,), {"__doc__": Best.__doc__, "summarise": summarise, **attributes})


class ChangesFolder(Best):
    def summarise(self, curve):
        os.chdir("/")
        return super().summarise(curve)


SOUND = [Best]
BROKEN = {
    "curves_have_a_value": [
        summing(lambda _self, curve: curve.gold["retained"]),
        summing(lambda _self, curve: curve.values["corrected"][1.0]),
        summing(Best.summarise, of=()),
    ],
    "values_are_within_bounds": [summing(lambda _self, _curve: 2), summing(lambda _self, _curve: {"a": 0.5, "b": 7})],
    "curve_is_untouched": [summing(lambda _self, curve: curve.values["corrected"].popitem()[1])],
    "same_seed_gives_the_same": [summing(lambda self, _curve: 1 / next(self.count), count=itertools.count(1))],
    "nothing_global_is_left": [ChangesFolder],
}
