from __future__ import annotations

from matplotlib.lines import Line2D

from cutk.report.panels import Panels, folded, label_of, power
from cutk.report.style import drawing, png, svg


def test_panels_are_laid_out_in_rows_of_about_one_length():
    with drawing():
        shapes = {n: (Panels(["t"] * n).rows, Panels(["t"] * n).columns) for n in (1, 2, 3, 4, 5, 7)}
    assert shapes == {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (2, 3), 7: (3, 3)}


def test_text_is_folded_and_cut():
    assert folded("one two three", 8).splitlines() == ["one two", "three"]
    assert len(folded("word " * 100, 20).splitlines()) == 3
    assert max(map(len, folded("x" * 500, 20).splitlines())) <= 20
    assert folded("a\x1bb", 20) == r"a\x1bb"


def test_labels_begin_with_a_capital():
    assert label_of("attack_success_rate") == "Attack success rate"
    assert label_of("") == ""


def test_powers_of_ten():
    assert [power(10.0**i) for i in (-5, -2, 0, 2, 7)] == ["10⁻⁵", "0.01", "1", "100", "10⁷"]


def test_a_legend_grows_the_figure_and_leaves_nothing_out():
    with drawing():
        panels = Panels(["a"])
        before = panels.figure.get_size_inches()[0]
        for name in ("_hidden", "$\\frac{", "a" * 200):
            panels.entry(name, Line2D([], []))
            panels.entry(name, Line2D([], []))
        made = panels.finish("n", "g", "t", "c")
    assert made.figure.get_size_inches()[0] > before
    texts = [text.get_text() for text in made.figure.legends[0].texts]
    assert len(texts) == 3
    assert texts[0].endswith("_hidden")
    assert "_hidden" in svg(made.figure, made.name, {})
    assert png(made.figure).startswith(b"\x89PNG")
