"""What figures are put together from: small multiples with one legend beside them, lines, bands and marks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cutk.errors import printable
from cutk.report.experiments import Point
from cutk.report.style import INK, MUTED, Mark
from cutk.run.summary import Stat

PANEL = (2.75, 2.2)  # inches
_WIDTH = 8.4  # for all panels of a row
_TITLE, _ENTRY = 36, 28  # characters of a line
_CHARACTER, _LINE = 0.078, 0.185  # inches of the text beside panels

# An axis that begins below this fraction and ends beyond so many times that is logarithmic.
_TENTHS, _FACTORS = 0.05, 10
# By so much the next number on a logarithmic axis has to be larger, or their names would touch.
_ROOM = 1.5

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass
class Drawing:
    """A figure of a report, under the heading of its ``group``; ``caption`` says how to read it.

    ``tips`` are what is said about each address that it links to, and ``origin`` is what it was made of.
    """

    name: str
    group: str
    title: str
    caption: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)
    origin: str = ""


def label_of(name: str) -> str:
    """Return a metric's name as an axis carries it: ``Retain accuracy``."""
    text = printable(name).replace("_", " ")
    return text[:1].upper() + text[1:]


def folded(text: str, width: int) -> str:
    """Return ``text`` in at most three lines of ``width`` characters.

    >>> folded("ssd [weight=0.1, dampening=10]", 20).splitlines()
    ['ssd [weight=0.1,', 'dampening=10]']
    """
    return "\n".join(textwrap.wrap(printable(text), width, max_lines=3, placeholder=" …"))


def spread(value: Stat) -> str:
    """Return a mean in words as short as they get: ``0.500 ±0.100 (n = 2)``."""
    if value.sd is None:
        return f"{value.mean:.3g} (n = {value.n})"
    return f"{value.mean:.3f} ±{value.sd:.3f} (n = {value.n})"


