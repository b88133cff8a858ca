"""How figures look: one palette, one mark for each name, and ink that takes the colour of the page."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cutk.errors import printable

T = TypeVar("T")

# Stands for the colour of the text around a figure, which is known where it is shown and not where it is drawn.
INK = "#010203"
MUTED = 0.62

# Okabe and Ito's for colour-blind readers; its yellow and black, which vanish on white and on black, give way to two of
# Tol's "muted".
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999933", "#B0496B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES: tuple[Any, ...] = ((0, ()), (0, (6, 1.5)), (0, (3, 1)), (0, (6, 1.2, 1.2, 1.2)))
# Of the numbers tried, the first that gives each method of the paper a colour of its own.
_SALT = "29"

_SMALLEST = 0.8  # of its natural width; below that a figure is scrolled and not shrunk
_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_STYLE = Path(__file__).with_name("figures.mplstyle")


class Mark(NamedTuple):
    """What stands for a name wherever it is drawn; ``stress`` is 1 where it is highlighted, −1 where another one is."""

    colour: str
    marker: str
    dash: Any
    stress: int = 0

    @property
    def line(self) -> dict[str, Any]:
        """How its line is drawn."""
        look = ({}, {"linewidth": 2.3, "zorder": 2.6}, {"linewidth": 1.2, "alpha": 0.8})[self.stress]
        return {"color": self.colour, "linestyle": self.dash, **look}

    @property
    def dot(self) -> dict[str, Any]:
        """How a point on its line is drawn."""
        look = ({"s": 26}, {"s": 32, "zorder": 3.6}, {"s": 17, "alpha": 0.8, "linewidths": 0})[self.stress]
        return {"color": self.colour, "marker": self.marker, "zorder": 3, **look}

    @property
    def handle(self) -> dict[str, Any]:
        """How it stands in a legend: line and point."""
        return {**self.line, "marker": self.marker, "markersize": (5, 6, 4)[self.stress]}


def marks_for(names: Iterable[str], highlighted: Iterable[str] = ()) -> dict[str, Mark]:
    """Return a mark for each name: the same in every report, unless a name before it in the alphabet took that away.

    No two have the same before all 32 are taken. Where some are ``highlighted``, the others step back.
    """
    first = set(highlighted)
    colours, slots = len(_COLOURS), len(_COLOURS) * len(_DASHES)
    taken: set[int] = set()
    result = {}
    for name in sorted(set(names)):
        start = zlib.crc32(f"{_SALT}:{name}".encode()) % colours
        slot = next((at for step in range(slots) if (at := (start + step) % slots) not in taken), start)
        taken.add(slot)
        turn = slot // colours
        marker, dash = MARKERS[(slot + 3 * turn) % len(MARKERS)], _DASHES[(slot + turn) % len(_DASHES)]
        stress = (1 if name in first else -1) if first else 0
        result[name] = Mark(_COLOURS[slot % colours], marker, (0, ()) if stress > 0 else dash, stress)
    return result


def colours_for(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name in their order, for the few lines of one figure."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def shades(keys: Sequence[T], colormap: str, low: float, high: float) -> dict[T, str]:
    """Return colours from one part of a colour map for keys in their order: its ends vanish on white or on black."""
    steps = max(1, len(keys) - 1)
    return {key: to_hex(mpl.colormaps[colormap](low + (high - low) * i / steps)) for i, key in enumerate(keys)}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the house style, whatever the user's is; a letter that the measuring font lacks is no reason to warn."""
    with mpl.rc_context(fname=_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
        yield


_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    element = ElementTree.Element(f"{_SVG}{tag}")
    element.text = printable(text)
    parent.insert(0, element)


def svg(figure: Figure, name: str, tips: Mapping[str, str], page: str | None = "", origin: str = "") -> str:
    """Return a figure as an SVG element in the colours and the font of the page that shows it.

    Args:
        figure: what to draw.
        name: goes before every id in it, so that several can share a page.
        tips: what to say about each address that a part of the figure links to.
        page: where these addresses are; empty for the page that shows the figure, none if there is no page. If it isn't
            that page, the figure is a file of its own, with the ink of a light or of a dark page as its reader likes.
        origin: what the figure was made of, kept in it as its description.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314  # matplotlib wrote it just now
    for definitions in root.findall(f"{_SVG}defs"):
        for style in definitions.findall(f"{_SVG}style"):
            definitions.remove(style)  # it would hold for the whole page
    # Pixels, of which a screen has 4 where a printer has 3 points; it shrinks with its place, but not out of sight.
    width, height = (float(root.attrib[side].removesuffix("pt")) * 4 / 3 for side in ("width", "height"))
    root.attrib |= {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": _FAMILY, "role": "group"}
    root.set("style", f"min-width:{_SMALLEST * width:.0f}px;max-width:{width:.0f}px")
    referred = {use.get(_HREF, "")[1:] for use in root.iter(f"{_SVG}use")}
    for element in root.iter():
        _restyle(element, name, referred)
        if element.tag == f"{_SVG}a":
            address = element.attrib.pop(_HREF)
            element.attrib.clear()  # matplotlib would open another window
            if page is None:
                element.tag = f"{_SVG}g"
            else:
                element.attrib |= {_HREF: f"{page}{address}", "aria-label": printable(tips[address])}
            _add(element, "title", tips[address])
    if page != "":
        root.set("id", name)
        own = f'[id="{name}"]{{color:'
        _add(root, "style", f"{own}#1f2328}}@media (prefers-color-scheme:dark){{{own}#e6edf3}}}}")
    if origin:
        _add(root, "desc", origin)
    return ElementTree.tostring(root, encoding="unicode")


def _restyle(element: ElementTree.Element, name: str, referred: set[str]) -> None:
    """Give an element the page's ink and font, ids of its own, and no digits that no screen and no printer shows."""
    own = element.attrib
    if style := own.get("style"):
        parts = (part.strip() for part in style.replace(INK, "currentColor").split(";"))
        own["style"] = "; ".join(part for part in parts if not part.startswith("font-family"))
    for attribute in ("d", "x", "y"):
        if attribute in own:
            own[attribute] = " ".join(map(_short, own[attribute].split()))
    identity = own.pop("id", "")
    if identity in referred or element.tag == f"{_SVG}clipPath":
        own["id"] = f"{name}-{identity}"
    if element.tag == f"{_SVG}use":
        own[_HREF] = f"#{name}-{own[_HREF][1:]}"
    if "clip-path" in own:
        own["clip-path"] = own["clip-path"].replace("url(#", f"url(#{name}-")
    for text in ("text", "tail"):
        if element.tag != f"{_SVG}text" and not (getattr(element, text) or "").strip():
            setattr(element, text, None)


def _short(token: str) -> str:
    whole, point, decimals = token.partition(".")
    return f"{whole}.{decimals[:2]}".rstrip("0").rstrip(".") if point else token


def png(figure: Figure, origin: str = "") -> bytes:
    """Return a figure as a PNG on white, 200 dots an inch, with ``origin`` as its description."""
    buffer = io.BytesIO()
    about = {"Software": None, "Description": printable(origin)}
    with drawing():
        figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata=about)
    return buffer.getvalue()
