from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest
from torch.utils.data import TensorDataset

import cutk
from cutk.repair.records import RepairReport, Suspect
from cutk.repair.suspects import as_csv

from .conftest import MEAN, STD


@pytest.fixture(scope="module")
def repair(poisoned):
    return cutk.unlearn(
        poisoned.net,
        cutk.Samples(poisoned.x, poisoned.y, (*"012345678", "<b>nine</b>")),
        poisoned.bad,
        "ssd",
        validation=TensorDataset(poisoned.test_x, poisoned.test_y),
        mean=[MEAN],
        std=[STD],
        options={"ssd": {"selection_weight": [10, 50], "dampening": 250}},
    )


def test_the_page_is_complete_in_itself(repair):
    html = repair.html()
    assert repair.report.verdict in unescape(html)
    for text in ("What can&#39;t be known", "What can't be known"):
        if text in html:
            break
    else:
        raise AssertionError("no word of what can't be known")
    assert "Validation accuracy, class by class" in html
    assert html.count("data:image/png;base64,") == 24
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "<b>nine" not in html
    assert "&lt;b&gt;nine" in html


def test_the_report_survives_json(repair):
    again = RepairReport.model_validate_json(repair.report.model_dump_json(by_alias=True))
    assert again == repair.report
    assert '"schema":1' in repair.report.model_dump_json(by_alias=True)


def test_suspects_are_a_table_that_no_spreadsheet_takes_for_formulas(repair):
    evil = Suspect(index=1, name="=cmd()", label="a", original="a", repaired="b", score=0.5, by="x")
    rows = list(csv.DictReader(io.StringIO(as_csv([evil, *repair.suspects]))))
    assert rows[0]["name"] == "'=cmd()"
    assert len(rows) == 1 + repair.report.suspects
    scores = [float(row["score"]) for row in rows[1:]]
    assert scores == sorted(scores, reverse=True)
    taken = "" if repair.report.repaired else ", which wasn't taken"
    assert all(row["by"].endswith(f"original to ssd{taken}") for row in rows[1:])


# In a browser.

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_fits_its_window_and_asks_for_nothing(browser, repair, tmp_path, viewport, scheme):
    file = tmp_path / "report.html"
    file.write_text(repair.html(), encoding="utf-8")
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.locator(".pictures img").count() == 24
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert (brightness > 128) == (scheme == "light")
    context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {file.as_uri()}
