from __future__ import annotations

import pytest
from matplotlib.colors import to_rgb

from cutk.report.experiments import experiments_of
from cutk.report.figures import figures_of
from cutk.report.style import marks_for


@pytest.fixture(scope="module")
def drawn(made):
    """Draw what runs give, by the figures' names."""

    def go(runs):
        experiments = experiments_of(runs)
        marks = marks_for(method for experiment in experiments for method in experiment.methods)
        return {drawing.name: drawing for experiment in experiments for drawing in figures_of(experiment, marks)}

    return go


@pytest.fixture(scope="module")
def everything(made, drawn):
    sizes = [made.original(0, 0.1, 0.9, manipulated=20, mangling={"count": 20})]
    sizes.append(made.run("cf", 0.5, 0, [made.attempt(0.2, 0.9)], manipulated=20, mangling={"count": 20}))
    return drawn([*made.everything(), *sizes])


def panels(drawing):
    return {" ".join(ax.get_title(loc="left").split()): ax for ax in drawing.figure.axes}


def legend(drawing):
    return [text.get_text().strip() for text in drawing.figure.legends[0].texts]


def test_every_figure_is_there(everything):
    assert list(everything) == [
        f"toy-tiny-{name}"
        for name in (
            *("corrected_accuracy-alpha", "retain_accuracy-alpha"),
            *("corrected_accuracy-size-badnet", "retain_accuracy-size-badnet"),
            *("trade-off-corrected_accuracy-retain_accuracy", "corrected_accuracy-grid-ssd"),
            *("trade-off-corrected_accuracy-retain_accuracy-ssd", "class_accuracy", "ratio"),
        )
    ]
    assert all(drawing.origin.startswith("toy, tiny: badnet") for drawing in everything.values())
    assert all(drawing.tips for name, drawing in everything.items() if not name.endswith("ratio"))


def test_a_curve_has_the_means_and_says_what_its_points_are(everything):
    drawing = everything["toy-tiny-corrected_accuracy-alpha"]
    ax = panels(drawing)["badnet 10 manipulated"]
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert [[0.5, pytest.approx(0.6)], [1.0, pytest.approx(0.85)]] in lines
    assert {"ssd, α = 0.5: 0.600 ±0.141 (n = 2)", "gold: 0.900 ±0.141 (n = 2)"} <= set(drawing.tips.values())
    assert legend(drawing) == ["cf", "ssd", "original", "gold"]


def test_what_is_highlighted_stands_out(made):
    (experiment,) = experiments_of(made.everything())
    marks = marks_for(experiment.methods, ["ssd"])
    drawing = next(figures_of(experiment, marks))
    (ax,) = panels(drawing).values()
    lines = {line.get_color(): line for line in ax.lines}
    mine, other = (lines[marks[name].colour] for name in ("ssd", "cf"))
    assert mine.get_linewidth() > other.get_linewidth()
    assert mine.get_zorder() > other.get_zorder()
    assert legend(drawing) == ["ssd", "cf", "original", "gold"]
    bands = [band.get_facecolor()[0][:3] for band in ax.collections if band.get_offsets().shape[0] <= 1]
    assert [tuple(band) for band in bands] == [to_rgb(marks["ssd"].colour)]
    assert "a band of one standard deviation of what is highlighted" in drawing.caption
    # Colours and markers are those of any report.
    plain = marks_for(experiment.methods)
    assert all((plain[name].colour, plain[name].marker) == marks[name][:2] for name in experiment.methods)


def test_fractions_from_a_fiftieth_to_all_stand_on_a_logarithmic_axis(made, drawn):
    few = [made.original(0, 0.2, 0.9), made.gold(0, 0.9, 0.9)]
    runs = [made.run("cf", alpha, 0, [made.attempt(0.3, 0.9)]) for alpha in (0.02, 0.1, 0.5, 0.8, 1.0)]
    (ax,) = panels(drawn([*few, *runs])["toy-tiny-corrected_accuracy-alpha"]).values()
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.02", "0.1", "0.5", "1"]  # 0.8 would touch 1
    assert ax.get_xlim()[0] < 0.02
    assert ax.get_xlim()[1] > 1
    for others in (runs[1:], runs[:1]):
        (ax,) = panels(drawn([*few, *others])["toy-tiny-corrected_accuracy-alpha"]).values()
        assert ax.get_xscale() == "linear"


