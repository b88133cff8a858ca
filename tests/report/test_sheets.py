from __future__ import annotations

import pytest

from cutk.report.sheets import Cell, number_cell
from cutk.run.records import Failure
from cutk.run.summary import stat

MINUS = "−"


def sheet_of(contents, words):
    (sheet,) = [sheet for of_one in contents.sheets for sheet in of_one if words in sheet.title]
    return sheet


def cells(sheet, *first):
    """Return the texts of each line that begins with ``first``; a best cell ends with a star."""
    lines = [[f"{cell}{'*' if cell.best else ''}" for cell in line.cells] for line in sheet.lines]
    return [line[len(first) :] for line in lines if line[: len(first)] == list(first)]


def test_numbers_have_the_digits_that_they_bear():
    assert str(number_cell(stat([0.1, 0.3]), fraction=True)) == "0.200 ±0.141"  # √(2 · 0.1² / 1)
    assert [str(number_cell(stat([value]))) for value in (0.5, 5.0, 50.0, 500.0)] == ["0.500", "5.00", "50.0", "500"]
    assert str(number_cell(None)) == "–"


def test_means_and_standard_deviations_by_hand(made, contents_of):
    sheet = sheet_of(contents_of(made.everything()), "badnet")
    assert sheet.title == "toy, tiny: badnet, 10 manipulated"
    # sd of two values is their distance / √2: 0.2 / √2 = 0.141, 0.02 / √2 = 0.014.
    assert cells(sheet, "", "", "original") == [["2", "0.300 ±0.141", "0.910 ±0.014", "10.0 ±0.0"]]
    assert cells(sheet, "", "", "gold") == [["2", "0.900 ±0.141", "0.920 ±0.014", "10.0 ±0.0"]]


def test_the_best_is_marked_within_each_alpha(made, contents_of):
    """Or the row at the largest α takes it, and nothing is said of the others."""
    sheet = sheet_of(contents_of(made.everything()), "badnet")
    assert cells(sheet, "0.5", "5", "ssd") == [["2", "0.600 ±0.141*", "0.900 ±0.028", "3.00 ±1.41*"]]
    assert cells(sheet, "0.5", "5", "cf") == [["2", "0.300 ±0.000", "0.920 ±0.014*", "8.00 ±0.00"]]
    assert cells(sheet, "1", "10", "ssd") == [["2", "0.850 ±0.071*", "0.870 ±0.014", "3.00 ±1.41*"]]
    assert cells(sheet, "1", "10", "cf") == [["2", "0.300 ±0.000", "0.930 ±0.014*", "8.00 ±0.00"]]


def test_nothing_is_marked_where_one_method_has_no_rival(made, contents_of):
    runs = [run for run in made.everything() if run.labels.unlearner != "cf"]
    assert not any(sheet.marks for sheet in contents_of(runs).sheets[0])


def test_equals_are_all_best_unless_all_are_equal(made, contents_of):
    alike = [made.run(name, 1.0, 0, [made.attempt(value, 0.9)]) for name, value in (("a", 0.5), ("b", 0.5), ("c", 0.4))]
    sheet = sheet_of(contents_of([made.original(0, 0.1, 0.9), made.gold(0, 0.9, 0.9), *alike]), "badnet")
    corrected = [column.heading for column in sheet.columns].index("corrected accuracy ↑")
    assert [line.cells[corrected].best for line in sheet.lines] == [False, True, True, False, False]
    assert not any(line.cells[corrected + 1].best for line in sheet.lines)


def test_the_baseline_is_a_method_and_no_reference(made, contents_of):
    runs = [*made.everything(), made.run("none", 0.5, 0, [made.attempt(0.2, 0.9)])]
    sheet = sheet_of(contents_of(runs), "badnet")
    assert [line.cells[2].text for line in sheet.lines if not line.reference] == ["cf", "none", "ssd", "cf", "ssd"]
    assert [line.cells[2].text for line in sheet.lines if line.reference] == ["original", "gold"]


def test_what_the_test_set_chose_competes_with_nobody(made, contents_of):
    runs = [*made.everything(), made.run("ssd", 0.1, 0, made.grid((0.1, 0.9), (0.8, 0.9)))]
    sheet = sheet_of(contents_of(runs, oracle=True), "badnet")
    (oracle,) = [line for line in sheet.lines if line.cells[2].text == "ssd (oracle)" and line.cells[0].text == "0.1"]
    assert oracle.reference
    assert oracle.cells[4] == Cell("0.800", number=0.8)


def test_nothing_to_correct_is_said_and_nothing_marked(made, contents_of):
    runs = [made.original(seed, 0.95, 0.9) for seed in (0, 1)] + [made.gold(seed, 0.97, 0.9) for seed in (0, 1)]
    runs += [made.run(n, 0.5, s, [made.attempt(v, v)]) for s in (0, 1) for n, v in (("none", 0.95), ("cf", 0.9))]
    contents = contents_of(runs)
    sheet = sheet_of(contents, "badnet")
    assert sheet.caution.startswith("Nothing to correct here: the original model's corrected accuracy, 0.950, is at")
    assert not any(sheet.marks for sheet in contents.sheets[0] if "cost" not in sheet.title)
    assert [sheet.title for sheet in contents.sheets[0] if "alpha star" in sheet.title] == []


def test_a_setting_with_nothing_to_correct_stands_beside_another(made, contents_of):
    other = {"manipulation": "label-swap"}
    runs = [made.original(0, 0.95, 0.9, **other), made.gold(0, 0.96, 0.9, **other)]
    runs.append(made.run("ssd", 0.5, 0, made.grid((0.95, 0.9), (0.3, 0.5)), **other))
    star = sheet_of(contents_of([*made.everything(), *runs]), "alpha star")
    assert cells(star, "ssd") == [["1*", "nothing to correct"]]