class Panels:
    """Small multiples: one panel for each title, as many side by side as a page takes, with one legend to their right.

    ``share`` says whether all have one vertical axis; ``size`` is one panel's in inches.
    """

    def __init__(self, titles: Sequence[str], share: bool = True, size: tuple[float, float] = PANEL) -> None:
        self.columns = min(len(titles), max(1, int(_WIDTH / size[0])))
        if len(titles) == self.columns + 1 and self.columns > 2:
            self.columns -= 1  # two rows of about the same length
        self.rows = math.ceil(len(titles) / self.columns)
        self.tips: dict[str, str] = {}
        self._entries: dict[str, Any] = {}
        layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.07, w_pad=0.05, h_pad=0.05)
        self.figure = Figure(figsize=(size[0] * self.columns, size[1] * self.rows + 0.35), layout=layout)
        grid = self.figure.subplots(self.rows, self.columns, squeeze=False, sharey=share)
        self.axes: list[Axes] = list(grid.flat)[: len(titles)]
        for unused in list(grid.flat)[len(titles) :]:
            unused.remove()
        for ax, title in zip(self.axes, titles, strict=True):
            ax.set_title("\n".join(folded(line, _TITLE) for line in title.splitlines()))

    def label(self, x: str, y: str) -> None:
        """Name the axes, each once where panels share it."""
        for i, ax in enumerate(self.axes):
            if i + self.columns >= len(self.axes):
                ax.set_xlabel(x)
            if i % self.columns == 0:
                ax.set_ylabel(y)

    def entry(self, name: str, handle: Any) -> None:
        """Add to the legend what isn't in it."""
        self._entries.setdefault(name, handle)

    def link(self, point: Point, values: str) -> str:
        """Return the address of a point's record, and keep what is said about it under the mouse."""
        address, alpha = f"#{point.anchor}", "" if point.alpha is None else f", α = {point.alpha:g}"
        self.tips.setdefault(address, f"{point.method}{alpha}: {values}")
        return address

    def curve(self, ax: Axes, xs: Sequence[float], values: Sequence[Stat], points: Sequence[Point], mark: Mark) -> None:
        """Draw means as a line, standard deviations as a band, and a mark for each that leads to its record."""
        means = [value.mean for value in values]
        if mark.stress >= 0 and any(value.sd for value in values):
            # A single value has no spread to draw: there the band is interrupted, not closed.
            sds = [math.nan if value.sd is None else value.sd for value in values]
            low, high = ([m + sign * sd for m, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
            ax.fill_between(xs, low, high, color=mark.colour, alpha=0.16, linewidth=0)
        ax.plot(xs, means, **mark.line)
        marks = ax.scatter(xs, means, **mark.dot)
        marks.set_urls([self.link(p, spread(v)) for p, v in zip(points, values, strict=True)])

    def reference(self, ax: Axes, name: str, value: Stat, point: Point, dash: Any) -> None:
        """Draw a horizontal line in the ink of the text, which leads to a record."""
        style = {"color": INK, "linestyle": dash, "linewidth": 1.1, "alpha": MUTED + 0.15}
        self.entry(name, Line2D([], [], **style))
        ax.axhline(value.mean, zorder=1.5, url=self.link(point, spread(value)), **style)

    def finish(self, name: str, group: str, title: str, caption: str) -> Drawing:
        """Set the legend and return the figure."""
        if self._entries:
            labels = [folded(text, _ENTRY) for text in self._entries]
            # matplotlib leaves out what begins with an underscore.
            labels = [f"\u00a0{text}" if text.startswith("_") else text for text in labels]
            lines = [line for label in labels for line in label.splitlines()]
            width, height = self.figure.get_size_inches()
            beside = 0.55 + _CHARACTER * max(map(len, lines))
            self.figure.set_size_inches(width + beside, max(height, 0.3 + _LINE * len(lines)))
            self.figure.legend(list(self._entries.values()), labels, loc="outside right upper")
        return Drawing(name, group, title, caption, self.figure, self.tips)


def fraction_axis(ax: Axes, values: Sequence[float]) -> None:
    """Let an axis of identified fractions begin at 0 and end at 1, unless all are far smaller.

    Where some are and some aren't, it is logarithmic.
    """
    low, high = min(values), max(values)
    if low < _TENTHS and high > _TENTHS * _FACTORS:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.12, high * 1.12)
        ax.xaxis.set_major_locator(FixedLocator(with_room(values)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        return
    if high <= 0.5:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return
    ax.set_xlim(0, 1.03)
    ax.xaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1f}"))


def with_room(values: Sequence[float]) -> list[float]:
    """Return those of some positive numbers that a logarithmic axis has room to name, the largest and smallest first.

    >>> with_room([0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 1])
    [0.02, 0.05, 0.1, 0.3, 0.5, 1]
    """
    first, *between, last = sorted(set(values))
    kept = [first]
    for value in between:
        if value >= _ROOM * kept[-1] and last >= _ROOM * value:
            kept.append(value)
    return [*kept, last]


def bounded_axis(axes: Sequence[Axes], values: Sequence[float]) -> None:
    """Let vertical axes of fractions show what is there with some air, and nothing that can't be."""
    low, high = min(values), max(values)
    air = max(0.06 * (high - low), 0.015)
    for ax in axes:
        ax.set_ylim(max(low - air, -0.03), min(high + air, 1.03))
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def power(value: float, _position: int | None = None) -> str:
    """Return a power of ten as people write it: ``0.01``, ``1``, ``10⁵``."""
    exponent = round(math.log10(value)) if value > 0 else 0
    return f"{10.0**exponent:g}" if abs(exponent) <= 2 else "10" + str(exponent).translate(_SUPERSCRIPTS)


def log_axis(axis: Any, ticks: int = 6) -> None:
    """Label a logarithmic axis with powers of ten alone."""
    axis.set_major_locator(LogLocator(numticks=ticks))
    axis.set_major_formatter(FuncFormatter(power))
    axis.set_minor_locator(NullLocator())
