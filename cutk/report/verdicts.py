"""What the numbers of a setting say in words: the damage, who undoes it at what cost, and what to doubt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from cutk.errors import conjoined
from cutk.report.experiments import GOLD, ORIGINAL, Experiment, Setting, stat_of
from cutk.report.naming import duration
from cutk.report.origins import counted, mixed
from cutk.run.records import Measured
from cutk.run.summary import RECOVERED, Stat

_MOST = 4  # names that are listed


def verdict_of(experiment: Experiment, setting: Setting) -> list[str]:
    """Return about three sentences, of which the first goes on from the manipulation's name.

    There are none where nothing was measured that tells damage from repair.
    """
    aim, utility = (next(iter(experiment.objectives(what)), None) for what in ("unlearning", "utility"))
    if aim is None:
        return []
    caution = experiment.caution(setting)
    best = _best_at_each_alpha(setting, aim, utility)
    parts = (_damage(setting, aim, utility), caution or _cure(setting, aim, utility, best))
    return [text for text in (*parts, _doubts(experiment, setting, () if caution else best)) if text]


def _words(metric: Measured) -> str:
    return metric.name.replace("_", " ")


def _range(values: Iterable[float], form: str = ".2f") -> str:
    """Return numbers as the range they lie in."""
    found = sorted(values)
    low, high = (format(value, form).replace("-", "−") for value in (found[0], found[-1]))
    return low if low == high else f"{low} to {high}"


def _at(alphas: Sequence[float]) -> str:
    return f"at α = {_range(alphas, 'g')}"


def _row(names: Sequence[str]) -> str:
    shown = [*names] if len(names) <= _MOST else [*names[: _MOST - 1], f"{len(names) - _MOST + 1} more"]
    return conjoined(shown)


def _damage(setting: Setting, aim: Measured, utility: Measured | None) -> str:
    text = f"manipulated {setting.size} training samples"
    before, gold = setting.measured(aim.name, ORIGINAL), setting.measured(aim.name, GOLD)
    if before and gold:
        text += f": the original model's {_words(aim)} is {_range([before.mean])}, gold's {_range([gold.mean])}"
    if utility and (there := setting.measured(utility.name, ORIGINAL)):
        text += f"; the original's {_words(utility)} is {_range([there.mean])}"
    return f"{text}."


class _Best(NamedTuple):
    """The method that heals most at one α, all that may be as good, and what it costs."""

    alpha: float
    method: str
    value: Stat
    near: tuple[str, ...]
    change: float | None
    seconds: float | None


def _best_at_each_alpha(setting: Setting, aim: Measured, utility: Measured | None) -> list[_Best]:
    sign = 1 if aim.higher_is_better else -1
    found = []
    for alpha in setting.alphas:
        values = {m: value for m in setting.methods if (value := setting.measured(aim.name, m, alpha))}
        if not values:
            continue
        best = max(values, key=lambda method: sign * values[method].mean)
        near = tuple(method for method, value in values.items() if value.overlaps(values[best]))
        change = setting.change(utility.name, best, alpha) if utility else None
        seconds = stat_of(point.attempt.seconds for point in setting.selected(best, alpha))
        found.append(_Best(alpha, best, values[best], near, change, seconds and seconds.mean))
    return found


def _cure(setting: Setting, aim: Measured, utility: Measured | None, best: Sequence[_Best]) -> str:
    before, gold = setting.measured(aim.name, ORIGINAL), setting.measured(aim.name, GOLD)
    if not best or before is None or gold is None:
        return ""
    sign = 1 if aim.higher_is_better else -1
    if all(sign * one.value.mean <= sign * before.mean for one in best):
        return f"No method improves on the original {_at([one.alpha for one in best])}."
    parts = []
    scale, unit = (100, " points") if utility and utility.is_fraction else (1, "")
    for method, same in groupby(best, lambda one: one.method):
        group, costs = list(same), []
        changes = [scale * one.change for one in group if one.change is not None]
        if utility and changes:
            costs.append(f"{_words(utility)} {_range(changes, '+.1f')}{unit}")
        if seconds := [one.seconds for one in group if one.seconds is not None]:
            low, high = (duration(end) for end in (min(seconds), max(seconds)))
            costs.append(low if low == high else f"{low} to {high}")
        cost = f" ({', '.join(costs)})" if costs else ""
        values = _range([one.value.mean for one in group])
        parts.append(f"{method} {_at([one.alpha for one in group])}: {values}{cost}")
    text = f"{'Most is healed by' if len(setting.methods) > 1 else 'It is healed by'} {'; by '.join(parts)}."
    enough = [one.alpha for one in best if one.value.mean >= RECOVERED * gold.mean]
    if not aim.higher_is_better:
        return text
    if not enough:
        return f"{text} None of it is {RECOVERED:g} of gold."
    lasting = enough == [one.alpha for one in best if one.alpha >= enough[0]]
    where = f"from α = {enough[0]:g} on" if lasting else f"at α = {_row([f'{alpha:g}' for alpha in enough])}"
    return f"{text} It is {RECOVERED:g} of gold or more {where}."


def _doubts(experiment: Experiment, setting: Setting, best: Sequence[_Best]) -> str:
    texts = []
    alike = [(near, [one.alpha for one in same]) for near, same in groupby(best, lambda one: one.near) if len(near) > 1]
    if len(setting.seeds) == 1:
        texts.append("One seed can't tell a difference from chance.")
    elif alike:
        told = "; ".join(f"{_at(alphas)} between {_row(near)}" for near, alphas in alike)
        texts.append(f"Undecided, since the ranges of {counted(len(setting.seeds), 'seed')} overlap: {told}.")
    if failed := len(setting.failures):
        texts.append(f"{counted(failed, 'model')} or metrics gave no number.")
    if differing := mixed(experiment.environments):
        texts.append(f"The runs come from different environments ({differing}), which changes results.")
    return " ".join(texts)