def test_change_of_utility_by_hand(made, contents_of):
    """As the paper's table 1: mean ± sd over α of the change against the original, in points."""
    table = sheet_of(contents_of(made.everything()), "change of retain accuracy")
    assert cells(table, "original") == [["91.00"]]
    # α = 0.5: (−2 + 0) / 2 = −1; α = 1: (−4 − 4) / 2 = −4; mean −2.5, sd 3 / √2 = 2.12.
    assert cells(table, "ssd") == [[f"{MINUS}2.50 ±2.12"]]
    # 1 and 2: mean 1.5, sd 1 / √2 = 0.71.
    assert cells(table, "cf") == [["+1.50 ±0.71*"]]
    assert cells(table, "gold") == [["+1.00"]]


def test_cost_by_hand(made, contents_of):
    table = sheet_of(contents_of(made.everything()), "cost")
    # ssd took 2, 4, 2 and 4 seconds: mean 3, sd √(4 / 3) = 1.15.
    assert cells(table, "ssd") == [["4", "2", "3.00 ±1.15*", "1.00 ±0.00", "1.00 ±0.00"]]
    assert cells(table, "original")[0][:3] == ["2", "1", "10.0 ±0.0"]


def test_summaries_come_with_what_single_seeds_give(made, contents_of):
    # 0.9 of gold's 0.9 is 0.81, which SSD's mean reaches at α = 1 (0.85). Seed 0 alone needs 0.72 and has 0.5, 0.8;
    # seed 1 needs 0.9 and has 0.7, 0.9.
    table = sheet_of(contents_of(made.everything()), "alpha star")
    assert cells(table, "ssd") == [["1*"]]
    assert cells(table, "cf") == [["not reached"]]
    better = [made.run("ssd", 0.5, 1, made.grid((0.95, 0.9), (0.3, 0.5)))]
    runs = [
        run for run in made.everything() if (run.labels.unlearner, run.labels.alpha, run.labels.seed) != ("ssd", 0.5, 1)
    ]
    assert cells(sheet_of(contents_of([*runs, *better]), "alpha star"), "ssd") == [["1 (0.5 to 1)*"]]


def test_a_summary_of_less_than_others_have_says_of_what(made, contents_of):
    runs = [run for run in made.everything() if (run.labels.unlearner, run.labels.seed) != ("cf", 1)]
    runs += [made.run("scrub", 0.5, seed, [made.attempt(0.9, 0.9)]) for seed in (0, 1)]
    table = sheet_of(contents_of(runs), "alpha star")
    assert cells(table, "ssd") == [["1"]]
    assert cells(table, "cf") == [["not reached (n = 1)"]]
    assert cells(table, "scrub") == [["0.5 (α = 0.5 alone)*"]]


def test_where_a_method_failed_there_is_no_summary(made, contents_of):
    runs = [run for run in made.everything() if (run.labels.unlearner, run.labels.alpha) != ("ssd", 0.5)]
    about = {"what": "cell", "role": "unlearned", "manipulation": "badnet", "unlearner": "ssd", "alpha": 0.5}
    labels = runs[0].labels
    failure = Failure(**about, dataset=labels.dataset, model=labels.model, seed=0, reason="it broke")
    table = sheet_of(contents_of(runs, failures=[failure]), "alpha star")
    assert cells(table, "ssd") == [["failed at α = 0.5"]]
    assert cells(table, "cf") == [["not reached"]]


@pytest.mark.parametrize("role", ["original", "gold", "unlearned"])
def test_every_row_of_data_has_its_role(made, contents_of, role):
    rows = list(contents_of(made.everything()).rows())
    mine = [row for row in rows if row["role"] == role]
    assert {row["method"] for row in mine} == ({"ssd", "cf"} if role == "unlearned" else {role})


def test_a_summary_of_what_a_seed_lacks_is_none(made, contents_of):
    runs = [run for run in made.everything() if run.labels.unlearner != "ssd"]
    runs += [made.run("ssd", alpha, seed, [made.attempt(0.95, 0.9)]) for alpha in (0.1, 1.0) for seed in (0, 1)]
    failed = made.attempt(None, 0.9, metrics={})
    runs += [made.run("ssd", 0.5, 0, [made.attempt(0.2, 0.9)]), made.run("ssd", 0.5, 1, [failed])]
    table = sheet_of(contents_of(runs), "alpha star")
    assert cells(table, "ssd") == [["not measured at α = 0.5"]]


def test_samples_are_counted_for_each_method(made, contents_of):
    runs = [run for run in made.everything() if run.labels.unlearner != "cf"]
    sizes = {}
    more = made.run("cf", 0.5, 0, [made.attempt(0.3, 0.9)], how={"identification": "false-positives"})
    more = more.model_copy(update={"labels": more.labels.model_copy(update={"identified": 25})})
    for row in contents_of([*runs, more]).rows():
        sizes.setdefault((row["method"], row["alpha"]), set()).add(row["identified"])
    (other,) = {run.labels.identified for run in runs if run.labels.alpha == 0.5}
    assert sizes["cf", 0.5] == {25}
    assert sizes["ssd", 0.5] == {other}


def test_settings_whose_sizes_have_one_range_are_told_apart(made, contents_of):
    def of(size, sizes):
        found = []
        for seed, manipulated in enumerate(sizes):
            about = {"manipulated": manipulated, "mangling": {"size": size}}
            found += [made.original(seed, 0.2, 0.9, **about), made.gold(seed, 0.9, 0.9, **about)]
        return found

    settings = contents_of([*of(1, (10, 11, 12)), *of(2, (10, 12))]).experiments[0].settings
    assert len({setting.title for setting in settings}) == 2
