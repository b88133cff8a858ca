from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pytest
from PIL import Image

from cutk.report.panels import Panels
from cutk.report.style import INK, drawing, marks_for, png, svg

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
NAMES = ["$1^2$", "a $ b", "\\mathbf{", "<b>&amp;</b>", "x\x1b[2J", "e\u0301\u05d0\u200f", "日本", "\ufffe", "_"]


def linked(title="a title"):
    """A figure with two points that lead somewhere."""
    with drawing():
        panels = Panels([title])
        dots = panels.axes[0].scatter([1, 2], [3.123456789, 4])
        dots.set_urls(["#one", "#two"])
        panels.axes[0].axhline(3, url="#one", color=INK)
        return panels.finish("name", "group", title, "caption").figure


TIPS = {"#one": "first <&>", "#two": "second"}


def read(text):
    return ElementTree.fromstring(text)  # noqa: S314  # our own file


def parsed(**over):
    return read(svg(linked(), "name", TIPS, **over))


def test_ink_and_font_are_the_pages():
    text = svg(linked(), "name", TIPS)
    assert INK not in text
    assert "currentColor" in text
    assert "DejaVu" not in text
    assert "system-ui" in read(text).get("font-family")
    assert "<style" not in text  # it would hold for the whole page


def test_links_lead_to_the_page_and_say_what_is_there():
    root = parsed(page="page.html")
    links = list(root.iter(f"{SVG}a"))
    assert [link.get(f"{XLINK}href") for link in links] == ["page.html#one", "page.html#two", "page.html#one"]
    assert {link.get("aria-label") for link in links} == {"first <&>", "second"}
    assert [link.find(f"{SVG}title").text for link in links][:2] == ["first <&>", "second"]
    assert all(link.get("target") is None for link in links)


def test_without_a_page_nothing_leads_anywhere():
    text = svg(linked(), "name", TIPS, page=None)
    assert "<a " not in text
    assert "#one" not in text
    assert [title.text for title in read(text).iter(f"{SVG}title")] == ["first <&>", "second", "first <&>"]


@pytest.mark.parametrize("page", [None, "page.html"])
def test_a_file_of_its_own_has_the_ink_of_light_and_dark_pages(page):
    root = parsed(page=page)
    (style,) = root.iter(f"{SVG}style")
    assert re.fullmatch(
        r'\[id="name"\]\{color:#\w{6}\}@media \(prefers-color-scheme:dark\)\{\[id="name"\]\{color:#\w{6}\}\}',
        style.text,
    )
    assert root.get("id") == "name"


def test_two_figures_share_a_page():
    first, second = (read(svg(linked(), name, TIPS)) for name in ("a", "b"))
    ids = [{element.get("id") for element in root.iter()} - {None} for root in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for root, known in zip((first, second), ids, strict=True):
        used = {use.get(f"{XLINK}href")[1:] for use in root.iter(f"{SVG}use")}
        used |= {e.get("clip-path").removeprefix("url(#").removesuffix(")") for e in root.iter() if e.get("clip-path")}
        assert used <= known


def test_digits_that_nobody_sees_are_dropped():
    numbers = [token for element in parsed().iter() for token in (element.get("d") or "").split()]
    assert any("." in token for token in numbers)
    assert max(len(token.partition(".")[2]) for token in numbers) <= 2


def test_the_origin_goes_with_the_file():
    assert parsed(origin="made of <this>").find(f"{SVG}desc").text == "made of <this>"
    assert Image.open(io.BytesIO(png(linked(), "made of <this>"))).text["Description"] == "made of <this>"


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_text_and_nothing_else(name):
    """Dollars begin no formula, and what XML can't hold is spelled."""
    root = read(svg(linked(name), "name", TIPS, origin=name))
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert any(name in text for text in texts) or any("\\x1b" in text or "\\u" in text for text in texts)
    assert png(linked(name), name).startswith(b"\x89PNG")


def test_figures_are_the_same_each_time():
    assert svg(linked(), "name", TIPS) == svg(linked(), "name", TIPS)
    assert png(linked()) == png(linked())


def test_a_name_has_its_mark_in_every_report():
    many = marks_for(f"method-{i}" for i in range(32))
    assert len({tuple(map(str, mark)) for mark in many.values()}) == 32
    assert len({mark.colour for mark in marks_for(["badt", "cf", "none", "rewod", "scrub", "ssd"]).values()}) == 6
    assert marks_for(["ssd", "cf"])["ssd"] == marks_for(["rewod", "ssd"])["ssd"] == marks_for(["ssd"])["ssd"]