def test_the_baseline_and_the_original_are_two_lines(made, drawn):
    runs = [*made.everything(), made.run("none", 0.5, 0, [made.attempt(0.2, 0.9)])]
    assert legend(drawn(runs)["toy-tiny-corrected_accuracy-alpha"]) == ["cf", "none", "ssd", "original", "gold"]


def test_nothing_is_drawn_of_what_was_not_measured(made, drawn):
    """A setting without values has no panel, and a figure without panels isn't there."""
    runs = [made.original(0, 0.1, 0.9), made.gold(0, 0.9, 0.9)]
    assert list(drawn(runs)) == ["toy-tiny-class_accuracy"]
    bare = made.attempt(0.5, None, metrics={"u": 0.5})
    other = [made.original(0, 0.1, 0.9, manipulation="z"), made.run("cf", 0.5, 0, [bare], manipulation="z")]
    drawing = drawn([*made.everything(), *other])["toy-tiny-trade-off-corrected_accuracy-retain_accuracy"]
    assert list(panels(drawing)) == ["badnet 10 manipulated, α = 0.5"]


def grid_of(made):
    """SSD's two options: more values of one than a legend lists."""
    points = [{"weight": w, "dampening": w * d} for w in (0.1, 1.0, 10.0) for d in (0.1, 0.5, 1.0, 5.0, 10.0)]
    attempts = [made.attempt(i / 20, 0.9 - i / 50, options=point) for i, point in enumerate(points)]
    return [made.original(0, 0.1, 0.9), made.gold(0, 0.9, 0.9), made.run("ssd", 0.5, 0, attempts, selected=3)]


def test_every_option_of_a_grid_can_be_seen(made, drawn):
    """As the paper's figures 7 to 14: a figure for each method, what differs as colours and markers."""
    figures = drawn(grid_of(made))
    for name in ("corrected_accuracy-grid-ssd", "trade-off-corrected_accuracy-retain_accuracy-ssd"):
        drawing = figures[f"toy-tiny-{name}"]
        assert "Colours tell dampening. Markers tell weight." in drawing.caption
        words = legend(drawing)
        colours, markers = words[1 : words.index("weight")], words[words.index("weight") + 1 :]
        assert words[0] == "dampening"
        assert (colours[0], colours[-1]) == ("0.01", "100")
        assert len(colours) <= 9
        assert markers[:4] == ["0.1", "1", "10", markers[3]]
        (ax,) = drawing.figure.axes
        shades = {tuple(colour) for dots in ax.collections for colour in dots.get_facecolor() if colour[3] < 1}
        assert len(shades) == 9  # of 3 · 5 points some agree in their dampening
        assert any(
            "dampening=0.01, weight=0.1" in tip or "weight=0.1, dampening=0.01" in tip for tip in drawing.tips.values()
        )


def test_each_method_has_a_panel_of_its_own(made, drawn):
    other = [made.attempt(i / 10, 0.9, options={"distillation_weight": 10.0**i}) for i in range(-3, 2)]
    figures = drawn([*grid_of(made), made.run("scrub", 0.5, 0, other)])
    names = [name for name in figures if "grid" in name or name.endswith(("-ssd", "-scrub"))]
    assert len(names) == 4
    assert "Colours tell distillation weight." in figures["toy-tiny-corrected_accuracy-grid-scrub"].caption


def test_a_grid_of_which_the_selected_point_alone_was_measured_is_no_figure(made, drawn):
    first, second = made.grid((0.5, 0.9), (0.3, 0.5))
    runs = [made.original(0, 0.1, 0.9), made.run("ssd", 0.5, 0, [first, {**second, "metrics": {}}])]
    assert not any("grid" in name or name.endswith("-ssd") for name in drawn(runs))


def test_more_options_than_can_be_shown(made, drawn):
    points = [{"a": i, "b": i % 3, "c": i % 2} for i in range(12)]
    attempts = [made.attempt(0.5, 0.5, options=point) for point in points]
    drawing = drawn([made.original(0, 0.1, 0.9), made.run("m", 0.5, 0, attempts)])["toy-tiny-corrected_accuracy-grid-m"]
    assert "Colours tell a. Markers tell b." in drawing.caption
