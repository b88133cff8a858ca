from __future__ import annotations

import pytest

from cutk.report.breakdowns import breakdown
from cutk.report.experiments import experiments_of
from cutk.report.style import drawing, marks_for


def drawn(runs, metric):
    (experiment,) = experiments_of(runs)
    with drawing():
        return breakdown(experiment, experiment.breakdowns[metric], marks_for(experiment.methods))


def titles(figure):
    return [" ".join(ax.get_title(loc="left").split()) for ax in figure.figure.axes]


def with_ratios(made, counts, manipulation="badnet"):
    one = made.attempt(0.5, 0.9)
    one["metrics"]["h"] = counts
    over = {"manipulation": manipulation}
    return [made.original(0, 0.1, 0.9, **over), made.run("ssd", 0.5, 0, [one], **over)]


def test_logarithmic_bins_are_drawn_both_ways(made):
    """The paper's figure 3 has a linear axis, and its point is how far apart the largest values lie."""
    runs = with_ratios(made, {"0": 4.0, "0.1": 1000.0, "10": 30.0, "500": 2.0, "1000": 0.0, "2000": 7.0})
    runs += with_ratios(made, {"0": 4.0, "0.1": 1000.0, "10": 30.0, "500": 0.0, "1000": 0.0, "2000": 0.0}, "confusion")
    figure = drawn(runs, "ratio")
    assert titles(figure) == ["ssd, logarithmic", "ssd, linear"]
    logarithmic, linear = figure.figure.axes
    assert (logarithmic.get_xscale(), linear.get_xscale()) == ("log", "linear")
    assert logarithmic.get_yscale() == linear.get_yscale() == "log"
    # The last bin is open: what lies there has no place on a linear axis.
    assert sorted(text.get_text() for text in linear.texts) == ["1e+03", "500"]


def test_linear_bins_are_drawn_once(made):
    figure = drawn(with_ratios(made, {"0": 4.0, "1": 10.0, "2": 3.0}), "ratio")
    assert titles(figure) == ["ssd"]


def test_counts_of_one_bin(made):
    assert titles(drawn(with_ratios(made, {"0": 4.0}), "ratio")) == ["ssd"]


def test_classes_are_a_heat_map_with_a_line_a_method(made):
    figure = drawn(made.everything(), "class_accuracy")
    (ax,) = figure.figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["original", "cf", "ssd", "gold"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in ax.texts][:4] == ["30", "91", "30", "92"]


def test_fractions_against_fractions_are_a_line_a_method(made):
    def of(method, values):
        one = made.attempt(0.5, 0.9)
        one["metrics"]["c"] = values
        return made.run(method, 0.5, 0, [one])

    # The labels' order is that of numbers, and a method may lack some.
    first = made.attempt(0.1, 0.9)
    first["metrics"].pop("c")
    runs = [
        made.run(None, None, 0, [first]),
        of("ssd", {"1": 0.2, "0.05": 1.0}),
        of("cf", {"0.05": 0.5, "0.5": 0.25, "1": 0.0}),
    ]
    figure = drawn(runs, "class_accuracy")
    (ax,) = figure.figure.axes
    assert titles(figure) == ["badnet 10 manipulated, α = 0.5"]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()]
    assert lines == [([0.05, 0.5, 1.0], [0.5, 0.25, 0.0]), ([0.05, 1.0], [1.0, 0.2])]
    (legend,) = figure.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cf", "ssd"]


def test_digits_are_classes(made):
    one = made.attempt(0.5, 0.9)
    one["metrics"]["c"] = {"0": 0.5, "1": 0.7}
    original = made.run(None, None, 0, [made.attempt(0.1, 0.9, classes=("0", "1"))])
    figure = drawn([original, made.run("m", 0.5, 0, [one])], "class_accuracy")
    assert [text.get_text() for text in figure.figure.axes[0].get_xticklabels()] == ["0", "1"]


def test_many_classes_are_not_written_into_their_cells(made):
    one = made.attempt(0.5, 0.9)
    one["metrics"]["c"] = {f"class {i}": i / 100 for i in range(100)}
    figure = drawn([made.original(0, 0.1, 0.9), made.run("m", 0.5, 0, [one])], "class_accuracy")
    (ax,) = figure.figure.axes
    assert len(ax.texts) == 0
    assert len(ax.get_xticklabels()) < 40


def test_labels_that_are_no_numbers_are_no_bins(made):
    figure = drawn(with_ratios(made, {"nan": 4.0, "inf": 3.0}), "ratio")
    assert titles(figure) == ["badnet 10 manipulated, α = 0.5"]


@pytest.mark.parametrize("label", ["$x$", "\\frac{", "$", "<b>", "\x1b[2J", "ا\u200fב", "e\u0301" * 50])
def test_any_name_can_be_a_class(made, label):
    one = made.attempt(0.5, 0.9)
    one["metrics"]["c"] = {label: 0.5}
    figure = drawn([made.original(0, 0.1, 0.9), made.run("m", 0.5, 0, [one])], "class_accuracy")
    shown = [text.get_text() for text in figure.figure.axes[0].get_xticklabels()]
    assert any(text.startswith(label[:1]) or "x1b" in text for text in shown)
