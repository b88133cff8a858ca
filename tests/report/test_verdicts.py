from __future__ import annotations

from cutk.report.experiments import experiments_of
from cutk.report.verdicts import verdict_of


def verdict(runs):
    (experiment,) = experiments_of(runs)
    return " ".join(verdict_of(experiment, experiment.settings[0]))


def test_damage_cure_and_doubt_by_hand(made):
    said = verdict(made.everything())
    assert said.startswith(
        "manipulated 10 training samples: the original model's corrected accuracy is 0.30, gold's 0.90; the original's "
        "retain accuracy is 0.91. "
    )
    # At α = 0.5 retain accuracy changes by −2 and 0 points, at α = 1 by −4 and −4; two seeds took 2 and 4 seconds.
    assert "Most is healed by ssd at α = 0.5 to 1: 0.60 to 0.85 (retain accuracy −4.0 to −1.0 points, 3 s). " in said
    assert "It is 0.9 of gold or more from α = 1 on." in said
    assert "Undecided" not in said


def test_overlapping_ranges_are_undecided(made):
    runs = [made.original(s, 0.1, 0.9) for s in (0, 1)] + [made.gold(s, 0.9, 0.9) for s in (0, 1)]
    for name, values in (("a", (0.5, 0.7)), ("b", (0.6, 0.65)), ("c", (0.2, 0.3))):
        runs += [made.run(name, 0.5, seed, [made.attempt(value, 0.9)]) for seed, value in enumerate(values)]
    said = verdict(runs)
    assert "Most is healed by b at α = 0.5: 0.62" in said
    assert said.endswith("Undecided, since the ranges of 2 seeds overlap: at α = 0.5 between a and b.")
    assert "None of it is 0.9 of gold." in said


def test_one_seed_decides_nothing(made):
    runs = [made.original(0, 0.1, 0.9), made.gold(0, 0.9, 0.9)]
    runs += [made.run(name, 0.5, 0, [made.attempt(value, 0.9)]) for name, value in (("a", 0.5), ("b", 0.8))]
    assert verdict(runs).endswith("One seed can't tell a difference from chance.")


def test_methods_that_heal_nothing(made):
    runs = [made.original(0, 0.3, 0.9), made.gold(0, 0.9, 0.9)]
    runs += [made.run("a", alpha, 0, [made.attempt(0.2, 0.9)]) for alpha in (0.1, 1.0)]
    assert "No method improves on the original at α = 0.1 to 1." in verdict(runs)


def test_nothing_to_correct(made):
    runs = [made.original(0, 0.95, 0.9), made.gold(0, 0.96, 0.9), made.run("a", 0.5, 0, [made.attempt(0.9, 0.9)])]
    said = verdict(runs)
    assert "Nothing to correct here" in said
    assert "healed" not in said


def test_a_recovery_that_does_not_last_is_no_start(made):
    runs = [made.original(0, 0.1, 0.9), made.gold(0, 0.9, 0.9)]
    runs += [
        made.run("a", alpha, 0, [made.attempt(value, 0.9)]) for alpha, value in ((0.1, 0.85), (0.5, 0.3), (1, 0.9))
    ]
    assert "It is 0.9 of gold or more at α = 0.1 and 1." in verdict(runs)


def test_failures_and_mixed_environments_are_doubts(made):
    broken = made.attempt(None, None, options={"weight": 6.0}, metrics={}, error="it broke")
    one = made.run("ssd", 0.1, 0, [made.attempt(0.3, 0.9), broken], environment={"threads": 2})
    said = verdict([*made.everything(), one])
    assert "1 model or metrics gave no number." in said
    assert "The runs come from different environments (threads: 1, 2), which changes results." in said


def test_without_an_objective_nothing_is_said(made, contents_of):
    (experiment,) = contents_of(made.everything(), metrics={"t": "unlearn_seconds"}).experiments
    assert verdict_of(experiment, experiment.settings[0]) == []


def test_many_names_are_counted(made):
    runs = [made.original(s, 0.1, 0.9) for s in (0, 1)] + [made.gold(s, 0.9, 0.9) for s in (0, 1)]
    for i in range(8):
        runs += [made.run(f"m{i}", 0.5, seed, [made.attempt(0.4 + 0.2 * seed, 0.9)]) for seed in (0, 1)]
    assert "between m0, m1, m2 and 5 more." in verdict(runs)
