"""The page, read as text and in a real browser."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cutk.report.page import excerpt
from cutk.report.page import page as page_of

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1400, "height": 900}
# What a terminal, a formula, a page or a line of text might trip over.
EVIL = ["$1^2$", "<script>alert(1)</script>", "w\u0301ide\u200fעברית", "x\x1b[2J", "\u202egnirts", "x" * 400]


@pytest.fixture(scope="module")
def runs(made):
    hostile = {"weight": 5.0, "note": "<script>alert(1)</script>"}
    broken = made.attempt(None, None, options={"weight": 6.0}, metrics={}, error="it <broke>")
    logs = {"scalars": {"loss <b>": [1.0, 0.5, None, 0.25], "changed": [3.0]}}
    logged = [made.run("cf", alpha, 0, [made.attempt(0.4, 0.9, **logs)]) for alpha in (0.1, 0.2)]
    baseline = made.attempt(0.2, 0.9)
    baseline["metrics"]["c"] = {label: i / 10 for i, label in enumerate(EVIL)}
    return [
        *made.everything(),
        *logged,
        made.run("none", 0.5, 0, [baseline]),
        made.run("ssd", 0.5, 0, [made.attempt(0.2, 0.9, options=hostile), broken]),
    ]


@pytest.fixture(scope="module")
def page_file(runs, contents_of, tmp_path_factory):
    """One page for all tests of this module."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of(contents_of(runs)), encoding="utf-8")
    return path


class Reader(HTMLParser):
    """Collects ids, links and whatever else a browser would fetch, and sees that what is opened is closed."""

    EMPTY = frozenset(("meta", "link", "br", "hr", "img", "input"))

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.look(tag, attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.look(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def look(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
                (self.links if tag in ("a", "use") else self.loads).append(value)


def test_the_page_is_well_formed_and_complete_in_itself(page_file):
    text = page_file.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []
    assert [name for name, count in Counter(reader.ids).items() if count > 1] == []
    assert reader.loads == ["data:,"]
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)
    # Every url() is a part of the page; the only other addresses are the names of namespaces.
    assert all(address.startswith("#") for address in re.findall(r"url\(['\"]?([^)'\"]+)", text))
    namespaces = {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= namespaces
    assert "@import" not in text


def test_the_page_leads_with_a_verdict(page_file):
    text = page_file.read_text(encoding="utf-8")
    first = text.index('<div class="verdicts">')
    assert first < text.index('<dl class="facts">') < text.index("<figure")
    said = re.sub(r"<[^>]+>", "", text[first : text.index("</div>", first)])
    assert said.split()[:4] == ["badnet", "manipulated", "10", "training"]
    assert "Most is healed by" in said


def test_the_page_says_once_where_its_numbers_come_from(page_file):
    text = page_file.read_text(encoding="utf-8").partition('class="records"')[0]
    for words in (
        "toy, fingerprint dddddddddddd",
        "<i>S</i><sub>m</sub>| = 10, 2 seeds (size=2)",
        "tiny (width=4)",
        "sgd (steps=20, lr=0.1), validation_fraction=0.05",
        "A &lt;fast&gt; machine &amp; more, AVX2, 1 thread), fp32",
        "cutk 0.2.0, torch 2.4.0, Python 3.11.7",
    ):
        assert text.count(words) == 1, words
    assert "on <i>D</i><sub>m</sub>." in text


def test_what_runs_hold_is_shown_and_not_obeyed(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "failed: it &lt;broke&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "$1^2$" in text


def test_nothing_to_correct_is_said(made, contents_of):
    runs = [made.original(0, 0.95, 0.9), made.gold(0, 0.96, 0.9), made.run("a", 0.5, 0, [made.attempt(0.9, 0.9)])]
    text = page_of(contents_of(runs))
    assert '<p class="caution">Nothing to correct here' in text
    assert ' best"' not in text.partition("<h4")[2].partition('class="records"')[0]


def test_what_failed_is_listed(made, contents_of):
    from cutk.run.records import Failure

    about = {"what": "cell", "role": "gold", "dataset": "toy", "manipulation": "badnet", "model": "tiny", "seed": 7}
    text = page_of(contents_of([made.original(0, 0.1, 0.9)], failures=[Failure(**about, reason="it <broke>")]))
    assert "<li>badnet, seed 7: gold: it &lt;broke&gt;</li>" in text
    assert "What failed" not in page_of(contents_of([made.original(0, 0.1, 0.9)]))


def test_a_notebook_shows_verdict_figure_and_tables(made, contents_of):
    text = excerpt(contents_of(made.everything()))
    assert "<b>badnet</b> manipulated 10 training samples" in text
    assert text.count("<figure>") == 1
    assert text.count("<svg") == 1
    assert "0.850" in text
    assert Reader(text).open == []


# In a browser.


@pytest.fixture
def shown(browser, page_file):
    """Open the page; every request and every complaint of the browser is kept, and checked at the end."""
    contexts, requests, complaints = [], [], []

    def go(viewport=WIDE, address="", **context):
        contexts.append(browser.new_context(viewport=viewport, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri() + address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert {request.partition("#")[0] for request in requests} <= {page_file.as_uri(), "data:,"}


def column(page, table, position):
    return page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map(row => row.cells[{position}].textContent.trim())"
    )


def test_a_heading_sorts_and_the_references_stay(shown):
    page = shown()
    table = "div[aria-labelledby='toy-tiny-table-0'] table"
    corrected = page.locator(f"{table} thead th").nth(4)
    before = column(page, table, 2)
    assert (before[0], before[-1]) == ("original", "gold")
    corrected.locator("button").click()
    assert corrected.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[0]) for text in column(page, table, 4)]
    assert values[1:-1] == sorted(values[1:-1])
    assert [column(page, table, 2)[i] for i in (0, -1)] == ["original", "gold"]
    # By keyboard, and the other way round.
    corrected.locator("button").focus()
    page.keyboard.press("Enter")
    assert corrected.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(page, table, 4)]
    assert values[1:-1] == sorted(values[1:-1], reverse=True)
    page.locator(f"{table} thead th").nth(2).locator("button").click()
    assert corrected.get_attribute("aria-sort") == "none"
    assert sorted(before) == sorted(column(page, table, 2))


def test_a_point_opens_its_record(shown):
    page = shown()
    point = page.locator("#toy-tiny-corrected_accuracy-alpha a[aria-label^='ssd [weight=1|10'][aria-label*='α = 1:']")
    address = point.get_attribute("xlink:href")
    record = page.locator(address)
    assert not record.is_visible()
    point.click(force=True)
    page.wait_for_function("address => location.hash === address", arg=address)
    record.wait_for(state="visible")
    assert "0.8" in record.inner_text()
    # Folded again, the same point opens it again, though the address stays.
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = false })")
    assert not record.is_visible()
    point.click(force=True)
    record.wait_for(state="visible")


