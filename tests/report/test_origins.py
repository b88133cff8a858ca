from __future__ import annotations

from cutk.report.experiments import experiments_of
from cutk.report.origins import facts_of, mixed, origin_of


def test_what_a_reader_has_to_know(made):
    (experiment,) = experiments_of(made.everything())
    assert facts_of(experiment) == [
        ("Data", ["toy, fingerprint dddddddddddd"]),
        ("Manipulation", ["badnet, |S_m| = 10, 2 seeds (size=2)"]),
        ("Model", ["tiny (width=4)"]),
        ("Recipe", ["sgd (steps=20, lr=0.1), validation_fraction=0.05"]),
        ("Hardware", ["cpu (A <fast> machine & more, AVX2, 1 thread), fp32"]),
        ("Versions", ["cutk 0.2.0, torch 2.4.0, Python 3.11.7"]),
    ]
    assert origin_of(experiment).startswith("toy, tiny: badnet, 10 manipulated, seeds 0, 1. cpu (A <fast>")


def test_only_what_changes_digits_is_told_of_mixed_environments(made):
    first, *_ = made.everything()
    environment = first.environment
    assert mixed([]) == mixed([environment, environment]) == ""
    assert mixed([environment, environment.model_copy(update={"providers": {"cutk": "9"}})]) == ""
    changes = {"threads": 2, "capability": "AVX512", "torch": "2.5.0", "precision": "bf16"}
    assert mixed([environment, environment.model_copy(update=changes)]) == (
        "torch: 2.4.0, 2.5.0; capability: AVX2, AVX512; threads: 1, 2; precision: bf16, fp32"
    )
