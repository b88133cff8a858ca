"""How figures look: one palette, one mark for each name, and ink that takes the colour of the page."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["INK", "MUTED", "RC", "Mark", "colours_for", "marks_for", "png", "svg"]

# Stands for the colour of the text around a figure, which is known where it is shown and not where it is drawn.
INK = "#010203"
MUTED = 0.62

# Okabe and Ito's palette for colour-blind readers. Its yellow and black, which vanish on white and on black, give way
# to the olive and the rose of Tol's "muted".
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999933", "#B0496B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES: tuple[Any, ...] = ((0, ()), (0, (6, 1.5)), (0, (3, 1)), (0, (6, 1.2, 1.2, 1.2)))
# Of the numbers tried, the first that gives each method of the paper a colour of its own.
_SALT = "29"

_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

RC: Any = {
    # Widths are measured in a wide font and text is set in the reader's own, so that nothing comes to overlap.
    "font.family": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "svg.hashsalt": "cutk",
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.6,
    "legend.labelspacing": 0.55,
    "figure.facecolor": "none",
}


class Mark(NamedTuple):
    """What stands for a name wherever it is drawn."""

    colour: str
    marker: str
    dash: Any


def _mark(slot: int) -> Mark:
    colours = len(_COLOURS)
    turn = slot // colours
    return Mark(
        _COLOURS[slot % colours], _MARKERS[(slot + 3 * turn) % len(_MARKERS)], _DASHES[(slot + turn) % len(_DASHES)]
    )


def marks_for(names: Iterable[str]) -> dict[str, Mark]:
    """Return a mark for each name.

    A name has the same one in every report, unless another name of the same report, earlier in the alphabet, took it
    away; and no two have the same before all 32 are taken.
    """
    slots = len(_COLOURS) * len(_DASHES)
    taken: dict[int, str] = {}
    result = {}
    for name in sorted(set(names)):
        start = zlib.crc32(f"{_SALT}:{name}".encode()) % len(_COLOURS)
        free = (slot for step in range(slots) if (slot := (start + step) % slots) not in taken)
        slot = next(free, start)
        taken[slot] = name
        result[name] = _mark(slot)
    return result


def colours_for(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name in their order, for the few lines of one figure."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def svg(figure: Figure, name: str, tips: Mapping[str, str], page: str | None = "", origin: str = "") -> str:
    """Return a figure as an SVG element in the colours and the font of the page that shows it.

    Args:
        figure: what to draw.
        name: goes before every id in it, so that several can share a page.
        tips: what to say about each address that a part of the figure links to.
        page: where these addresses are; empty for the page that shows the figure, none if there is no page.
        origin: what the figure was made of, kept in it as its description.
    """
    buffer = io.StringIO()
    with mpl.rc_context(RC):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _shortened, text)
    text = re.sub(r"font(-family)?: ?([^;\"]*?)'DejaVu Sans'[^;\"]*", rf"font\1: \2{_FAMILY}", text)
    text = re.sub(r'(?<= )id="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)

    text = re.sub(r'(<use xlink:href=")#', rf"\1#{name}-", text)

    if origin:
        text = re.sub(r"(<svg[^>]*>)", lambda match: f"{match[1]}<desc>{escape(origin)}</desc>", text, count=1)
    if page is None:
        return re.sub(r"</?a\b[^>]*>", "", text)

    def link(match: re.Match[str]) -> str:
        tip = escape(tips[match[1]])
        return f'<a xlink:href="{page}{match[1]}" aria-label="{tip}"><title>{tip}</title>'

    # Without the target that matplotlib gives a link, which would open another window.
    return re.sub(r'<a xlink:href="(#[^"]*)"[^>]*>', link, text)


def _shortened(match: re.Match[str]) -> str:
    """Drop the digits of coordinates that no screen and no printer shows."""
    return " " + " ".join(re.sub(r"(\d\.\d\d)\d+", r"\1", match[0]).split())


def png(figure: Figure, origin: str = "") -> bytes:
    """Return a figure as a PNG on white, 200 dots an inch, with ``origin`` as its description."""
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(
            buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None, "Description": origin}
        )
    return buffer.getvalue()