def test_an_address_opens_its_record(shown, page_file):
    anchor = re.search(r'<tr id="(record-[0-9a-f]{16}-1)"', page_file.read_text(encoding="utf-8"))[1]
    page = shown(address=f"#{anchor}")
    page.locator(f"#{anchor}").wait_for(state="visible")


def test_light_and_dark(shown):
    def colours(scheme):
        page = shown(color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        ink = page.eval_on_selector("figure svg text", "text => getComputedStyle(text).fill")
        return page.evaluate(f"{style}.backgroundColor"), page.evaluate(f"{style}.color"), ink

    light, dark = colours("light"), colours("dark")
    assert all(here != there for here, there in zip(light, dark, strict=True))
    # A figure's text has the colour of the text around it.
    assert light[1] == light[2]
    assert dark[1] == dark[2]


@pytest.mark.parametrize("viewport", [NARROW, WIDE, {"width": 1600, "height": 900}])
def test_nothing_is_wider_than_the_screen(shown, viewport):
    page = shown(viewport)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    # What doesn't fit scrolls inside its box.
    assert page.evaluate("[...document.querySelectorAll('figure .scroll')].every(box => box.clientWidth <= innerWidth)")


def test_the_wheel_holds_the_page_and_the_style_of_figures(tmp_path, shell, python):
    pytest.importorskip("hatchling")
    source = Path(__file__).parents[2]
    build = f"WheelBuilder({str(source)!r}).build(directory={str(tmp_path)!r})"
    done = shell(python, "-c", f"from hatchling.builders.wheel import WheelBuilder; print(*{build})", cwd=source)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(done.stdout.strip()).namelist())
    files = ("page.html.j2", "excerpt.html.j2", "table.html.j2", "page.css", "page.js", "figures.mplstyle")
    assert {f"cutk/report/{name}" for name in files} <= names
